//! A record as one line of JSON. Every key is in every line, null where nothing is known.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use http::Method;
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

use super::entry::{Record, Usage};
use super::timestamp::Timestamp;

/// Appends the line with its newline.
pub(super) fn append(buffer: &mut Vec<u8>, record: &Record) {
    let start = buffer.len();
    let mut serializer = serde_json::Serializer::with_formatter(&mut *buffer, OneLine);
    match Line::of(record).serialize(&mut serializer) {
        Ok(()) => buffer.push(b'\n'),
        Err(_) => buffer.truncate(start),
    }
}

/// Escapes what JSON allows and readers of lines do not: characters that some take for line ends, and those that
/// turn the order of what a terminal shows.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.bytes().all(is_visible) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some(at) = rest.find(is_unruly) {
            let (plain, from) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut characters = from.chars();
            if let Some(unit) = characters.next().map(u32::from) {
                // All of them are in the Basic Multilingual Plane.
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// ASCII that shows: nearly everything in a line is made of it.
fn is_visible(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

fn is_unruly(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[derive(Serialize)]
struct Line<'a> {
    /// When the head was read.
    time: Shown<Timestamp>,
    request_id: &'a str,
    client: Option<Shown<std::net::SocketAddr>>,
    protocol: &'static str,
    method: Option<&'a str>,
    path: &'a str,
    model: Option<&'a str>,
    target_model: Option<&'a str>,
    route: Option<Shown<&'a crate::snapshot::ObjectName>>,
    /// Position in the route's `spec.rules`, from 0.
    rule: Option<usize>,
    pool: Option<Shown<&'a crate::snapshot::ObjectName>>,
    endpoint: Option<&'a str>,
    tries: u32,
    status: u16,
    blame: Option<&'static str>,
    reason: Option<&'static str>,
    ttft_s: Option<f64>,
    duration_s: f64,
    bytes_in: u64,
    bytes_out: u64,
    streaming: bool,
    events: u64,
    usage: Option<Tokens>,
}

#[derive(Serialize)]
struct Tokens {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cached_tokens: Option<u64>,
}

impl<'a> Line<'a> {
    fn of(record: &'a Record) -> Self {
        Self {
            time: Shown(Timestamp(record.opened)),
            request_id: &record.request_id,
            client: record.client.map(Shown),
            protocol: record.protocol,
            method: record.method.as_ref().map(Method::as_str),
            path: &record.path,
            model: record.model.as_deref(),
            target_model: record.target_model.as_deref(),
            route: record.route.as_ref().map(|rule| Shown(&rule.route)),
            rule: record.route.as_ref().map(|rule| rule.index),
            pool: record.pool.as_ref().map(|pool| Shown(&pool.name)),
            endpoint: record.endpoint.as_deref(),
            tries: record.tries,
            status: record.status,
            blame: record.reason.map(|reason| reason.blame().word()),
            reason: record.reason.map(|reason| reason.word()),
            ttft_s: record.ttft.map(seconds),
            duration_s: seconds(record.duration),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            streaming: record.streaming,
            events: record.events,
            usage: record.usage.map(Tokens::of),
        }
    }
}

impl Tokens {
    fn of(usage: Usage) -> Self {
        let Usage { input_tokens, output_tokens, cached_tokens } = usage;
        Self { input_tokens, output_tokens, cached_tokens }
    }
}

/// Whole microseconds, so that the figure prints short.
fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}

/// A string of JSON made by `Display`.
struct Shown<T>(T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::failure::Reason;
    use crate::snapshot::{Filters, ObjectName, Pool, Rule, Traffic};

    fn parsed(record: &Record) -> serde_json::Value {
        let mut buffer = Vec::new();
        append(&mut buffer, record);
        assert_eq!(buffer.iter().filter(|&&byte| byte == b'\n').count(), 1);
        assert_eq!(buffer.last(), Some(&b'\n'));
        assert!(!std::str::from_utf8(&buffer).unwrap().trim_end().contains(is_unruly));
        serde_json::from_slice(&buffer).unwrap()
    }

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: "default".into(), name: name.into() }
    }

    #[test]
    fn a_full_record_says_everything() {
        let mut record = Record::new(UNIX_EPOCH + Duration::from_micros(1_500_000));
        record.request_id = "r1".into();
        record.client = Some(([127, 0, 0, 1], 9).into());
        record.protocol = "HTTP/1.1";
        record.path = "/v1/chat/completions".into();
        record.model = Some("qwen".into());
        record.route = Some(Arc::new(Rule {
            route: name("route"),
            index: 2,
            filters: Filters::default(),
            destinations: Vec::new(),
            traffic: Traffic::default(),
        }));
        record.pool = Some(Arc::new(Pool {
            name: name("pool"),
            kind: "InferencePool",
            endpoints: Vec::new(),
            models: std::collections::HashMap::new(),
            meter: Arc::default(),
        }));
        record.status = 200;
        record.reason = Some(Reason::EngineReset);
        record.ttft = Some(Duration::from_nanos(12_345_678));
        record.usage = Some(Usage { input_tokens: Some(1), output_tokens: Some(2), cached_tokens: None });
        let line = parsed(&record);
        assert_eq!(line["time"], "1970-01-01T00:00:01.500000Z");
        assert_eq!(line["client"], "127.0.0.1:9");
        assert_eq!((&line["route"], &line["rule"]), (&"default/route".into(), &2.into()));
        assert_eq!(line["pool"], "default/pool");
        assert_eq!((&line["blame"], &line["reason"]), (&"engine".into(), &"engine_reset".into()));
        assert_eq!(line["ttft_s"].to_string(), "0.012345");
        assert_eq!(line["usage"]["output_tokens"], 2);
    }

    #[test]
    fn an_empty_record_has_the_same_keys() {
        let line = parsed(&Record::new(UNIX_EPOCH));
        assert_eq!(line.as_object().map(serde_json::Map::len), Some(23));
        assert!(line["model"].is_null() && line["usage"].is_null());
    }

    #[test]
    fn hostile_strings_stay_inside_their_line_and_their_value() {
        let hostile = "a\"b\\c\nd\r\u{0}\u{1b}[31m\u{7f}é\u{2028}\u{202e}\u{85}\"},{\"status\":200";
        let mut record = Record::new(UNIX_EPOCH);
        record.path = hostile.into();
        record.model = Some(hostile.into());
        record.request_id = hostile.into();
        let line = parsed(&record);
        assert_eq!((&line["path"], &line["model"]), (&hostile.into(), &hostile.into()));
        assert_eq!((&line["request_id"], &line["status"]), (&hostile.into(), &0.into()));
    }
}
