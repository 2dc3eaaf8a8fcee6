//! `cargo xtask fuzz TARGET`: cargo-fuzz on the targets of gateway/fuzz.

use anyhow::{Result, ensure};

use crate::shell::{cargo, command, has_cargo, must, root};

const FOLDER: &str = "gateway/fuzz";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A file of gateway/fuzz/fuzz_targets, without its ending; without a target they are listed
    target: Option<String>,
    /// How long
    #[arg(default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn fuzz(arguments: &Arguments) -> Result<()> {
    let targets = root().join(FOLDER).join("fuzz_targets");
    let names: Vec<String> = std::fs::read_dir(&targets)?
        .filter_map(Result::ok)
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    let Some(target) = &arguments.target else {
        println!("targets: {}", names.join(", "));
        return Ok(());
    };
    ensure!(names.contains(target), "no target {target:?} in {FOLDER}; there are: {}", names.join(", "));
    ensure!(has_cargo("fuzz"), "cargo-fuzz is needed: cargo install cargo-fuzz");
    let time = format!("-max_total_time={}", arguments.seconds);
    let fuzz = ["fuzz", "run", "--fuzz-dir", FOLDER, target, "--", &time];
    let nightly = command("rustup", &["run", "nightly", "rustc", "--version"]).output();
    if nightly.is_ok_and(|output| output.status.success()) {
        return must(command("rustup", &[&["run", "nightly", "cargo"], &fuzz[..]].concat()));
    }
    // The sanitizers are behind a flag of the nightly compiler; the stable one has them too.
    let mut stable = cargo(&fuzz);
    stable.env("RUSTC_BOOTSTRAP", "1");
    must(stable)
}
