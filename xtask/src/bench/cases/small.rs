//! Small requests on kept connections: what a request costs, and how late it is at a rate that all can serve.

use super::super::ask::Place;
use super::super::load::Arrival;
use super::{Case, Column, Point, Run};

const BODY: usize = 300;
const CONNECTIONS: usize = 64;
/// Well below what the slowest peer serves on one core.
const PER_SECOND: u32 = 4_000;

pub(super) const CASE: Case = Case {
    name: "small",
    about: "300-byte chats on 64 kept connections, access log on",
    columns: &[
        Column::plain("CPU per million requests", "s", 1),
        Column::plain("requests per second", "", 0),
        Column::plain("p50", "µs", 0),
        Column::plain("p99", "µs", 0),
    ],
    points: |_| {
        let closed = Point::closed("as fast as they go", BODY, Place::Last, CONNECTIONS);
        let label = format!("{PER_SECOND} a second, open loop");
        let open = Point { arrival: Arrival::Open { per_second: PER_SECOND }, label, ..closed.clone() };
        vec![closed, open]
    },
    figures: |run: &Run| {
        let report = &run.report;
        let cpu = run.cpu_per_million(report.requests);
        vec![cpu, run.per_second(report.requests), report.latency.p50, report.latency.p99]
    },
};
