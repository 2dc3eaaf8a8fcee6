//! One request at a time: the time that a proxy adds when nothing waits for anything.

use super::super::ask::Place;
use super::{Case, Column, Point, Run};

pub(super) const CASE: Case = Case {
    name: "one",
    about: "300-byte chats, one at a time on one connection",
    columns: &[
        Column::added("p50", "µs", 1),
        Column::added("p99", "µs", 1),
        Column::plain("CPU per million requests", "s", 1),
    ],
    points: |_| vec![Point::closed("one at a time", 300, Place::Last, 1)],
    figures: |run: &Run| {
        let latency = &run.report.latency;
        vec![latency.p50, latency.p99, run.cpu_per_million(run.report.requests)]
    },
};
