//! The rounds: each runs every case's points on every peer in turn, so that what changes on the machine meanwhile meets
//! all of them. A peer is started for each run anew.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Bench;
use super::ask::Pool;
use super::cases::{Case, Point, Run};
use super::children::{Engine, Load, stats};
use super::load::Report;
use super::measure::{Cpus, Memory, Watched};
use super::peers::penstock::spliced;
use super::peers::{Peer, Running, Site, settle};
use super::ports::free_address;
use super::report::{Results, Row};

/// A quick bench that is not through by then leaves the rest out, and says so.
const QUICK_LASTS: Duration = Duration::from_secs(95);

pub(crate) async fn run(
    bench: &Bench,
    cases: &[&'static Case],
    peers: &[Peer],
    results: &mut Results,
) -> Result<()> {
    let present: Vec<_> = peers.iter().filter(|peer| (peer.version)().is_some()).collect();
    if cases.is_empty() {
        return Ok(());
    }
    let engines =
        [Engine::start(Pool::A, &bench.layout).await?, Engine::start(Pool::B, &bench.layout).await?];
    let begin = Instant::now();
    for round in 0..bench.rounds {
        for case in cases {
            for point in (case.points)(&bench.scale) {
                for turn in 0..present.len() {
                    // Another one begins each round.
                    if bench.scale.quick && begin.elapsed() > QUICK_LASTS {
                        results.left_out += 1;
                        continue;
                    }
                    let Some(peer) = present.get((turn + round) % present.len()) else { continue };
                    eprint!(
                        "round {} of {}: {}, {}, {} … ",
                        round + 1,
                        bench.rounds,
                        case.name,
                        point.label,
                        peer.name
                    );
                    let row = one(bench, &engines, case, &point, peer, round).await;
                    eprintln!("{}", row.told());
                    results.rows.push(row);
                }
            }
        }
    }
    Ok(())
}

/// A run that failed is a row as well: it says why.
async fn one(
    bench: &Bench,
    engines: &[Engine; 2],
    case: &Case,
    point: &Point,
    peer: &Peer,
    round: usize,
) -> Row {
    let mut row = Row::new(case, point, &peer.name, round);
    match measured(bench, engines, point, peer).await {
        Ok((run, wrong)) => {
            row.errors.extend(run.report.errors.iter().map(|(error, count)| format!("{count} × {error}")));
            if wrong > 0 {
                row.errors
                    .push(format!("{wrong} requests came to an engine with other bytes or the wrong model"));
            }
            row.figures = (case.figures)(&run);
            row.run = Some(run);
        }
        Err(error) => row.errors.push(format!("{error:#}")),
    }
    row
}

/// A run, and how many requests the engines found wrong.
pub(crate) async fn measured(
    bench: &Bench,
    engines: &[Engine; 2],
    point: &Point,
    peer: &Peer,
) -> Result<(Run, u64)> {
    let wrong_before = wrong(engines).await?;
    let mut under_load = UnderLoad::start(bench, engines, point, peer).await?;
    let watched = Watched {
        proxies: under_load.running.pids(),
        engines: engines.iter().filter_map(Engine::pid).collect(),
        loads: vec![under_load.load.pid().context("the load ended at once")?],
    };
    under_load.load.begin().await?;
    let before = Cpus::read(&watched);
    under_load.load.end().await?;
    let cpu = Cpus::read(&watched).since(&before);
    let loaded = Memory::of(&watched.proxies);
    let idle = under_load.idle;
    let (report, spliced) = under_load.stop().await?;
    let run = Run { report, cpu, idle, loaded, spliced };
    Ok((run, wrong(engines).await? - wrong_before))
}

/// A peer and its load, which warms up.
pub(super) struct UnderLoad {
    pub(super) running: Running,
    pub(super) load: Load,
    /// Of the peer, before the load came.
    idle: Memory,
    folder: PathBuf,
    /// Of a peer that splices.
    access_log: Option<PathBuf>,
}

impl UnderLoad {
    pub(super) async fn start(
        bench: &Bench,
        engines: &[Engine; 2],
        point: &Point,
        peer: &Peer,
    ) -> Result<Self> {
        let folder = bench.folder.join("peer");
        let site = Site {
            listen: free_address()?,
            engines: [engines[0].address, engines[1].address],
            folder: folder.clone(),
            largest_body: point.largest_body(),
            cores: bench.layout.proxy.clone(),
        };
        let running = peer.start(&site).await?;
        let idle = Memory::of(&running.pids());
        let plan = point.plan(running.targets, &bench.scale, &bench.layout);
        let load = Load::start(&plan, &bench.layout).await?;
        let access_log = peer.splices.then(|| site.access_log());
        Ok(Self { running, load, idle, folder, access_log })
    }

    /// After the window's end: what the load saw in it, and the share of events that the peer has spliced since its start.
    pub(super) async fn stop(self) -> Result<(Report, Option<f64>)> {
        let Self { running, load, folder, access_log, .. } = self;
        let report = load.report().await?;
        running.stop().await?;
        let spliced = access_log.map(|path| spliced(&path)).transpose()?.flatten();
        settle().await;
        // Access logs of a whole bench would be gigabytes.
        std::fs::remove_dir_all(&folder)
            .or_else(|error| if folder.exists() { Err(error) } else { Ok(()) })?;
        Ok((report, spliced))
    }
}

async fn wrong(engines: &[Engine]) -> Result<u64> {
    Ok(stats(engines).await?.values().map(|stats| stats.wrong).sum())
}
