//! Two equal endpoints, 40 % of all requests sent straight to the first: what each carries. Penstock must send most of its
//! own to the second for both to carry the same.

use anyhow::{Context as _, Result};

use super::super::Bench;
use super::super::ask::{Ask, Place, Pool, Reply};
use super::super::cases::{Column, Point};
use super::super::children::{Engine, Load};
use super::super::load::Arrival;
use super::super::peers::settle;
use super::super::report::Row;
use super::{Rung, gateway};

/// Of all traffic together. With answers after [`AFTER_US`], fifty requests are in flight.
const PER_SECOND: u32 = 1_000;
const PAST: u32 = 400;
const AFTER_US: u32 = 50_000;
const CONNECTIONS: usize = 200;

const COLUMNS: &[Column] = &[
    Column::plain("the first endpoint carries", "%", 1),
    Column::plain("of which past Penstock", "%", 1),
    Column::plain("the second carries", "%", 1),
    Column::plain("the busier over the mean", "", 2),
];

pub(super) async fn row(
    bench: &Bench,
    engines: &[Engine; 2],
    rung: Rung,
    gateways: u32,
    round: usize,
) -> (String, Row) {
    let point = if gateways == 1 { "one gateway".to_owned() } else { format!("{gateways} gateways") };
    let mut row = Row::bare("bypass", super::ABOUT, COLUMNS, &point, rung.name(), round);
    match measured(bench, engines, rung, gateways).await {
        Ok((figures, errors)) => {
            row.figures = figures;
            row.errors = errors;
        }
        Err(error) => row.errors.push(format!("{error:#}")),
    }
    (point, row)
}

async fn measured(
    bench: &Bench,
    engines: &[Engine; 2],
    rung: Rung,
    gateways: u32,
) -> Result<(Vec<f64>, Vec<String>)> {
    let mut running = Vec::new();
    for _ in 0..gateways {
        running.push(gateway::start(bench, engines, rung, running.first()).await?);
    }
    let start = async |target, per_second| {
        let plan = rate(per_second).plan([target; 2], &bench.scale, &bench.layout);
        Load::start(&plan, &bench.layout).await
    };
    let mut loads = vec![start(engines[0].address, PAST).await?];
    for gateway in &running {
        loads.push(start(gateway.targets[0], (PER_SECOND - PAST) / gateways).await?);
    }
    for load in &mut loads {
        load.begin().await?;
    }
    let before = [engines[0].stats().await?.requests, engines[1].stats().await?.requests];
    let first = loads.first_mut().context("a load")?;
    first.end().await?;
    let after = [engines[0].stats().await?.requests, engines[1].stats().await?.requests];
    let mut errors = Vec::new();
    let mut past = 0;
    for (n, mut load) in loads.into_iter().enumerate() {
        if n > 0 {
            load.end().await?;
        }
        let report = load.report().await?;
        errors.extend(report.errors.iter().map(|(error, count)| format!("{count} × {error}")));
        if n == 0 {
            past = report.requests;
        }
    }
    for gateway in running {
        gateway.stop().await?;
    }
    settle().await;
    let [first, second] = [after[0] - before[0], after[1] - before[1]].map(|count| count as f64);
    let percent = |count: f64| 100.0 * count / (first + second);
    let busier = first.max(second) / f64::midpoint(first, second);
    Ok((vec![percent(first), percent(past as f64), percent(second), busier], errors))
}

fn rate(per_second: u32) -> Point {
    let reply = Reply::Json { after_us: AFTER_US };
    Point {
        asks: vec![Ask { pool: Pool::A, bytes: 300, place: Place::Last, reply }],
        arrival: Arrival::Open { per_second },
        ..Point::closed("", 300, Place::Last, CONNECTIONS)
    }
}
