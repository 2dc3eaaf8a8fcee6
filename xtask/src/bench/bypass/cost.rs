//! What counting costs those who are counted: clients that open a connection to an engine for each request, while a Penstock
//! that serves nobody watches that engine.

use anyhow::{Context as _, Result};

use super::super::Bench;
use super::super::ask::{Ask, Place, Pool, Reply};
use super::super::cases::{Column, Point, Run};
use super::super::children::{Engine, Load};
use super::super::measure::{Cpus, Memory, Watched};
use super::super::peers::settle;
use super::super::report::Row;
use super::{Rung, gateway};

const CLIENTS: usize = 16;
const POINT: &str = "a connection each, past Penstock";
const ABOUT: &str =
    "connections to a watched engine: what the kernel's programs cost them, and Penstock's reading of counts";

const COLUMNS: &[Column] = &[
    Column::plain("connections per second", "", 0),
    Column::plain("CPU of engine and client per million connections", "s", 1),
    Column::plain("CPU of Penstock", "% of a core", 2),
];

pub(super) async fn row(bench: &Bench, engines: &[Engine; 2], rung: Rung, round: usize) -> (String, Row) {
    let mut row = Row::bare("bypass-cost", ABOUT, COLUMNS, POINT, rung.name(), round);
    match measured(bench, engines, rung).await {
        Ok(run) => {
            let (seconds, connections) = (run.report.seconds, run.report.connections as f64);
            row.figures = vec![
                connections / seconds,
                (run.cpu.engine + run.cpu.load) * 1e6 / connections,
                100.0 * run.cpu.proxy / seconds,
            ];
            row.errors.extend(run.report.errors.iter().map(|(error, count)| format!("{count} × {error}")));
            row.run = Some(run);
        }
        Err(error) => row.errors.push(format!("{error:#}")),
    }
    (POINT.to_owned(), row)
}

async fn measured(bench: &Bench, engines: &[Engine; 2], rung: Rung) -> Result<Run> {
    let running = gateway::start(bench, engines, rung, None).await?;
    let point = Point {
        asks: vec![Ask { pool: Pool::A, bytes: 300, place: Place::Last, reply: Reply::Json { after_us: 0 } }],
        churn: true,
        ..Point::closed(POINT, 300, Place::Last, CLIENTS)
    };
    let plan = point.plan([engines[0].address; 2], &bench.scale, &bench.layout);
    let mut load = Load::start(&plan, &bench.layout).await?;
    let watched = Watched {
        proxies: running.pids(),
        engines: engines.iter().filter_map(Engine::pid).collect(),
        loads: vec![load.pid().context("the load ended at once")?],
    };
    let idle = Memory::of(&watched.proxies);
    load.begin().await?;
    let before = Cpus::read(&watched);
    load.end().await?;
    let cpu = Cpus::read(&watched).since(&before);
    let loaded = Memory::of(&watched.proxies);
    let report = load.report().await?;
    running.stop().await?;
    settle().await;
    Ok(Run { report, cpu, idle, loaded, spliced: None })
}
