//! Token streams: what relaying an event costs, the proxy and the whole machine, and how much later it is.

use super::super::ask::{Place, Reply};
use super::super::load::Arrival;
use super::{Case, Column, Point, Run, both};

const EVERY_US: u32 = 40_000;
const STREAMS: [usize; 4] = [64, 512, 1_500, 2_000];

pub(super) const CASE: Case = Case {
    name: "sse",
    about: "streams of 200-byte events, one each 40 ms",
    columns: &[
        Column::plain("CPU per million events", "s", 1),
        Column::of_direct("CPU per million events, whole machine", "s", 1),
        Column::added("event p50", "µs", 0),
        Column::added("event p99", "µs", 0),
        Column::plain("events per second", "", 0),
        Column::plain("spliced", "%", 1),
    ],
    points: |_| STREAMS.map(streams).to_vec(),
    figures: |run: &Run| {
        let report = &run.report;
        let cpu = run.cpu_per_million(report.events);
        let whole = run.whole_cpu_per_million(report.events);
        let spliced = run.spliced.unwrap_or(0.0) * 100.0;
        vec![cpu, whole, report.event.p50, report.event.p99, run.per_second(report.events), spliced]
    },
};

/// So many streams, open from the warm-up to the window's end.
pub(super) fn streams(count: usize) -> Point {
    Point {
        asks: both(300, Place::Last, Reply::Events { every_us: EVERY_US }),
        arrival: Arrival::Once,
        ..Point::closed(format!("{count} streams"), 300, Place::Last, count)
    }
}
