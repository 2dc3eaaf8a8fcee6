//! `cargo xtask bench`: what Penstock costs, beside its peers and beside no proxy at all, on this machine. It brings its own
//! engine and load, checks every answer, and asserts no time: it reports.

mod answer;
pub(crate) mod ask;
mod body;
mod bypass;
pub(crate) mod cases;
pub(crate) mod children;
pub(crate) mod engine;
mod flame;
mod http;
pub(crate) mod load;
pub(crate) mod measure;
pub(crate) mod peers;
mod plot;
mod ports;
mod profile;
mod ready;
mod report;
pub(crate) mod rounds;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};
use tokio::signal::unix::{SignalKind, signal};

use self::cases::{CASES, Scale};
use self::children::Layout;
use self::peers::{OTHER_BUILD, Packages};
use crate::shell::{cargo, must, target};

/// The process id follows.
const RUN_FOLDER: &str = "run-";
const BYPASS: &str = "bypass";
/// Enough for 5,000 clients, as many connections to engines, and their ends in one process.
const OPEN_FILES: u64 = 65_536;

#[derive(clap::Args)]
#[command(after_help = after_help())]
pub(crate) struct Arguments {
    /// The cases to run; by default all that stand below, and bypass only when named
    cases: Vec<String>,
    /// The peers to run, by comma; by default all that are installed; penstock:PATH is another build of Penstock
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// How often all of it is run, in turn: figures are medians over the rounds
    #[arg(long)]
    rounds: Option<usize>,
    /// How long each window lasts that is measured
    #[arg(long)]
    seconds: Option<f64>,
    /// One short round of all cases: whether they run, within two minutes
    #[arg(long)]
    quick: bool,
    /// Use the development build, as the tests do and as CI has it: whether it runs, the figures mean nothing
    #[arg(long, requires = "quick", conflicts_with = "save")]
    dev: bool,
    /// Keep the results in benchmarks/, to be committed
    #[arg(long)]
    save: bool,
    /// First install the peers that are missing, from Debian (as root) and PyPI
    #[arg(long)]
    install: bool,
    /// Instead of figures, one picture of where Penstock's CPU time goes in a case: a flame graph, by perf
    #[arg(long, value_name = "CASE", conflicts_with_all = ["cases", "peers", "rounds", "save", "install"])]
    profile: Option<String>,
    /// Who runs on which cores
    #[arg(long, value_enum, default_value_t = Cores::Split)]
    cores: Cores,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cores {
    /// The proxy has a core for itself; engines and load have the others
    Split,
    /// All processes may use all cores
    Shared,
}

/// What the parts of a bench share.
pub(crate) struct Bench {
    pub(crate) layout: Layout,
    pub(crate) scale: Scale,
    pub(crate) rounds: usize,
    /// For the files of peers, removed at the end.
    pub(crate) folder: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    for case in arguments.cases.iter().chain(&arguments.profile) {
        ensure!(
            case == BYPASS || cases::named(case).is_ok(),
            "no case {case:?}: see `cargo xtask bench --help`"
        );
    }
    if let Some(case) = &arguments.profile {
        ensure!(case != BYPASS, "{BYPASS} has no one load to profile: name another case");
        profile::ensure_perf()?;
    }
    if arguments.dev {
        must(cargo(&["build", "--package=penstock", "--bins"]))?;
    } else if cfg!(debug_assertions) {
        return build_and_become_release();
    }
    ensure!(penstock().is_file(), "{} is not built: run `cargo xtask bench`", penstock().display());
    let peers = peers::chosen(&arguments.peers)?;
    if arguments.install {
        for peer in peers.iter().filter(|peer| (peer.version)().is_none()) {
            peer.packages.install()?;
        }
    }
    let bench = bench(arguments)?;
    if let Some(case) = &arguments.profile {
        return until_interrupted(&bench, profile::run(&bench, cases::named(case)?));
    }
    let results = until_interrupted(&bench, all(&bench, arguments, &peers))?;
    report::publish(&results, arguments.save)?;
    let failed = results.rows.iter().filter(|row| row.run.is_none() && row.figures.is_empty()).count();
    ensure!(!arguments.quick || failed == 0, "{failed} runs gave no figures: see FAILED above");
    Ok(())
}

/// Nothing of it stays behind: what is dropped here kills its processes.
pub(crate) fn until_interrupted<T>(bench: &Bench, work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminates = signal(SignalKind::terminate())?;
        tokio::select! {
            done = work => done,
            _ = interrupts.recv() => bail!("interrupted"),
            _ = terminates.recv() => bail!("terminated"),
        }
    });
    _ = std::fs::remove_dir_all(&bench.folder);
    done
}

async fn all(bench: &Bench, arguments: &Arguments, peers: &[peers::Peer]) -> Result<report::Results> {
    let named = |name: &str| arguments.cases.iter().any(|case| case == name);
    let load: Vec<_> = CASES.iter().filter(|case| arguments.cases.is_empty() || named(case.name)).collect();
    let peers = if load.is_empty() { &[] } else { peers };
    let mut results = report::Results::new(bench, arguments.cores == Cores::Shared, peers);
    rounds::run(bench, &load, peers, &mut results).await?;
    if named(BYPASS) || arguments.quick && arguments.cases.is_empty() {
        bypass::run(bench, &mut results).await?;
    }
    Ok(results)
}

fn bench(arguments: &Arguments) -> Result<Bench> {
    let cores = cores()?;
    ensure!(cores.len() >= 2 || arguments.cores == Cores::Shared, "one core: give --cores shared");
    let layout = match arguments.cores {
        Cores::Split => Layout::split(&cores),
        Cores::Shared => Layout::shared(&cores),
    };
    let seconds = arguments.seconds.unwrap_or(if arguments.quick { 0.5 } else { 3.0 });
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 5 });
    prepared(layout, arguments.quick, rounds, seconds)
}

/// For measurements of another kind: all processes may use all of these cores.
pub(crate) fn shared(cores: &[usize], rounds: usize, seconds: f64) -> Result<Bench> {
    prepared(Layout::shared(cores), false, rounds, seconds)
}

fn prepared(layout: Layout, quick: bool, rounds: usize, seconds: f64) -> Result<Bench> {
    ensure!((0.1..=600.0).contains(&seconds), "--seconds is 0.1 to 600");
    raise_open_files()?;
    remove_leftovers();
    let folder = folder().join(format!("{RUN_FOLDER}{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let window = Duration::from_secs_f64(seconds);
    let warmup = Duration::from_millis(if quick { 200 } else { 1_000 });
    Ok(Bench { layout, scale: Scale { quick, window, warmup }, rounds: rounds.max(1), folder })
}

/// That this process may use.
pub(crate) fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Where the bench keeps what it installs and writes.
pub(crate) fn folder() -> PathBuf {
    target().join("bench")
}

/// Removes the folders of benches that were killed.
fn remove_leftovers() {
    let entries = std::fs::read_dir(folder()).into_iter().flatten().filter_map(Result::ok);
    for entry in entries {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(RUN_FOLDER)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Of the build that this program is of.
pub(crate) fn penstock() -> PathBuf {
    target().join(if cfg!(debug_assertions) { "debug/penstock" } else { "release/penstock" })
}

/// Engines and load of a debug build would measure themselves.
pub(crate) fn build_and_become_release() -> Result<()> {
    must(cargo(&["build", "--release", "--package=penstock", "--bins"]))?;
    must(cargo(&["build", "--release", "--package=xtask"]))?;
    let program = target().join("release/xtask");
    let error = Command::new(&program).args(std::env::args_os().skip(1)).exec();
    bail!("cannot start {}: {error}", program.display());
}

fn raise_open_files() -> Result<()> {
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|limit| limit >= OPEN_FILES) {
        return Ok(());
    }
    let raised = |maximum: u64| Rlimit { current: Some(OPEN_FILES.min(maximum)), maximum: Some(maximum) };
    let hard = now.maximum.unwrap_or(OPEN_FILES);
    if hard < OPEN_FILES && setrlimit(Resource::Nofile, raised(OPEN_FILES)).is_ok() {
        return Ok(());
    }
    setrlimit(Resource::Nofile, raised(hard)).context("raising the limit of open files")?;
    if hard < OPEN_FILES {
        eprintln!("only {hard} open files are allowed: some of the many connections may fail (`ulimit -n`)");
    }
    Ok(())
}

fn after_help() -> String {
    let mut text = "Cases:\n".to_owned();
    for case in CASES {
        text += &format!("  {:10}{}\n", case.name, case.about);
    }
    text += &format!("  {BYPASS:10}{}\n\nPeers:\n", bypass::ABOUT);
    for peer in peers::all() {
        let from = match peer.packages {
            Packages::Ours => String::new(),
            from => format!(" ({})", from.advice()),
        };
        text += &format!("  {:10}{}{from}\n", peer.name, peer.about);
    }
    text += &format!("  {:10}another build of Penstock, beside this one\n", format!("{OTHER_BUILD}PATH"));
    text
}
