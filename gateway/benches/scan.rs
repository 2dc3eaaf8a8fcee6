//! Measures the scanner beside other ways to find the model of a body: `cargo bench --bench scan`.
//!
//! All readers take turns on each body, many short ones, and the best batch of each counts: what other processes take
//! from the machine is left out, and a change of clock speed hits all alike. Prints a Markdown table.
//! With `--only NAME` only bodies whose name holds it, with `--with NAME` only such readers.
//! `RUSTFLAGS="-C target-cpu=native"` shows what the others can do when they are built for one machine.
//!
//! With `--list` names the bodies; with `--count NAME` scans that body once in [`counted`], for `cargo xtask counts`.

mod scan {
    pub(crate) mod bodies;
    pub(crate) mod readers;
}

use std::hint::black_box;
use std::time::{Duration, Instant};

use penstock::scan::JsonScanner;
use scan::bodies;
use scan::readers::{self, READERS, Reader};

const ROUNDS: usize = 40;
/// How long a reader has its turn.
const TURN: Duration = Duration::from_millis(4);
/// How long readings are timed together, so that the clock does not count.
const BATCH: Duration = Duration::from_micros(100);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |flag| arguments.iter().skip_while(|a| *a != flag).nth(1).map_or("", String::as_str);
    if arguments.iter().any(|a| a == "--list") {
        bodies::ALL.iter().for_each(|body| println!("{}", body.name));
        return;
    }
    if let Some(body) = bodies::ALL.iter().find(|body| body.name == value("--count")) {
        // The CPU is asked for its instructions here, once, and that does not count.
        let scanner = format!("{:?}", JsonScanner::new());
        assert!(scanner.contains("level: Avx2"), "the committed counts are those of AVX2: {scanner}");
        assert_eq!(counted((body.make)().as_bytes()), bodies::MODEL.len());
        return;
    }
    let (only, with) = (value("--only"), value("--with"));
    let readers: Vec<&Reader> = READERS.iter().filter(|reader| reader.name.contains(with)).collect();
    let heads: Vec<&str> = readers.iter().map(|reader| reader.name).collect();
    println!("| body | {} |", heads.join(" | "));
    println!("|---|{}", "---|".repeat(heads.len()));
    for body in bodies::ALL.iter().filter(|body| body.name.contains(only)) {
        let text = (body.make)();
        let best = measure(text.as_bytes(), &readers);
        let cells: Vec<String> = best.iter().map(|best| show(text.len(), *best)).collect();
        println!("| {} | {} |", body.name, cells.join(" | "));
    }
}

/// The seconds of one reading in the best batch of each reader.
fn measure(bytes: &[u8], readers: &[&Reader]) -> Vec<Option<f64>> {
    let counts: Vec<u32> = readers.iter().map(|reader| calibrate(reader, bytes)).collect();
    let mut best = vec![None; readers.len()];
    for _ in 0..ROUNDS {
        for ((reader, count), best) in readers.iter().zip(&counts).zip(&mut best) {
            if *count == 0 {
                continue;
            }
            let turn = Instant::now();
            while turn.elapsed() < TURN {
                let seconds = batch(reader, bytes, *count).as_secs_f64() / f64::from(*count);
                *best = Some(best.map_or(seconds, |best: f64| best.min(seconds)));
            }
        }
    }
    best
}

#[inline(never)]
fn counted(body: &[u8]) -> usize {
    readers::penstock(black_box(body))
}

fn batch(reader: &Reader, bytes: &[u8], count: u32) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        black_box((reader.read)(black_box(bytes)));
    }
    start.elapsed()
}

/// Readings in a batch; 0 for a reader that does not find the model.
fn calibrate(reader: &Reader, bytes: &[u8]) -> u32 {
    if reader.finds && (reader.read)(bytes) != bodies::MODEL.len() {
        eprintln!("{} does not find the model", reader.name);
        return 0;
    }
    let mut count = 1;
    while batch(reader, bytes, count) < BATCH {
        count *= 2;
    }
    count
}

fn show(length: usize, seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else { return "–".into() };
    let speed = length as f64 / seconds / 1e9;
    if seconds < 1e-6 { format!("{speed:.1} ({:.1} ns)", seconds * 1e9) } else { format!("{speed:.1}") }
}
