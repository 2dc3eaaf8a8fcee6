//! `penstock doctor`: what this host offers, and what is missing.

use std::fmt::Write;
use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::kernel::Rung;
use crate::kernel::probe::{Finding, beside, probe};

/// Descriptors below which a gateway for long streams runs out: each stream takes two.
const FEW_DESCRIPTORS: u64 = 4096;

/// Looks at the host once; changes nothing.
#[must_use]
pub fn report() -> String {
    let mut report = String::new();
    let mut line = |what: &str, found: String| _ = writeln!(report, "{what:<22}{found}");
    line("penstock", env!("CARGO_PKG_VERSION").into());
    line("kernel", read("/proc/sys/kernel/osrelease"));
    line("cores", std::thread::available_parallelism().map_or_else(|e| e.to_string(), |n| n.to_string()));
    line("open files", open_files());
    line("listen backlog", format!("{} (net.core.somaxconn)", read("/proc/sys/net/core/somaxconn")));
    line("cgroup v2", cgroup2().unwrap_or_else(|| "not mounted".into()));
    line("BTF", if fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false) { "yes" } else { "no" }.into());
    line("capabilities", capabilities());
    let findings = probe();
    let marked = |found: &Result<String, String>| match found {
        Ok(found) => ("has", found.clone()),
        Err(found) => ("lacks", found.clone()),
    };
    for finding in &findings {
        let (mark, found) = marked(&finding.found);
        line(finding.rung.word(), format!("{mark} {}: {found}", finding.need));
    }
    for (name, found) in beside() {
        let (mark, found) = marked(&found);
        line(name, format!("{mark} what it needs: {found}"));
    }
    line("rung", rung(&findings).to_string());
    report
}

/// The highest rung that lacks nothing.
fn rung(findings: &[Finding]) -> Rung {
    let has =
        |rung| findings.iter().filter(|finding| finding.rung == rung).all(|finding| finding.found.is_ok());
    let climbs = |rung: &Rung| has(*rung) && (*rung != Rung::Full || has(Rung::Account));
    [Rung::Full, Rung::Account, Rung::SockDiag].into_iter().find(climbs).unwrap_or(Rung::Userspace)
}

fn open_files() -> String {
    match getrlimit(Resource::Nofile).maximum {
        None => "unlimited".into(),
        Some(n) if n < FEW_DESCRIPTORS => {
            format!("{n}: low, a stream takes two; raise it (LimitNOFILE= in systemd, ulimit -Hn)")
        }
        Some(n) => format!("{n} (raised to the hard limit at start)"),
    }
}

/// Mounted beside v1 on some hosts, so the mount table is asked and no fixed path.
fn cgroup2() -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|mount| {
        let (place, kind) = mount.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| place.split(' ').nth(4).map(Into::into))?
    })
}

fn capabilities() -> String {
    const NEEDED: [(u32, &str); 4] =
        [(10, "CAP_NET_BIND_SERVICE"), (12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
    let status = read("/proc/self/status");
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0);
    let held = NEEDED.iter().filter(|(bit, _)| effective >> bit & 1 == 1).map(|(_, name)| *name);
    let held: Vec<_> = held.collect();
    if held.is_empty() { "none of those Penstock can use".into() } else { held.join(" ") }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|e| e.to_string(), |text| text.trim().to_owned())
}
