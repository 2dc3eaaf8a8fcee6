//! `cargo xtask test --real`: Penstock in front of real llama.cpp servers, asked by openai-python, scraped by promtool;
//! and the scanner beside Python's json.
//!
//! Everything comes by package name, from PyPI and Debian, and stays in `target/real`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::shell::{cargo, command, must, root, target};

const REQUIREMENTS: &str = "tests/real/requirements.txt";

/// `kernel`: the highest rung of this host, as `--kernel` names it.
pub(crate) fn test(kernel: &str) -> Result<()> {
    let folder = target().join("real");
    fs::create_dir_all(&folder)?;
    let python = python(&folder)?;
    let promtool = promtool(&folder)?;
    hold_scanner_against_python(&python)?;
    let model = folder.join("tiny.gguf");
    let mut make = command(&python, &["tests/real/make_tiny_model.py"]);
    make.arg(&model);
    must(make)?;
    let mut run = command(&python, &["tests/real/run.py"]);
    run.env("PENSTOCK_BIN", target().join("debug/penstock"));
    run.env("PROMTOOL", promtool).env("TINY_MODEL", model).env("PENSTOCK_TEST_KERNEL", kernel);
    must(run)
}

/// The scanner beside the reader that most engines use.
fn hold_scanner_against_python(python: &Path) -> Result<()> {
    must(cargo(&["build", "--package=penstock", "--example=scan"]))?;
    let mut oracle = command(python, &["tests/oracle/scan_vs_python.py"]);
    oracle.arg(target().join("debug/examples/scan")).args(["--bodies", "20000"]);
    must(oracle)
}

/// A virtual environment with the packages of [`REQUIREMENTS`], made again only when those change.
fn python(folder: &Path) -> Result<PathBuf> {
    let venv = folder.join("venv");
    let python = venv.join("bin/python");
    let stamp = folder.join("requirements.installed");
    let wanted = fs::read_to_string(root().join(REQUIREMENTS)).context(REQUIREMENTS)?;
    if python.is_file() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let mut make = command("python3", &["-m", "venv", "--clear"]);
    make.arg(&venv);
    must(make).context("python3 with venv is needed: apt-get install python3-venv")?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", REQUIREMENTS];
    must(command(&python, &install)).context("the packages come from PyPI: is it reachable?")?;
    fs::write(stamp, wanted)?;
    Ok(python)
}

/// The installed promtool, or the one inside Debian's package, unpacked without installing it: no service is
/// started, and root is not needed.
fn promtool(folder: &Path) -> Result<PathBuf> {
    let unpacked = folder.join("prometheus");
    let ours = unpacked.join("usr/bin/promtool");
    if command("promtool", &["--version"]).output().is_ok_and(|output| output.status.success()) {
        return Ok("promtool".into());
    }
    if ours.is_file() {
        return Ok(ours);
    }
    let advice = "promtool is in Debian's package prometheus: `apt-get update && apt-get install prometheus`, \
                  or put promtool into the PATH";
    let mut download = command("apt-get", &["download", "prometheus"]);
    download.current_dir(folder);
    must(download).context(advice)?;
    let package = fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .context("apt-get download left no .deb")?;
    let mut unpack = command("dpkg-deb", &["-x"]);
    unpack.args([&package, &unpacked]);
    must(unpack)?;
    fs::remove_file(package)?;
    ensure!(ours.is_file(), "no promtool in Debian's prometheus; {advice}");
    Ok(ours)
}
