//! What a user's traffic looks like, as far as settings depend on it; said by options, or read from an access log.

use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::bench::ask::{Ask, Place, Pool, Reply};
use crate::bench::cases::Point;
use crate::bench::load::Arrival;

/// Of an access log; what follows is not read.
const MOST_LOG_BYTES: u64 = 1 << 30;
/// Fewer say little about a machine's traffic.
const LEAST_LINES: usize = 20;
/// The load's own bodies are no smaller, and Penstock as it is tried takes no larger.
const BODY_BYTES: std::ops::RangeInclusive<usize> = 256..=(31 << 20);
/// More connections than this are as many ports.
const MOST_IN_FLIGHT: usize = 8_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) body_bytes: Vec<usize>,
    /// Requests at a time that are not streams.
    pub(crate) concurrency: usize,
    pub(crate) streams: usize,
    pub(crate) event_ms: u32,
}

/// Of a line of Penstock's access log.
#[derive(Deserialize)]
struct Line {
    /// When the head was read.
    time: String,
    duration_s: f64,
    bytes_in: usize,
    streaming: bool,
}

impl Shape {
    pub(crate) fn new(bytes: &[usize], concurrency: usize, streams: usize, event_ms: u32) -> Result<Self> {
        ensure!(concurrency + streams > 0, "no load: give --concurrency or --streams");
        ensure!(event_ms > 0, "--event-ms is at least 1");
        for bytes in bytes {
            ensure!(
                BODY_BYTES.contains(bytes),
                "--body-bytes {bytes}: from {} to {}",
                BODY_BYTES.start(),
                BODY_BYTES.end()
            );
        }
        for (option, count) in [("--concurrency", concurrency), ("--streams", streams)] {
            ensure!(count <= MOST_IN_FLIGHT, "{option} {count}: up to {MOST_IN_FLIGHT}");
        }
        Ok(Self { body_bytes: bytes.to_vec(), concurrency, streams, event_ms })
    }

    pub(crate) fn of_log(path: &Path, event_ms: u32) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let lines = BufReader::new(file.take(MOST_LOG_BYTES)).lines().map_while(Result::ok);
        Self::of_lines(lines, event_ms).with_context(|| format!("{} has no traffic to go by", path.display()))
    }

    /// Lines that are no entries, and requests without a body, are passed over.
    fn of_lines(lines: impl Iterator<Item = String>, event_ms: u32) -> Result<Self> {
        let entries = lines.filter_map(|line| serde_json::from_str::<Line>(&line).ok());
        let mut bytes = Vec::new();
        let (mut streams, mut others) = (Vec::new(), Vec::new());
        for entry in entries.filter(|entry| entry.bytes_in > 0 && entry.duration_s >= 0.0) {
            let Some(begin_us) = micros(&entry.time) else { continue };
            bytes.push(entry.bytes_in);
            let spans = if entry.streaming { &mut streams } else { &mut others };
            spans.push((begin_us, begin_us.saturating_add((entry.duration_s * 1e6) as u64)));
        }
        ensure!(
            bytes.len() >= LEAST_LINES,
            "{} requests with a body in Penstock's JSON lines, {LEAST_LINES} are the least",
            bytes.len()
        );
        bytes.sort_unstable();
        // The middles of ten equal parts stand for all.
        let tenths = (0..10).filter_map(|tenth| bytes.get((2 * tenth + 1) * bytes.len() / 20));
        let body_bytes = tenths.map(|bytes| *bytes.clamp(BODY_BYTES.start(), BODY_BYTES.end())).collect();
        let at_most = |spans: &[(u64, u64)]| most_at_a_time(spans).min(MOST_IN_FLIGHT);
        Ok(Self { body_bytes, concurrency: at_most(&others), streams: at_most(&streams), event_ms })
    }

    /// What is run of it: requests as fast as they go, then streams.
    pub(crate) fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        if self.concurrency > 0 {
            points.push(self.point("requests", self.concurrency, Reply::Json { after_us: 0 }));
        }
        if self.streams > 0 {
            let reply = Reply::Events { every_us: self.event_ms.saturating_mul(1_000) };
            points.push(Point { arrival: Arrival::Once, ..self.point("streams", self.streams, reply) });
        }
        points
    }

    /// The model comes last, as OpenAI's own clients send it: all of a body is scanned.
    fn point(&self, label: &str, connections: usize, reply: Reply) -> Point {
        let ask = |bytes: usize| Pool::BOTH.map(|pool| Ask { pool, bytes, place: Place::Last, reply });
        Point {
            asks: self.body_bytes.iter().copied().flat_map(ask).collect(),
            ..Point::closed(label, *BODY_BYTES.start(), Place::Last, connections)
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { body_bytes, concurrency, streams, event_ms } = self;
        let bytes = body_bytes.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        write!(f, "bodies of {bytes} bytes; {concurrency} requests at a time as fast as they go; ")?;
        write!(f, "{streams} streams at a time, an event each {event_ms} ms")
    }
}

fn most_at_a_time(spans: &[(u64, u64)]) -> usize {
    // At one time an end comes before a begin.
    let mut steps: Vec<(u64, i64)> =
        spans.iter().flat_map(|(begin, end)| [(*begin, 1), (*end, -1)]).collect();
    steps.sort_unstable();
    let counts = steps.iter().scan(0_i64, |count, (_, step)| {
        *count += step;
        Some(*count)
    });
    counts.max().and_then(|most| usize::try_from(most).ok()).unwrap_or(0)
}

/// Of an access log's time, `2026-11-22T18:15:18.123456Z`; since some fixed day, only for comparing.
fn micros(time: &str) -> Option<u64> {
    let (date, clock) = time.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut clock = clock.splitn(3, ':');
    let (hour, minute) = (clock.next()?.parse::<u64>().ok()?, clock.next()?.parse::<u64>().ok()?);
    let second: f64 = clock.next()?.parse().ok()?;
    let sound = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !sound || hour > 23 || minute > 59 || !(0.0..61.0).contains(&second) {
        return None;
    }
    // A year from March: the leap day comes last, and 153 days are five months.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    Some(((days * 24 + hour) * 60 + minute) * 60_000_000 + (second * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(time: &str, duration_s: f64, bytes_in: usize, streaming: bool) -> String {
        format!(
            r#"{{"time":"{time}","model":"m","duration_s":{duration_s},"bytes_in":{bytes_in},"streaming":{streaming}}}"#
        )
    }

    #[test]
    fn a_log_tells_sizes_and_what_is_in_flight() {
        let mut lines = vec!["no entry".to_owned(), line("2026-11-22T23:59:59.000000Z", 1.0, 0, false)];
        for n in 0..20 {
            // Three streams overlap across midnight, the others come one after another.
            let time = format!("2026-11-22T10:{n:02}:00.000000Z");
            let stream = ["2026-11-30T23:59:59.500000Z", "2026-12-01T00:00:00.000000Z"][n % 2];
            lines.push(line(&time, 1.0, 300 + 100 * n, false));
            if n < 3 {
                lines.push(line(stream, 2.0, 1 << 30, true));
            }
        }
        let shape = Shape::of_lines(lines.into_iter(), 40).unwrap();
        assert_eq!((shape.concurrency, shape.streams), (1, 3));
        assert_eq!(shape.body_bytes.len(), 10);
        assert_eq!(shape.body_bytes.last(), Some(BODY_BYTES.end()));
        assert_eq!(shape.body_bytes.first(), Some(&400));
    }

    #[test]
    fn a_log_without_traffic_is_refused() {
        let lines = vec![line("2026-11-22T10:00:00.000000Z", 1.0, 300, false)];
        let said = format!("{:#}", Shape::of_lines(lines.into_iter(), 40).unwrap_err());
        assert!(said.starts_with("1 requests"), "{said}");
    }

    #[test]
    fn times_are_in_order_over_months_and_leap_days() {
        let times = ["2027-12-31T23:59:59.999999Z", "2028-01-01T00:00:00.000000Z", "2028-02-29T00:00:00.0Z"];
        let times = times.map(|time| micros(time).unwrap());
        assert_eq!(times[1] - times[0], 1);
        assert_eq!(times[2] - times[1], 59 * 86_400 * 1_000_000);
        for broken in ["", "2026-11-22", "2026-13-22T00:00:00Z", "2026-11-22T00:00:NaNZ", "x-y-zT1:2:3Z"] {
            assert_eq!(micros(broken), None, "{broken}");
        }
    }
}
