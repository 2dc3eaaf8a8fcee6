//! Memory: at rest, with connections that were answered once and are kept, with open streams.

use super::super::ask::Place;
use super::super::load::Arrival;
use super::{Case, Column, Point, Run, sse};

const IDLE_CONNECTIONS: usize = 5_000;
const STREAMS: usize = 1_500;
const MIB: f64 = 1024.0 * 1024.0;

pub(super) const CASE: Case = Case {
    name: "memory",
    about: "resident memory at rest, with 5,000 idle connections after one answer each, with 1,500 streams",
    columns: &[
        Column::plain("RSS at rest", "MiB", 1),
        Column::plain("RSS at the end", "MiB", 1),
        Column::plain("added by each connection", "KiB", 1),
    ],
    points: |_| {
        let label = format!("{IDLE_CONNECTIONS} idle connections");
        let idle =
            Point { arrival: Arrival::Once, ..Point::closed(label, 300, Place::Last, IDLE_CONNECTIONS) };
        vec![idle, sse::streams(STREAMS)]
    },
    figures: |run: &Run| {
        let (idle, loaded) = (run.idle.rss as f64, run.loaded.rss as f64);
        let connections = run.report.open as f64;
        vec![idle / MIB, loaded / MIB, (loaded - idle) / 1024.0 / connections]
    },
};
