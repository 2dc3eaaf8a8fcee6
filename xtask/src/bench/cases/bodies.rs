//! Cost over body size, with the model as the first key and as the last.

use super::super::ask::Place;
use super::{Case, Column, Point, Run, Scale};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Size, its name, and connections: fewer for the large, or buffers that hold bodies whole would take all memory.
const SIZES: [(usize, &str, usize); 4] =
    [(64 * KIB, "64 KiB", 16), (MIB, "1 MiB", 8), (8 * MIB, "8 MiB", 4), (20 * MIB, "20 MiB", 4)];

pub(super) const CASE: Case = Case {
    name: "bodies",
    about: "chats of 64 KiB to 20 MiB, the model first or last",
    columns: &[
        Column::plain("throughput", "MB/s", 0),
        Column::plain("CPU per GB", "s", 3),
        Column::plain("p99", "ms", 2),
    ],
    points,
    figures: |run: &Run| {
        let bytes = run.report.bytes as f64;
        let cpu = run.cpu.proxy * 1e9 / bytes;
        vec![bytes / 1e6 / run.report.seconds, cpu, run.report.latency.p99 / 1e3]
    },
};

fn points(scale: &Scale) -> Vec<Point> {
    let places = [(Place::First, "model first"), (Place::Last, "model last")];
    let sizes = SIZES.iter().step_by(if scale.quick { 2 } else { 1 });
    let all = sizes.flat_map(|size| places.map(|place| (*size, place)));
    all.map(|((bytes, name, connections), (place, line))| Point {
        x: Some((bytes as f64, line)),
        ..Point::closed(format!("{name}, {line}"), bytes, place, connections)
    })
    .collect()
}
