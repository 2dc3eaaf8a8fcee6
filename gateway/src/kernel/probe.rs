//! What this host and this process have of what the kernel half needs; `penstock doctor` prints it.
//!
//! Nothing is pinned, and nothing of others is changed: the programs are shown to the verifier, those beside the rungs are
//! tried on sockets of our own, splice in a network namespace of its own, and all are dropped again.

use std::fs;

use rustix::thread::CapabilitySet;

use super::account::{Place, verified};
use super::diag::SockDiag;

/// One need, and what is there.
#[derive(Debug)]
pub struct Finding {
    /// What needs it.
    pub rung: super::Rung,
    pub need: &'static str,
    /// What is there, or what is missing and how to mend it.
    pub found: Result<String, String>,
}

/// Asks this host once for everything that a rung needs.
#[must_use]
pub fn probe() -> Vec<Finding> {
    use super::Rung::{Account, Full, SockDiag as Diag};
    let finding = |rung, need, found| Finding { rung, need, found };
    vec![
        finding(Diag, "NETLINK_SOCK_DIAG", sock_diag()),
        finding(Account, "Linux 5.15", kernel()),
        finding(
            Account,
            "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON until the programs are loaded",
            capabilities(),
        ),
        finding(Account, "the kernel's type information", btf()),
        finding(Account, "the root of cgroup v2", cgroup()),
        finding(Account, "a BPF file system for the pins", bpffs()),
        finding(Account, "programs `account` (sock_ops) and `look` (iterator)", verified()),
        finding(Full, "programs `bind` (sock_ops) and `splice` (sk_msg)", super::splice::verified()),
    ]
}

/// What stands beside the rungs, by its name: whether it works here, or what it lacks.
#[must_use]
pub fn beside() -> Vec<(&'static str, Result<String, String>)> {
    vec![("steer", super::steer::verified()), ("intercept", super::intercept::verified())]
}

fn sock_diag() -> Result<String, String> {
    SockDiag::answers()
        .map(|()| "answers".into())
        .map_err(|e| format!("{e}; the kernel needs CONFIG_INET_DIAG"))
}

fn kernel() -> Result<String, String> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 15) { Ok(release) } else { Err(format!("{release} is older")) }
}

pub(super) fn capabilities() -> Result<String, String> {
    let needed = [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
    ];
    held(&needed).map(|()| "held".into())
}

/// Whether any program may be loaded at all.
pub(super) fn may_load() -> Result<(), String> {
    held(&[(CapabilitySet::BPF, "CAP_BPF")])
}

fn held(needed: &[(CapabilitySet, &str)]) -> Result<(), String> {
    let have = rustix::thread::capabilities(None).map_err(|e| e.to_string())?.effective;
    // CAP_SYS_ADMIN holds what CAP_BPF and CAP_PERFMON were once a part of.
    let root = have.contains(CapabilitySet::SYS_ADMIN);
    let is_missing = |capability| {
        let by_root = root && capability != CapabilitySet::NET_ADMIN;
        !have.contains(capability) && !by_root
    };
    let missing = needed.iter().filter(|(capability, _)| is_missing(*capability)).map(|(_, name)| *name);
    let missing: Vec<&str> = missing.collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("{} missing; start as root, under systemd with deploy/ebpf.conf", missing.join(", ")))
    }
}

fn btf() -> Result<String, String> {
    let path = "/sys/kernel/btf/vmlinux";
    fs::metadata(path)
        .map(|_| path.into())
        .map_err(|e| format!("{path}: {e}; the kernel needs CONFIG_DEBUG_INFO_BTF"))
}

fn cgroup() -> Result<String, String> {
    Place::cgroup().map(|path| path.display().to_string())
}

fn bpffs() -> Result<String, String> {
    let Some(path) = Place::bpffs()? else {
        return Err("none is mounted; Penstock mounts one at /sys/fs/bpf where it has CAP_SYS_ADMIN".into());
    };
    Ok(if Place::has_pins(&path)? {
        format!("{}, with pins of a gateway that runs or was killed", path.display())
    } else {
        path.display().to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_says_something() {
        for finding in probe() {
            let (Ok(text) | Err(text)) = &finding.found;
            assert!(!text.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn root_on_a_fit_host_lacks_nothing() {
        if let Err(lacks) = capabilities() {
            eprintln!("NOT RUN: {lacks}");
            return;
        }
        // A missing BPF file system is mounted by the first gateway.
        let lacks: Vec<_> = probe()
            .into_iter()
            .filter(|f| f.found.is_err() && !f.need.starts_with("a BPF file system"))
            .collect();
        assert!(lacks.is_empty(), "{lacks:?}");
    }
}
