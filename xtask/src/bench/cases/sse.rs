//! Token streams: what relaying an event costs, and how much later it is.

use super::super::ask::{Place, Reply};
use super::super::load::Arrival;
use super::{Case, Column, Point, Run, both};

const EVERY_US: u32 = 40_000;
const STREAMS: [usize; 2] = [512, 1_500];

pub(super) const CASE: Case = Case {
    name: "sse",
    about: "streams of 200-byte events, one each 40 ms",
    columns: &[
        Column::plain("CPU per million events", "s", 1),
        Column::added("event p50", "µs", 0),
        Column::added("event p99", "µs", 0),
        Column::plain("events per second", "", 0),
    ],
    points: |_| STREAMS.map(streams).to_vec(),
    figures: |run: &Run| {
        let report = &run.report;
        let cpu = run.cpu_per_million(report.events);
        vec![cpu, report.event.p50, report.event.p99, run.per_second(report.events)]
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
