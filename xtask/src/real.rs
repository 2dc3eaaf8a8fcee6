//! `cargo xtask test --real`: Penstock in front of real llama.cpp servers, asked by openai-python, scraped by promtool;
//! and the scanner beside Python's json. `--real=vllm`, `--real=sglang`: in front of a real vLLM or SGLang.
//!
//! Everything comes by package name, from PyPI and Debian, and stays in `target/real`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::shell::{cargo, command, must, root, target};

/// What is tested against.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Engine {
    /// Two llama.cpp servers and promtool; what CI runs
    Llama,
    /// A vLLM on the CPU: 6 GB from PyPI, 4 GB of memory, some minutes
    Vllm,
    /// An SGLang on the CPU: 6 GB from PyPI, 3 GB of memory, some minutes
    Sglang,
}

/// `kernel`: the highest rung of this host, as `--kernel` names it.
pub(crate) fn test(engine: Engine, kernel: &str) -> Result<()> {
    let folder = target().join("real");
    fs::create_dir_all(&folder)?;
    let mut run = match engine {
        Engine::Llama => llama(&folder)?,
        Engine::Vllm => recorded(&folder, &VLLM, "tests/real/run_vllm.py")?,
        Engine::Sglang => recorded(&folder, &SGLANG, "tests/real/run_sglang.py")?,
    };
    run.env("PENSTOCK_BIN", target().join("debug/penstock")).env("PENSTOCK_TEST_KERNEL", kernel);
    must(run)
}

fn llama(folder: &Path) -> Result<Command> {
    let python = python(folder, &LLAMA)?;
    let promtool = promtool(folder)?;
    hold_scanner_against_python(&python)?;
    let model = tiny_model(&python, folder.join("tiny.gguf"))?;
    let mut run = command(&python, &["tests/real/run_llama.py"]);
    run.env("PROMTOOL", promtool).env("TINY_MODEL", model);
    Ok(run)
}

/// An engine in Python with a recorder inside it.
fn recorded(folder: &Path, environment: &Environment, tests: &str) -> Result<Command> {
    let python = python(folder, environment)?;
    let model = tiny_model(&python, folder.join("tiny"))?;
    let mut run = command(&python, &[tests]);
    run.env("TINY_MODEL", model);
    Ok(run)
}

fn tiny_model(python: &Path, path: PathBuf) -> Result<PathBuf> {
    let mut make = command(python, &["tests/real/make_tiny_model.py"]);
    make.arg(&path);
    must(make)?;
    Ok(path)
}

/// The scanner beside the reader that most engines use.
fn hold_scanner_against_python(python: &Path) -> Result<()> {
    must(cargo(&["build", "--package=penstock", "--example=scan"]))?;
    let mut oracle = command(python, &["tests/oracle/scan_vs_python.py"]);
    oracle.arg(target().join("debug/examples/scan")).args(["--bodies", "20000"]);
    must(oracle)
}

/// A virtual environment.
struct Environment {
    folder: &'static str,
    requirements: &'static str,
    /// What the packages ask for and do not get: uv can override it, pip cannot.
    overrides: Option<&'static str>,
}

const LLAMA: Environment =
    Environment { folder: "venv", requirements: "tests/real/requirements.txt", overrides: None };

const VLLM: Environment = Environment {
    folder: "venv-vllm",
    requirements: "tests/real/requirements-vllm.txt",
    overrides: Some("tests/real/overrides-vllm.txt"),
};

const SGLANG: Environment = Environment {
    folder: "venv-sglang",
    requirements: "tests/real/requirements-sglang.txt",
    overrides: Some("tests/real/overrides-sglang.txt"),
};

const PIP: [&str; 5] = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
/// The hundreds of packages that these engines bring are those of that day.
const UV: [&str; 7] = ["-m", "uv", "pip", "install", "--quiet", "--exclude-newer", "2026-11-20T00:00:00Z"];

/// Its python; made again only when what it asks for changes.
fn python(folder: &Path, environment: &Environment) -> Result<PathBuf> {
    let venv = folder.join(environment.folder);
    let python = venv.join("bin/python");
    let stamp = folder.join(format!("{}.installed", environment.folder));
    let mut wanted = String::new();
    for file in [Some(environment.requirements), environment.overrides].into_iter().flatten() {
        wanted += &fs::read_to_string(root().join(file)).context(file)?;
    }
    if python.is_file() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let mut make = command("python3", &["-m", "venv", "--clear"]);
    make.arg(&venv);
    must(make).context("python3 with venv is needed: apt-get install python3-venv")?;
    install(&python, environment).context("the packages come from PyPI: is it reachable?")?;
    fs::write(stamp, wanted)?;
    Ok(python)
}

fn install(python: &Path, environment: &Environment) -> Result<()> {
    let mut install = command(python, &PIP);
    if let Some(overrides) = environment.overrides {
        install.arg("uv==0.13.9");
        must(install)?;
        install = command(python, &UV);
        install.args(["--override", overrides]);
    }
    install.args(["-r", environment.requirements]);
    must(install)
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
