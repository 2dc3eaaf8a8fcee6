//! Uploads at the speed of a network: what a proxy adds before the engine has the body, and before the first byte of
//! the answer. One that holds bodies whole adds the time of its copy.

use std::time::Duration;

use super::super::ask::Place;
use super::{Case, Column, Point, Run, Scale};

const BYTES_PER_SECOND: u64 = 10_000_000;
const CONNECTIONS: usize = 4;

pub(super) const CASE: Case = Case {
    name: "upload",
    about: "uploads of 8 MiB at 10 MB/s, the model first",
    columns: &[
        Column::added("engine has the body, p50 after the client's last byte", "µs", 0),
        Column::added("p99", "µs", 0),
        Column::plain("first byte of the answer, p50 after the request's begin", "ms", 2),
        Column::plain("CPU per GB", "s", 3),
    ],
    points: |scale: &Scale| {
        // A short window would see no end of one: at this pace 8 MiB take 0.84 seconds.
        let short = scale.window < Duration::from_millis(1200);
        let (bytes, label) = if short { (2 << 20, "2 MiB") } else { (8 << 20, "8 MiB") };
        vec![Point { pace: Some(BYTES_PER_SECOND), ..Point::closed(label, bytes, Place::First, CONNECTIONS) }]
    },
    figures: |run: &Run| {
        let report = &run.report;
        let cpu = run.cpu.proxy * 1e9 / report.bytes as f64;
        vec![report.lag.p50, report.lag.p99, report.first_byte.p50 / 1e3, cpu]
    },
};
