//! A connection for each request, as clients without keep-alive have it.

use super::super::ask::Place;
use super::{Case, Column, Point, Run};

const CLIENTS: usize = 64;

pub(super) const CASE: Case = Case {
    name: "conn",
    about: "300-byte chats from 64 clients, a new connection for each",
    columns: &[
        Column::plain("CPU per million requests", "s", 1),
        Column::plain("requests per second", "", 0),
        Column::plain("p50", "µs", 0),
        Column::plain("p99", "µs", 0),
    ],
    points: |_| vec![Point { churn: true, ..Point::closed("a connection each", 300, Place::Last, CLIENTS) }],
    figures: |run: &Run| {
        let report = &run.report;
        let cpu = run.cpu_per_million(report.requests);
        vec![cpu, run.per_second(report.requests), report.latency.p50, report.latency.p99]
    },
};
