//! `cargo xtask check`: what a reviewer should not have to look for.

use anyhow::{Result, bail};

use crate::shell::{cargo, must};
use crate::{arrows, ebpf, licences, train};

type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 7] = [
    ("format", format),
    ("clippy", clippy),
    ("docs", docs),
    ("arrows", arrows::check),
    ("licences", licences::check),
    ("kernel half", || ebpf::run(true)),
    ("profile", train::check),
];

/// Takes every step, so that one run shows all that is wrong.
pub(crate) fn check() -> Result<()> {
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        if let Err(error) = step() {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    println!("check: format, clippy, docs, arrows, licences, the kernel half and the profile are in order");
    Ok(())
}

fn format() -> Result<()> {
    must(cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    must(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn docs() -> Result<()> {
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    must(doc)
}
