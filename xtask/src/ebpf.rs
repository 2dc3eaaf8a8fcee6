//! Builds the kernel half, or checks that what is committed is what its sources say.
//!
//! `gateway-ebpf/penstock.bpf.o` is committed, so that a user needs no eBPF toolchain; `penstock.bpf.lock` says from which
//! sources and by which toolchain it was built, and what the verifier makes of it.

mod verifier;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSection};

const OBJECT: &str = "gateway-ebpf/penstock.bpf.o";
const LOCK: &str = "gateway-ebpf/penstock.bpf.lock";
const BUILT: &str = "gateway-ebpf/target/bpfel-unknown-none/release/penstock-ebpf";
const LINKER: &str = "0.10.4";

const TOOLCHAIN: &str = "the kernel half is built by a rustc with `rust-src` beside it and bpf-linker 0.10.4:\n  \
    on Debian:   apt-get install rustc-web cargo-web rust-web-src; cargo install bpf-linker --version 0.10.4\n  \
    elsewhere:   rustup toolchain install nightly -c rust-src; cargo install bpf-linker --version 0.10.4\n\
    PENSTOCK_EBPF_RUSTC, PENSTOCK_EBPF_CARGO and PENSTOCK_BPF_LINKER name others than those of /usr/bin and PATH";

/// Rebuilds the committed object, or with `check` compares it with its sources.
pub(crate) fn run(check: bool) -> Result<()> {
    env::set_current_dir(root())?;
    if check { compare() } else { rebuild() }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

fn rebuild() -> Result<()> {
    let toolchain = Toolchain::find().context(TOOLCHAIN)?;
    toolchain.build()?;
    fs::copy(BUILT, OBJECT).with_context(|| format!("cannot copy {BUILT} to {OBJECT}"))?;
    let mut lock = BTreeMap::from([
        ("sources".to_owned(), sources()?),
        ("object".to_owned(), hash(&fs::read(OBJECT)?)?),
        ("toolchain".to_owned(), toolchain.version),
    ]);
    match verifier::statistics(OBJECT) {
        Ok(statistics) => lock.extend(statistics),
        Err(error) => {
            eprintln!("warning: the verifier's figures stay as they are: {error:#}");
            let old = read_lock().unwrap_or_default();
            lock.extend(old.into_iter().filter(|(key, _)| key.starts_with("verifier")));
        }
    }
    let text: String = lock.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    fs::write(LOCK, text)?;
    println!("{OBJECT} is built; commit it with {LOCK}");
    Ok(())
}

fn compare() -> Result<()> {
    let lock = read_lock()?;
    let of =
        |key: &str| lock.get(key).with_context(|| format!("{LOCK} has no {key}; run `cargo xtask ebpf`"));
    ensure!(
        *of("sources")? == sources()?,
        "{OBJECT} is older than its sources in gateway-ebpf or gateway-common; run `cargo xtask ebpf` and commit it"
    );
    ensure!(*of("object")? == hash(&fs::read(OBJECT)?)?, "{OBJECT} is not the one that {LOCK} speaks of");
    match Toolchain::find() {
        Ok(toolchain) if toolchain.version == *of("toolchain")? => {
            toolchain.build()?;
            same_programs(&fs::read(OBJECT)?, &fs::read(BUILT)?)?;
            println!("{OBJECT} is what its sources build to");
        }
        Ok(toolchain) => {
            eprintln!(
                "warning: not rebuilt: here is {}, it was built by {}",
                toolchain.version,
                of("toolchain")?
            );
        }
        Err(error) => eprintln!("warning: not rebuilt: {error:#}"),
    }
    match verifier::statistics(OBJECT) {
        Ok(now) if now.get("verifier kernel") == lock.get("verifier kernel") => {
            for (key, value) in &now {
                ensure!(
                    lock.get(key) == Some(value),
                    "{key} is {value}, and {LOCK} says {:?}",
                    lock.get(key)
                );
            }
            println!("the verifier's figures are those of {LOCK}");
        }
        Ok(now) => {
            let kernel =
                |of: &BTreeMap<String, String>| of.get("verifier kernel").cloned().unwrap_or_default();
            eprintln!("warning: accepted by kernel {}; the figures are of {}", kernel(&now), kernel(&lock));
        }
        Err(error) => eprintln!("warning: not shown to the verifier: {error:#}"),
    }
    Ok(())
}

/// Everything that the loader reads must be the same: programs, maps, constants, types. Debug information may differ.
fn same_programs(committed: &[u8], built: &[u8]) -> Result<()> {
    let sections = |bytes: &[u8]| -> Result<BTreeMap<String, Vec<u8>>> {
        let file = object::File::parse(bytes)?;
        let mut sections = BTreeMap::new();
        for section in file.sections() {
            let name = section.name()?;
            if !name.contains(".debug") && !matches!(name, ".symtab" | ".strtab" | "") {
                sections.insert(name.to_owned(), section.data()?.to_vec());
            }
        }
        Ok(sections)
    };
    let (committed, built) = (sections(committed)?, sections(built)?);
    let names: Vec<_> = committed.keys().collect();
    ensure!(
        names == built.keys().collect::<Vec<_>>(),
        "{OBJECT} has other sections than what its sources build to"
    );
    for (name, bytes) in &committed {
        ensure!(
            built.get(name) == Some(bytes),
            "section {name} of {OBJECT} differs from what its sources build to"
        );
    }
    Ok(())
}

struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    linker: PathBuf,
    /// Where bpf-linker finds the LLVM that it was built for.
    llvm: PathBuf,
    version: String,
}

impl Toolchain {
    fn find() -> Result<Self> {
        let named =
            |variable: &str, usual: &str| PathBuf::from(env::var_os(variable).unwrap_or(usual.into()));
        let rustc = named("PENSTOCK_EBPF_RUSTC", "/usr/bin/rustc");
        let cargo = named("PENSTOCK_EBPF_CARGO", "/usr/bin/cargo");
        let sysroot = PathBuf::from(output(Command::new(&rustc).args(["--print", "sysroot"]))?);
        ensure!(
            sysroot.join("lib/rustlib/src/rust/library/core").is_dir(),
            "{} has no rust-src beside it",
            rustc.display()
        );
        let linker = named("PENSTOCK_BPF_LINKER", "bpf-linker");
        let llvm = llvm(&sysroot)?;
        let version = output(Command::new(&linker).arg("--version").env("LD_LIBRARY_PATH", &llvm))?;
        ensure!(version.contains(LINKER), "bpf-linker {LINKER} is wanted, and here is {version}");
        let verbose = output(Command::new(&rustc).arg("-vV"))?;
        let line =
            |start: &str| verbose.lines().find(|line| line.starts_with(start)).unwrap_or("?").to_owned();
        let version = format!("{}, {}, bpf-linker {LINKER}", line("rustc "), line("LLVM version"));
        Ok(Self { rustc, cargo, linker, llvm, version })
    }

    fn build(&self) -> Result<()> {
        let root = env::current_dir()?;
        let home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home
            .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
            .unwrap_or_default();
        let registry = fs::read_dir(home.join("registry/src")).ok().and_then(|mut all| all.next()?.ok());
        let mut flags = vec![
            "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            format!("-Clinker={}", self.linker.display()),
            format!("--remap-path-prefix={}=penstock", root.display()),
        ];
        if let Some(registry) = registry {
            flags.push(format!("--remap-path-prefix={}=crates", registry.path().display()));
        }
        let status = Command::new(&self.cargo)
            .current_dir("gateway-ebpf")
            .args([
                "build",
                "--locked",
                "--release",
                "--target",
                "bpfel-unknown-none",
                "-Z",
                "build-std=core",
            ])
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("LD_LIBRARY_PATH", &self.llvm)
            // Those of the cargo that runs us are another toolchain's.
            .env_remove("CARGO")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("RUSTFLAGS")
            .status()
            .with_context(|| format!("cannot run {}", self.cargo.display()))?;
        ensure!(status.success(), "the kernel half does not build");
        Ok(())
    }
}

/// A directory with a libLLVM 22: the toolchain's own, or the system's.
fn llvm(sysroot: &Path) -> Result<PathBuf> {
    let triple = format!("{}-linux-gnu", env::consts::ARCH);
    let places = [sysroot.join("lib"), sysroot.join("lib").join(triple), "/usr/lib64".into()];
    let has = |place: &PathBuf| {
        fs::read_dir(place).is_ok_and(|entries| {
            entries.filter_map(Result::ok).any(|entry| {
                let name = entry.file_name();
                name.to_string_lossy().starts_with("libLLVM") && name.to_string_lossy().contains("22")
            })
        })
    };
    places.into_iter().find(has).context("no libLLVM 22 is beside this rustc")
}

/// The hash of what the object is built from: names and contents, tests left out.
fn sources() -> Result<String> {
    let mut files = Vec::new();
    for place in ["gateway-ebpf/src", "gateway-common/src"] {
        collect(Path::new(place), &mut files)?;
    }
    for file in ["gateway-ebpf/Cargo.toml", "gateway-ebpf/Cargo.lock", "gateway-common/Cargo.toml"] {
        files.push(file.into());
    }
    files.sort();
    let mut bytes = Vec::new();
    for file in files {
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        writeln!(bytes, "{} {}", file.display(), content.len())?;
        bytes.extend(content);
    }
    hash(&bytes)
}

fn collect(place: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(place).with_context(|| format!("cannot list {}", place.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|e| e == "rs")
            && path.file_name().is_none_or(|n| n != "tests.rs")
        {
            into.push(path);
        }
    }
    Ok(())
}

/// SHA-256 by coreutils: a crate less.
fn hash(bytes: &[u8]) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run sha256sum, of coreutils")?;
    child.stdin.take().context("sha256sum takes no input")?.write_all(bytes)?;
    let out = String::from_utf8(child.wait_with_output()?.stdout)?;
    let Some(hash) = out.split_whitespace().next() else { bail!("sha256sum said nothing") };
    Ok(format!("sha256:{hash}"))
}

fn read_lock() -> Result<BTreeMap<String, String>> {
    let text =
        fs::read_to_string(LOCK).with_context(|| format!("cannot read {LOCK}; run `cargo xtask ebpf`"))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect())
}

fn output(command: &mut Command) -> Result<String> {
    let output =
        command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    ensure!(
        output.status.success(),
        "{}: {}",
        command.get_program().display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
