//! `cargo xtask tune`: tries what a user of Penstock may set, on this machine and under a load like the user's, and says what
//! it would choose and why. All processes share all cores, as they do in front of engines.

mod choice;
mod page;
mod shape;
mod sweep;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use self::choice::Choice;
use self::shape::Shape;
use self::sweep::{Setting, Sweep};
use crate::bench;

/// More serve nobody: a worker moves more than a host's engines answer.
const MOST_WORKERS: usize = 8;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Take the load from an access log of yours: sizes of bodies, streams, and how much is in flight
    #[arg(long, value_name = "FILE", conflicts_with_all = ["body_bytes", "concurrency", "streams"])]
    access_log: Option<PathBuf>,
    /// Sizes of request bodies in bytes, by comma, asked in turn
    #[arg(long, value_delimiter = ',', default_value = "4096")]
    body_bytes: Vec<usize>,
    /// Requests in flight at a time that are not streams
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Streams at a time
    #[arg(long, default_value_t = 256)]
    streams: usize,
    /// Between two events of a stream
    #[arg(long, value_name = "MS", default_value_t = 40)]
    event_ms: u32,
    /// How often each setting is tried, in turn: figures are medians over the rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each window lasts that is measured
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let shape = match &arguments.access_log {
        Some(path) => Shape::of_log(path, arguments.event_ms)?,
        None => {
            Shape::new(&arguments.body_bytes, arguments.concurrency, arguments.streams, arguments.event_ms)?
        }
    };
    if cfg!(debug_assertions) {
        return bench::build_and_become_release();
    }
    let cores = bench::cores()?;
    let bench = bench::shared(&cores, arguments.rounds, arguments.seconds)?;
    eprintln!("The load: {shape}.");
    let sweeps = bench::until_interrupted(&bench, sweeps(&bench, &shape, cores.len()))?;
    let text = page::render(&shape, &bench, &sweeps);
    let path = bench::folder().join("tune.md");
    std::fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{text}\nWritten to {}.", path.display());
    Ok(())
}

/// First the workers, then with so many of them the rungs of the kernel half.
async fn sweeps(bench: &bench::Bench, shape: &Shape, cores: usize) -> Result<Vec<(Sweep, Choice)>> {
    let counts = (0..).map(|power| 1 << power).take_while(|workers| *workers <= cores.min(MOST_WORKERS));
    let settings = counts.map(|workers| Setting { workers, kernel: "off" }).collect();
    let by_workers = Sweep::run(bench, shape, "--workers", settings).await?;
    let workers = choice::workers(&by_workers).context("no number of workers went without an error")?;
    let rungs: &[&'static str] = if rustix::process::geteuid().is_root() {
        &["off", "sock-diag", "account"]
    } else {
        eprintln!("not root: what the kernel's programs cost (--kernel account) is not measured");
        &["off", "sock-diag"]
    };
    let settings = rungs.iter().map(|kernel| Setting { workers: workers.setting.workers, kernel }).collect();
    let by_rung = Sweep::run(bench, shape, "--kernel", settings).await?;
    let rung = choice::kernel(&by_rung).context("no rung of the kernel half went without an error")?;
    Ok(vec![(by_workers, workers), (by_rung, rung)])
}
