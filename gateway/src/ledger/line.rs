//! A record as one line of JSON. Every key is in every line, null where nothing is known.
//!
//! Written by hand: the keys are constants and nearly every value is plain ASCII, which a serializer cannot know.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use http::Method;

use super::entry::{Record, Usage};
use super::timestamp;
use crate::snapshot::ObjectName;

/// Appends the line with its newline.
pub(super) fn append(line: &mut Vec<u8>, record: &Record) {
    line.reserve(1024);
    key(line, "{\"time\":\"");
    timestamp::append(line, record.opened);
    key(line, "\",\"request_id\":");
    string(line, &record.request_id);
    key(line, ",\"client\":");
    option(line, record.client, address);
    key(line, ",\"protocol\":");
    string(line, record.protocol);
    key(line, ",\"method\":");
    option(line, record.method.as_ref().map(Method::as_str), string);
    key(line, ",\"path\":");
    string(line, &record.path);
    key(line, ",\"model\":");
    option(line, record.model.as_deref(), string);
    key(line, ",\"target_model\":");
    option(line, record.target_model.as_deref(), string);
    key(line, ",\"route\":");
    option(line, record.route.as_ref().map(|rule| &rule.route), name);
    // Its position in the route's `spec.rules`, from 0.
    key(line, ",\"rule\":");
    option(line, record.route.as_ref().map(|rule| rule.index as u64), number);
    key(line, ",\"pool\":");
    option(line, record.pool.as_ref().map(|pool| &pool.name), name);
    key(line, ",\"endpoint\":");
    option(line, record.endpoint.as_deref(), string);
    append_outcome(line, record);
    key(line, "}\n");
}

fn append_outcome(line: &mut Vec<u8>, record: &Record) {
    key(line, ",\"tries\":");
    number(line, record.tries.into());
    key(line, ",\"status\":");
    number(line, record.status.into());
    key(line, ",\"blame\":");
    option(line, record.reason.map(|reason| reason.blame().word()), string);
    key(line, ",\"reason\":");
    option(line, record.reason.map(|reason| reason.word()), string);
    key(line, ",\"ttft_s\":");
    option(line, record.ttft, seconds);
    key(line, ",\"duration_s\":");
    seconds(line, record.duration);
    key(line, ",\"bytes_in\":");
    number(line, record.bytes_in);
    key(line, ",\"bytes_out\":");
    number(line, record.bytes_out);
    key(line, ",\"streaming\":");
    key(line, if record.streaming { "true" } else { "false" });
    key(line, ",\"events\":");
    number(line, record.events);
    key(line, ",\"spliced_events\":");
    number(line, record.spliced_events);
    key(line, ",\"usage\":");
    option(line, record.usage, usage);
}

fn usage(line: &mut Vec<u8>, usage: Usage) {
    key(line, "{\"input_tokens\":");
    option(line, usage.input_tokens, number);
    key(line, ",\"output_tokens\":");
    option(line, usage.output_tokens, number);
    key(line, ",\"cached_tokens\":");
    option(line, usage.cached_tokens, number);
    key(line, "}");
}

/// What is JSON as it stands.
fn key(line: &mut Vec<u8>, json: &str) {
    line.extend_from_slice(json.as_bytes());
}

fn option<T>(line: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        Some(value) => write(line, value),
        None => key(line, "null"),
    }
}

fn string(line: &mut Vec<u8>, text: &str) {
    key(line, "\"");
    characters(line, text);
    key(line, "\"");
}

fn name(line: &mut Vec<u8>, name: &ObjectName) {
    key(line, "\"");
    characters(line, &name.namespace);
    key(line, "/");
    characters(line, &name.name);
    key(line, "\"");
}

fn address(line: &mut Vec<u8>, address: SocketAddr) {
    key(line, "\"");
    if let SocketAddr::V4(v4) = address {
        let [a, b, c, d] = v4.ip().octets();
        for (part, behind) in [(a, "."), (b, "."), (c, "."), (d, ":")] {
            number(line, part.into());
            key(line, behind);
        }
        number(line, v4.port().into());
    } else {
        // A vector takes whatever is written.
        let _ = write!(line, "{address}");
    }
    key(line, "\"");
}

/// To the microsecond, without zeros that say nothing.
fn seconds(line: &mut Vec<u8>, duration: Duration) {
    number(line, duration.as_secs());
    key(line, ".");
    let digits = timestamp::digits::<6>(duration.subsec_micros().into());
    let zeros = digits.iter().rev().take_while(|&&digit| digit == b'0').count().min(5);
    line.extend_from_slice(&digits[..digits.len() - zeros]);
}

fn number(line: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[start..]);
}

/// The inside of a JSON string. Escapes, beside what JSON wants escaped, what readers of lines do not like.
fn characters(line: &mut Vec<u8>, text: &str) {
    // Without an early end the compiler looks at sixteen bytes at once.
    if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        line.extend_from_slice(text.as_bytes());
        return;
    }
    for character in text.chars() {
        match character {
            '"' | '\\' => line.extend_from_slice(&[b'\\', character as u8]),
            '\n' => key(line, "\\n"),
            '\r' => key(line, "\\r"),
            '\t' => key(line, "\\t"),
            // All of them are in the Basic Multilingual Plane.
            _ if character < ' ' || is_unruly(character) => {
                _ = write!(line, "\\u{:04x}", u32::from(character));
            }
            _ => key(line, character.encode_utf8(&mut [0; 4])),
        }
    }
}

/// ASCII that shows and means nothing in JSON: nearly everything in a line is made of it.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\')
}

/// Characters that some take for line ends, and those that turn the order of what a terminal shows.
fn is_unruly(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

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
            models: std::collections::BTreeMap::new(),
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
        assert_eq!(line.as_object().map(serde_json::Map::len), Some(24));
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

    #[test]
    fn a_time_to_the_microsecond_prints_short() {
        for (micros, expected) in
            [(0, "0.0"), (1, "0.000001"), (1_500_000, "1.5"), (12_345, "0.012345"), (60_000_000, "60.0")]
        {
            let mut line = Vec::new();
            seconds(&mut line, Duration::from_micros(micros));
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn a_parser_reads_back_every_text_number_and_address(
            text in "\\PC*|[\"\\\\\u{0}-\u{a0}\u{2020}-\u{2070}]*",
            figure in any::<u64>(),
            client in any::<SocketAddr>(),
        ) {
            let mut record = Record::new(UNIX_EPOCH);
            record.path = text.as_str().into();
            record.bytes_in = figure;
            record.client = Some(client);
            let line = parsed(&record);
            prop_assert_eq!(&line["path"], &text);
            prop_assert_eq!(line["bytes_in"].as_u64(), Some(figure));
            prop_assert_eq!(&line["client"], &client.to_string());
        }
    }
}
