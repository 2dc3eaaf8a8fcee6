//! The bench's own load generator, a process of its own (`cargo xtask bench-load`): a [`Plan`] on standard input, lines on
//! standard output that say when the measured window begins and ends, and then what was seen in it.

mod closed;
mod link;
mod open;
mod tally;
mod ticker;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};

use self::link::Prepared;
pub(crate) use self::tally::Report;
use self::tally::{Tally, Watch};
use super::answer::now_ns;
use super::ask::Ask;

/// The lines around the measured window.
pub(crate) const BEGIN: &str = "begin";
pub(crate) const END: &str = "end";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Asked in turn.
    pub(crate) asks: Vec<Ask>,
    /// One address for each ask: the proxy's, or without one that of the pool's engine.
    pub(crate) targets: Vec<SocketAddr>,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) arrival: Arrival,
    /// A connection for each request, as clients without keep-alive have it.
    pub(crate) churn: bool,
    /// Of each upload, bytes in a second.
    pub(crate) pace: Option<u64>,
    pub(crate) warmup_ms: u64,
    pub(crate) window_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Arrival {
    /// Each connection asks again as soon as it has its answer.
    Closed,
    /// So many requests begin each second, whatever became of those before; latency counts from the time a request was
    /// due, so that a proxy that stalls does not hide what waited meanwhile (no coordinated omission).
    Open { per_second: u32 },
    /// Each connection asks once and then stays open.
    Once,
}

/// Where the load stands; [`Tally`] counts only within the window.
const WARMUP: u8 = 0;
const WINDOW: u8 = 1;
/// Connections stay for a moment, so that the parent sees what they hold.
const AFTER: u8 = 2;
const OVER: u8 = 3;
/// A request that waits for so long, and the whole window, counts as never answered.
const HANGS_NS: u64 = 3_000_000_000;
const AFTER_LASTS: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct Shared {
    plan: Plan,
    prepared: Vec<Prepared>,
    phase: AtomicU8,
}

impl Shared {
    fn in_window(&self) -> bool {
        self.phase.load(Relaxed) == WINDOW
    }
}

/// Runs the plan that standard input has.
pub(crate) fn run() -> Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let plan: Plan = serde_json::from_str(&text).context("no plan on standard input")?;
    let prepared = plan.asks.iter().map(|ask| Prepared::new(ask, plan.churn)).collect::<Result<_>>()?;
    let shared = Arc::new(Shared { plan, prepared, phase: AtomicU8::new(WARMUP) });
    let threads: Vec<_> = (0..shared.plan.threads)
        .map(|thread| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || work(&shared, thread))
        })
        .collect();
    std::thread::sleep(Duration::from_millis(shared.plan.warmup_ms));
    let from_ns = now_ns();
    shared.phase.store(WINDOW, Relaxed);
    say(BEGIN)?;
    std::thread::sleep(Duration::from_millis(shared.plan.window_ms));
    shared.phase.store(AFTER, Relaxed);
    let window_ns = now_ns() - from_ns;
    say(END)?;
    std::thread::sleep(AFTER_LASTS);
    shared.phase.store(OVER, Relaxed);
    let mut total = Tally::new()?;
    // A window may be shorter than a large body takes on a busy machine.
    let hangs_since = from_ns.min(now_ns().saturating_sub(HANGS_NS));
    let mut silent = 0;
    for thread in threads {
        let (tally, watches) = thread.join().map_err(|_| anyhow!("a thread of the load panicked"))??;
        total.add(&tally)?;
        silent += watches.iter().filter(|watch| watch.waits_since_before(hangs_since)).count();
    }
    if silent > 0 && !matches!(shared.plan.arrival, Arrival::Once) {
        total.fail(&format!("no answer for the whole window, connections: {silent}"), true);
    }
    say(&serde_json::to_string(&total.report(window_ns))?)
}

/// One thread's share of the connections, until the window is over.
fn work(shared: &Arc<Shared>, thread: usize) -> Result<(Tally, Vec<Watch>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let state = std::rc::Rc::new(link::State::new(shared, thread)?);
    local.block_on(&runtime, async {
        match shared.plan.arrival {
            Arrival::Closed | Arrival::Once => closed::start(&state),
            Arrival::Open { per_second } => open::start(&state, per_second)?,
        }
        while shared.phase.load(Relaxed) != OVER {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(())
    })?;
    // The connections and their tasks go first: what is left are the counts.
    drop(local);
    drop(runtime);
    let state = std::rc::Rc::into_inner(state).context("a task of the load outlived its runtime")?;
    Ok((state.tally.into_inner(), state.watches))
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
