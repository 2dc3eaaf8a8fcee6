//! What engines answer, of fixed size: rendered by the engine, compared by the load. Times inside are CLOCK_MONOTONIC
//! nanoseconds, which all processes of a host share.

use anyhow::{Result, bail, ensure};

use super::ask::Pool;
use super::body::Body;

/// Digits of a time.
const DIGITS: usize = 20;
/// Of an event, as engines send them for a token of text.
pub(crate) const EVENT_BYTES: usize = 200;
/// Behind the second time of a JSON answer.
const JSON_END: &str = concat!(
    r#"","choices":[{"index":0,"message":{"role":"assistant","content":"Measured."},"finish_reason":"stop"}],"#,
    r#""usage":{"prompt_tokens":64,"completion_tokens":2,"total_tokens":66}}"#
);
const BETWEEN_TIMES: &str = r#"","end_ns":""#;

/// When an engine had a request's head, and the end of its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) head_ns: u64,
    pub(crate) end_ns: u64,
}

pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // Never negative on Linux, and 2^64 ns are 584 years.
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// The one JSON answer to a request.
#[derive(Debug)]
pub(crate) struct Json {
    /// All before the first time; it names the pool and the size of the body that came in unchanged.
    start: Vec<u8>,
}

impl Json {
    pub(crate) fn new(pool: Pool, body: &Body) -> Self {
        let (name, model, bytes) = (pool.name(), pool.model(), body.len());
        let start = format!(
            r#"{{"id":"bench","object":"chat.completion","model":"{model}","pool":"{name}","same_bytes":{bytes},"head_ns":""#
        );
        Self { start: start.into_bytes() }
    }

    fn len(&self) -> usize {
        self.start.len() + DIGITS + BETWEEN_TIMES.len() + DIGITS + JSON_END.len()
    }

    /// Adds head and body to a buffer.
    pub(crate) fn write(&self, times: Times, to: &mut Vec<u8>) {
        to.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ");
        to.extend_from_slice(self.len().to_string().as_bytes());
        to.extend_from_slice(b"\r\n\r\n");
        to.extend_from_slice(&self.start);
        to.extend_from_slice(&digits(times.head_ns));
        to.extend_from_slice(BETWEEN_TIMES.as_bytes());
        to.extend_from_slice(&digits(times.end_ns));
        to.extend_from_slice(JSON_END.as_bytes());
    }

    /// Reads a body that [`Json::write`] rendered; any other is an error that shows it.
    pub(crate) fn read(&self, body: &[u8]) -> Result<Times> {
        let times = body.strip_prefix(&*self.start).and_then(|rest| {
            let (head_ns, rest) = rest.split_first_chunk::<DIGITS>()?;
            let (end_ns, rest) =
                rest.strip_prefix(BETWEEN_TIMES.as_bytes())?.split_first_chunk::<DIGITS>()?;
            let times = Times { head_ns: number(head_ns)?, end_ns: number(end_ns)? };
            (rest == JSON_END.as_bytes()).then_some(times)
        });
        let Some(times) = times else {
            bail!(
                "another answer than asked for: {}",
                String::from_utf8_lossy(body.get(..200).unwrap_or(body))
            );
        };
        Ok(times)
    }
}

/// The events of one stream.
#[derive(Debug)]
pub(crate) struct Events {
    start: Vec<u8>,
    end: Vec<u8>,
}

impl Events {
    /// Keys are in order of the alphabet: a peer that writes events anew sorts them, and is compared all the same.
    pub(crate) fn new(pool: Pool) -> Self {
        let start = r#"data: {"at_ns":""#;
        let content = r#"","choices":[{"delta":{"content":""#;
        let close = format!(
            "\"}},\"index\":0}}],\"id\":\"bench\",\"model\":\"{}\",\"object\":\"chat.completion.chunk\",\"pool\":\"{}\"}}\n\n",
            pool.model(),
            pool.name()
        );
        let text = "t".repeat(EVENT_BYTES - start.len() - DIGITS - content.len() - close.len());
        Self { start: start.into(), end: format!("{content}{text}{close}").into_bytes() }
    }

    /// Adds an event to a buffer, as one chunk.
    pub(crate) fn write_chunk(&self, at_ns: u64, to: &mut Vec<u8>) {
        to.extend_from_slice(format!("{EVENT_BYTES:x}\r\n").as_bytes());
        to.extend_from_slice(&self.start);
        to.extend_from_slice(&digits(at_ns));
        to.extend_from_slice(&self.end);
        to.extend_from_slice(b"\r\n");
    }

    /// The time inside an event.
    pub(crate) fn read(&self, event: &[u8; EVENT_BYTES]) -> Result<u64> {
        let at = event.strip_prefix(&*self.start).and_then(|rest| rest.split_first_chunk::<DIGITS>());
        let at_ns = at.and_then(|(at, end)| if end == self.end { number(at) } else { None });
        ensure!(at_ns.is_some(), "another event than asked for: {}", String::from_utf8_lossy(event));
        Ok(at_ns.unwrap_or_default())
    }
}

fn digits(mut number: u64) -> [u8; DIGITS] {
    let mut text = [b'0'; DIGITS];
    for place in text.iter_mut().rev() {
        *place += (number % 10) as u8;
        number /= 10;
    }
    text
}

fn number(text: &[u8; DIGITS]) -> Option<u64> {
    text.iter().try_fold(0_u64, |sum, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(digit.into())
    })
}

#[cfg(test)]
mod tests {
    use super::super::ask::{Ask, Place, Reply};
    use super::*;

    fn body(pool: Pool, bytes: usize) -> Body {
        Body::of(&Ask { pool, bytes, place: Place::Last, reply: Reply::Json { after_us: 0 } }).unwrap()
    }

    #[test]
    fn a_json_answer_is_read_as_it_was_written_and_no_other_is() {
        let answer = Json::new(Pool::A, &body(Pool::A, 300));
        let times = Times { head_ns: 1, end_ns: u64::MAX };
        let mut all = Vec::new();
        answer.write(times, &mut all);
        let at = memchr::memmem::find(&all, b"\r\n\r\n").unwrap() + 4;
        assert_eq!(answer.read(&all[at..]).unwrap(), times);
        let value: serde_json::Value = serde_json::from_slice(&all[at..]).unwrap();
        assert_eq!(value["pool"], "a");
        assert!(Json::new(Pool::B, &body(Pool::B, 300)).read(&all[at..]).is_err());
        assert!(Json::new(Pool::A, &body(Pool::A, 301)).read(&all[at..]).is_err());
        assert!(answer.read(&all[at..all.len() - 1]).is_err());
    }

    #[test]
    fn an_event_is_one_chunk_of_fixed_size_with_its_time() {
        let mut chunk = Vec::new();
        Events::new(Pool::B).write_chunk(42, &mut chunk);
        let event: &[u8; EVENT_BYTES] = chunk[4..4 + EVENT_BYTES].try_into().unwrap();
        assert!(event.ends_with(b"\n\n") && chunk.starts_with(b"c8\r\n"));
        assert_eq!(Events::new(Pool::B).read(event).unwrap(), 42);
        assert!(Events::new(Pool::A).read(event).is_err());
    }
}
