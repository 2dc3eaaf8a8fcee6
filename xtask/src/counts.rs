//! `cargo xtask counts`: how many instructions the scanner takes for each body of its bench, held against what was
//! committed. Times differ from machine to machine and from run to run; these do not, so a change that makes the
//! scanner slower is seen by whoever makes it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::shell::{self, cargo, command, root, target};

const FILE: &str = "gateway/benches/scan.counts";
/// Our crate as in a release, upon what the tests are built of: a release of all of it would take minutes. In one
/// unit, or code that has nothing to do with the scanner would change what is inlined into it.
const OPTIMISED: [&str; 4] = [
    "profile.dev.package.penstock.opt-level=3",
    "profile.dev.package.penstock.codegen-units=1",
    "profile.dev.package.penstock.debug-assertions=false",
    "profile.dev.package.penstock.overflow-checks=false",
];
/// How far a count may be off, in percent: another libc copies with other instructions.
const TOLERANCE: f64 = 2.0;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write what was counted instead of comparing it
    #[arg(long)]
    update: bool,
}

pub(crate) fn counts(arguments: &Arguments) -> Result<()> {
    let valgrind = Command::new("valgrind").arg("--version").output();
    ensure!(valgrind.is_ok_and(|o| o.status.success()), "valgrind is needed: apt-get install valgrind");
    let rustc = rustc()?;
    let bench = build()?;
    let list = Command::new(&bench).arg("--list").output().context("cannot run the bench")?;
    let names = String::from_utf8(list.stdout)?;
    let mut counted = BTreeMap::new();
    for name in names.lines() {
        counted.insert(name.to_owned(), count(&bench, name)?);
    }
    let file = root().join(FILE);
    if arguments.update {
        return std::fs::write(&file, show(&rustc, &counted)).with_context(|| format!("cannot write {FILE}"));
    }
    let committed = std::fs::read_to_string(&file).with_context(|| format!("cannot read {FILE}"))?;
    let same = compare(&counted, &parse(&committed)?);
    if same.is_err() && !committed.contains(&rustc) {
        eprintln!("NOT HELD: {FILE} was written with another compiler than this {rustc}");
        return Ok(());
    }
    same
}

/// The compiler decides what the scanner is made of.
fn rustc() -> Result<String> {
    let output = command(shell::rustc(), &["--version"]).output().context("cannot start rustc")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Builds the bench; where it is.
fn build() -> Result<PathBuf> {
    // All of the workspace, so that dependencies have the features that the tests built them with.
    let mut build = cargo(&["bench", "--workspace", "--bench", "scan", "--profile", "dev"]);
    // Incremental builds inline less, and CI makes none.
    build
        .env("CARGO_INCREMENTAL", "0")
        .args(["--no-run", "--message-format=json"])
        .args(OPTIMISED.iter().flat_map(|set| ["--config", set]));
    let output = build.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the bench does not build");
    let executable = String::from_utf8(output.stdout)?.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_bench = message["target"]["name"] == "scan" && message["target"]["kind"][0] == "bench";
        is_bench.then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executable.context("cargo does not say where the bench is")
}

fn count(bench: &std::path::Path, name: &str) -> Result<u64> {
    let out = format!("--callgrind-out-file={}", target().join("counts.out").display());
    let mut run = command("valgrind", &["--tool=callgrind", &out, "--toggle-collect=scan::counted"]);
    let output = run.arg(bench).args(["--count", name]).output().context("cannot start valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed on {name:?}:\n{said}");
    let collected =
        said.lines().find_map(|line| line.split_once("Collected :")).map(|(_, number)| number.trim());
    let collected = collected.with_context(|| format!("valgrind counted nothing for {name:?}:\n{said}"))?;
    let instructions = collected.parse().with_context(|| format!("not a count: {collected:?}"))?;
    ensure!(instructions > 0, "valgrind did not see the scan of {name:?}");
    Ok(instructions)
}

fn show(rustc: &str, counts: &BTreeMap<String, u64>) -> String {
    let head = format!(
        "# Instructions per scan with AVX2, by callgrind and {rustc}; `cargo xtask counts --update` writes them.\n"
    );
    counts.iter().fold(head, |mut text, (name, count)| {
        _ = writeln!(text, "{count:>10}  {name}");
        text
    })
}

fn parse(text: &str) -> Result<BTreeMap<String, u64>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| {
            let (count, name) =
                line.trim_start().split_once("  ").with_context(|| format!("{FILE}: {line:?}"))?;
            Ok((name.to_owned(), count.parse().with_context(|| format!("{FILE}: {line:?}"))?))
        })
        .collect()
}

fn compare(counted: &BTreeMap<String, u64>, committed: &BTreeMap<String, u64>) -> Result<()> {
    let mut differ = Vec::new();
    for name in counted.keys().chain(committed.keys().filter(|name| !counted.contains_key(*name))) {
        let (now, before) = (counted.get(name), committed.get(name));
        let percent = match (now, before) {
            (Some(now), Some(before)) => (*now as f64 / *before as f64 - 1.0) * 100.0,
            _ => f64::INFINITY,
        };
        let shown = |count: Option<&u64>| count.map_or("-".to_owned(), u64::to_string);
        println!("{name:32} {:>10} -> {:>10}  {percent:+.2} %", shown(before), shown(now));
        if percent.abs() > TOLERANCE {
            differ.push(name.as_str());
        }
    }
    if !differ.is_empty() {
        bail!(
            "the scanner's instruction counts changed: {}\nif that is meant: cargo xtask counts --update",
            differ.join(" · ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_again() {
        let counts =
            BTreeMap::from([("chat, 86 B".to_owned(), 700), ("tool schemas, 15 KB".to_owned(), 17_000)]);
        assert_eq!(parse(&show("rustc 1.95.0", &counts)).unwrap(), counts);
    }

    #[test]
    fn a_count_that_moves_is_refused_in_either_direction() {
        let counts = |n| BTreeMap::from([("a".to_owned(), n)]);
        assert!(compare(&counts(1015), &counts(1000)).is_ok());
        assert!(compare(&counts(1025), &counts(1000)).is_err());
        assert!(compare(&counts(975), &counts(1000)).is_err());
        assert!(compare(&BTreeMap::new(), &counts(1000)).is_err());
        assert!(compare(&counts(1000), &BTreeMap::new()).is_err());
    }
}
