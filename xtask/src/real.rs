//! `cargo xtask test --real`: Penstock in front of real llama.cpp servers, asked by openai-python, scraped by promtool;
//! and the scanner beside Python's json. `--real=vllm`: in front of a real vLLM.
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
}

/// `kernel`: the highest rung of this host, as `--kernel` names it.
pub(crate) fn test(engine: Engine, kernel: &str) -> Result<()> {
    let folder = target().join("real");
    fs::create_dir_all(&folder)?;
    let mut run = match engine {
        Engine::Llama => llama(&folder)?,
        Engine::Vllm => vllm(&folder)?,
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

fn vllm(folder: &Path) -> Result<Command> {
    let python = python(folder, &VLLM)?;
    let model = tiny_model(&python, folder.join("tiny"))?;
    let mut run = command(&python, &["tests/real/run_vllm.py"]);
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
    /// Modules of Python's that install it, one after the other, with their arguments.
    install: &'static [&'static [&'static str]],
}

const LLAMA: Environment = Environment {
    folder: "venv",
    requirements: "tests/real/requirements.txt",
    install: &[&[
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        "tests/real/requirements.txt",
    ]],
};

/// By uv, because pip cannot override what vLLM's wheel for CPUs wants: a torch that PyPI has not.
const VLLM: Environment = Environment {
    folder: "venv-vllm",
    requirements: "tests/real/requirements-vllm.txt",
    install: &[
        &["pip", "install", "--quiet", "--disable-pip-version-check", "uv==0.13.9"],
        &[
            "uv",
            "pip",
            "install",
            "--quiet",
            "--override",
            "tests/real/overrides-vllm.txt",
            "-r",
            "tests/real/requirements-vllm.txt",
        ],
    ],
};

/// Its python; made again only when the requirements change.
fn python(folder: &Path, environment: &Environment) -> Result<PathBuf> {
    let venv = folder.join(environment.folder);
    let python = venv.join("bin/python");
    let stamp = folder.join(format!("{}.installed", environment.folder));
    let wanted =
        fs::read_to_string(root().join(environment.requirements)).context(environment.requirements)?;
    if python.is_file() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let mut make = command("python3", &["-m", "venv", "--clear"]);
    make.arg(&venv);
    must(make).context("python3 with venv is needed: apt-get install python3-venv")?;
    for module in environment.install {
        let install = [&["-m"], *module].concat();
        must(command(&python, &install)).context("the packages come from PyPI: is it reachable?")?;
    }
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
