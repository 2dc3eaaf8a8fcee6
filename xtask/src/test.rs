//! `cargo xtask test`: every test, with what it needs built first; those of the data path on every rung of the host.

use std::process::Command;

use anyhow::Result;

use crate::real;
use crate::shell::{cargo, command, has_cargo, must, target};

/// Most black-box tests wait for sockets: twice the cores of a small machine keep it busy, more would make the
/// tests that measure time starve.
const THREADS: &str = "4";

/// Black-box tests that say themselves which rung they are about, or start no gateway: they run once. All others are
/// of the data path, and run on every rung.
const ONE_RUNG: [&str; 5] = ["commands::", "foreign_load::", "privileges::", "splicing::", "steering::"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also openai-python against a real engine, fetched by package name
    #[arg(long, value_name = "ENGINE", require_equals = true, num_args = 0..=1, default_missing_value = "llama")]
    real: Option<real::Engine>,
    /// Only tests whose name holds this, and those of the data path only with `--kernel off`, or as
    /// PENSTOCK_TEST_KERNEL (off, sock-diag, account, full) says
    filter: Option<String>,
}

pub(crate) fn test(arguments: &Arguments) -> Result<()> {
    // The black-box tests run the built binary; cargo does not know that they depend on it.
    must(cargo(&["build", "--workspace", "--bins"]))?;
    let filter = arguments.filter.as_slice();
    let nextest = has_cargo("nextest");
    let mut all = suite(nextest, &["--workspace"]);
    all.args(filter);
    must(all)?;
    if filter.is_empty() && nextest {
        // It leaves the examples in documentation out.
        must(cargo(&["test", "--workspace", "--doc", "--quiet"]))?;
    }
    if !filter.is_empty() && arguments.real.is_none() {
        return Ok(());
    }
    let rungs = rungs_above_off();
    for rung in rungs.iter().filter(|_| filter.is_empty()) {
        let mut data_path = suite(nextest, &["--package=penstock-tests", "--test=blackbox"]);
        data_path.arg("--").args(ONE_RUNG.iter().flat_map(|name| ["--skip", name]));
        data_path.env("PENSTOCK_TEST_KERNEL", rung);
        eprintln!("the data path with --kernel {rung}:");
        must(data_path)?;
    }
    arguments.real.map_or(Ok(()), |engine| real::test(engine, rungs.last().unwrap_or(&"off")))
}

fn suite(nextest: bool, what: &[&str]) -> Command {
    let mut command =
        if nextest { cargo(&["nextest", "run", "--test-threads", THREADS]) } else { cargo(&["test"]) };
    command.arg("--no-fail-fast").args(what).env("RUST_TEST_THREADS", THREADS);
    command
}

/// As `--kernel` names them; says why one is left out.
fn rungs_above_off() -> Vec<&'static str> {
    let doctor = command(target().join("debug/penstock"), &["doctor"]).output();
    let report =
        doctor.map_or_else(|e| e.to_string(), |output| String::from_utf8_lossy(&output.stdout).into());
    let of_programs = lacks(&report, "account").or_else(|| {
        // Each gateway under test pins its programs in a mount namespace of its own.
        let made = command("unshare", &["--mount", "true"]).output();
        let may = made.is_ok_and(|output| output.status.success());
        (!may).then(|| "this process may not make mount namespaces (CAP_SYS_ADMIN)".to_owned())
    });
    let mut rungs = Vec::new();
    let full = of_programs.clone().or_else(|| lacks(&report, "full"));
    let found = [("sock-diag", lacks(&report, "sock_diag")), ("account", of_programs), ("full", full)];
    for (kernel, lacks) in found {
        match lacks {
            None => rungs.push(kernel),
            Some(why) => eprintln!("NOT RUN: the data path with --kernel {kernel}: {why}"),
        }
    }
    rungs
}

/// What `penstock doctor` misses for a rung. A BPF file system is not: tests mount their own.
fn lacks(report: &str, rung: &str) -> Option<String> {
    let of_rung = |line: &&str| line.split_whitespace().next() == Some(rung);
    let mut lines = report.lines().filter(of_rung).peekable();
    if lines.peek().is_none() {
        return Some(format!("`penstock doctor` says nothing of it: {report}"));
    }
    let mut missing = lines.filter_map(|line| line.split_once(" lacks ")).map(|(_, missing)| missing);
    missing.find(|missing| !missing.starts_with("a BPF file system")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_is_left_out_for_what_the_host_lacks_and_for_no_lack_of_a_mount() {
        let report = "kernel                6.18\n\
                      sock_diag             has NETLINK_SOCK_DIAG: answers\n\
                      account               has Linux 5.15: 6.18\n\
                      account               lacks a BPF file system for the pins: none is mounted\n\
                      rung                  sock_diag\n";
        assert_eq!(lacks(report, "account"), None);
        let more = format!("{report}account               lacks CAP_BPF: start as root\n");
        assert_eq!(lacks(&more, "account").as_deref(), Some("CAP_BPF: start as root"));
        assert_eq!(lacks(&more, "sock_diag"), None);
        assert!(lacks("", "account").unwrap().contains("doctor"));
    }
}
