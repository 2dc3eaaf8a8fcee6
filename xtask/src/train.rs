//! `cargo xtask train`: counts how Penstock runs under the load of its bench, for the compiler to lay out a release by.
//!
//! What is counted stands in `gateway/profile`, by compiler, and is committed: whoever builds a release has it, without a
//! training of their own (`.cargo/rustc`). A function that has changed since is built as if it had never been counted.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::bench::peers::OTHER_BUILD;
use crate::shell::{self, cargo, command, must, root, target};

const FOLDER: &str = "gateway/profile";
/// What is trained for. Functions that none of it calls are built as they always were.
const LOAD: [&str; 6] = ["small", "bodies", "upload", "sse", "one", "conn"];

pub(crate) fn train() -> Result<()> {
    let rustc = Rustc::ask()?;
    let profdata = rustc.profdata()?;
    // Written when Penstock ends, which by then is nobody: not below a folder that may be closed to it.
    let counted = std::env::temp_dir().join(format!("penstock-train-{}", std::process::id()));
    fs::create_dir(&counted).with_context(|| format!("cannot make {}", counted.display()))?;
    fs::set_permissions(&counted, fs::Permissions::from_mode(0o1777))?;
    let trained = load(&counted).and_then(|()| merge(&profdata, &counted, &rustc.release));
    fs::remove_dir_all(&counted)?;
    let profile = trained?;
    println!(
        "{} is written; commit it. What was built before stays as it is: cargo clean --release",
        profile.display()
    );
    Ok(())
}

/// Builds a Penstock that counts, and puts the bench's load on it.
fn load(counted: &Path) -> Result<()> {
    let built = target().join("train");
    let mut build = cargo(&["build", "--release", "--package=penstock"]);
    build.env("PENSTOCK_TRAIN", counted).env("CARGO_TARGET_DIR", &built);
    must(build)?;
    let penstock = format!("{OTHER_BUILD}{}", built.join("release/penstock").display());
    let xtask = std::env::current_exe().context("cannot find myself")?;
    let bench = [&["bench"], &LOAD[..], &["--rounds=1", "--seconds=2", "--peers", &penstock]].concat();
    must(command(xtask, &bench))
}

/// Leaves out what never ran: it is not to be built for size.
fn merge(profdata: &Path, counted: &Path, release: &str) -> Result<PathBuf> {
    let folder = root().join(FOLDER);
    fs::create_dir_all(&folder)?;
    let profile = profile(release);
    let mut merge = command(profdata, &["merge", "--sparse", "--output"]);
    merge.arg(&profile).arg(counted);
    must(merge)?;
    for other in fs::read_dir(&folder)? {
        let other = other?.path();
        if other != profile {
            fs::remove_file(other)?;
        }
    }
    Ok(profile)
}

/// Of this compiler, as `.cargo/rustc` names it.
fn profile(release: &str) -> PathBuf {
    root().join(FOLDER).join(format!("{release}.profdata"))
}

/// Whether releases are built by what is committed: a profile that cannot be read is no more than a warning to rustc.
pub(crate) fn check() -> Result<()> {
    let rustc = Rustc::ask()?;
    let profile = profile(&rustc.release);
    if !profile.exists() {
        eprintln!(
            "warning: releases of rustc {} are built without a profile: {FOLDER} has none for it",
            rustc.release
        );
        return Ok(());
    }
    let out = target().join("profile-check/release/deps");
    fs::create_dir_all(&out)?;
    let empty = out.join("empty.rs");
    fs::write(&empty, "")?;
    let mut build = command(root().join(".cargo/rustc"), &[]);
    let output = build
        .arg(shell::rustc())
        .args(["--crate-type=lib", "-C", "opt-level=3", "--out-dir"])
        .arg(&out)
        .arg(&empty)
        .env_remove("PENSTOCK_TRAIN")
        .output()
        .context("cannot start .cargo/rustc")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && said.is_empty(),
        "{}: run `cargo xtask train`:\n{said}",
        profile.display()
    );
    Ok(())
}

/// The compiler, as it describes itself.
struct Rustc {
    release: String,
    host: String,
    sysroot: PathBuf,
    /// The major version of its LLVM.
    llvm: String,
}

impl Rustc {
    fn ask() -> Result<Self> {
        let ask = |arguments: &[&str]| -> Result<String> {
            let output = command(shell::rustc(), arguments).output().context("cannot start rustc")?;
            ensure!(output.status.success(), "rustc {arguments:?} failed");
            Ok(String::from_utf8(output.stdout)?.trim().to_owned())
        };
        let said = ask(&["-vV"])?;
        let field = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.with_context(|| format!("rustc -vV does not say its {name}"))
        };
        let llvm = field("LLVM version")?.split('.').next().unwrap_or_default().to_owned();
        let (release, host) = (field("release")?.to_owned(), field("host")?.to_owned());
        Ok(Self { release, host, sysroot: ask(&["--print", "sysroot"])?.into(), llvm })
    }

    /// An llvm-profdata that reads what this compiler's programs write.
    fn profdata(&self) -> Result<PathBuf> {
        let component = self.sysroot.join("lib/rustlib").join(&self.host).join("bin/llvm-profdata");
        let of_debian = PathBuf::from(format!("llvm-profdata-{}", self.llvm));
        let works = |path: &PathBuf| Command::new(path).arg("--version").output().is_ok();
        [component, of_debian].into_iter().find(works).with_context(|| {
            format!(
                "llvm-profdata of LLVM {0} is needed: rustup component add llvm-tools, or apt-get install llvm-{0}",
                self.llvm
            )
        })
    }
}
