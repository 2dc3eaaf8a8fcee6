//! A view of the passing bytes of an answer: counts the events of a stream and finds the tokens that the engine
//! reports. It looks at each byte once, keeps two small windows and changes nothing.

mod events;
mod usage;

use std::mem;

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use self::events::Events;
use crate::ledger::Usage;

/// The start of an answer is looked through for Anthropic's streams: their first event alone has the input tokens.
const HEAD_BYTES: usize = 1 << 10;
/// The end of an answer is kept for everything else, from `"usage"` on. llama.cpp's last event is the longest seen, with
/// 780 bytes; thousands of streams keep this much each.
const STREAM_TAIL: usize = 1 << 10;
/// In a document, fields of the whole answer stand behind it.
const DOCUMENT_TAIL: usize = 2 << 10;

/// What kind of answer passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `text/event-stream`.
    EventStream,
    /// One JSON document.
    Json,
}

impl Kind {
    /// What a response's head announces; `None`: nothing that could be read, or encoded.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let plain = headers.get_all(CONTENT_ENCODING).iter().all(|encoding| encoding == "identity");
        let content_type = headers.get(CONTENT_TYPE)?.as_bytes();
        let essence = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        if !plain {
            None
        } else if essence.eq_ignore_ascii_case(b"text/event-stream") {
            Some(Self::EventStream)
        } else if essence.eq_ignore_ascii_case(b"application/json") {
            Some(Self::Json)
        } else {
            None
        }
    }
}

/// The first bytes of a body.
#[derive(Debug)]
enum Head {
    Growing(Vec<u8>),
    /// As much as is looked at has passed, and this was in it: thousands of streams need not keep more.
    Read(Option<Usage>),
}

/// The view; sees every chunk of one answer's body, in order, cut anywhere.
#[derive(Debug)]
pub struct Tap {
    events: Option<Events>,
    head: Head,
    /// A ring of [`Self::tail_bytes`]: byte `n` of the body lies at `n` modulo that. Shorter only while the body is;
    /// empty while all of the body is in the head.
    tail: Vec<u8>,
    /// Bytes that went through the ring: all that have passed, or none.
    passed: u64,
}

impl Tap {
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let events = (kind == Kind::EventStream).then(Events::default);
        Self { events, head: Head::Growing(Vec::new()), tail: Vec::new(), passed: 0 }
    }

    /// Sees a chunk; returns how many events it completed.
    pub fn pass(&mut self, chunk: &[u8]) -> u64 {
        match &mut self.head {
            Head::Growing(head) if self.passed == 0 && head.len() + chunk.len() <= HEAD_BYTES => {
                if !head.is_empty() {
                    // Not a byte more than it may hold.
                    head.reserve_exact(HEAD_BYTES - head.len());
                }
                head.extend_from_slice(chunk);
            }
            _ => {
                self.outgrow_head(chunk);
                self.keep_tail(chunk);
            }
        }
        self.events.as_mut().map_or(0, |events| events.pass(chunk))
    }

    /// Whole events have gone past unseen, of which these bytes were the last.
    pub fn skip(&mut self, tail: &[u8]) {
        self.outgrow_head(&[]);
        if let Head::Growing(head) = &self.head {
            self.head = Head::Read(usage::first(head));
        }
        self.keep_tail(tail);
    }

    /// Whether the next byte begins an event; never so in what is no stream of events.
    #[must_use]
    pub fn is_between_events(&self) -> bool {
        self.events.as_ref().is_some_and(Events::is_between)
    }

    /// Events so far: blocks of lines with data. Comments, pings and the closing `[DONE]` are none.
    #[must_use]
    #[cfg(test)]
    pub fn events(&self) -> u64 {
        self.events.as_ref().map_or(0, Events::count)
    }

    /// The tokens reported in what has passed; asked at the end.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        let first = match &self.head {
            Head::Growing(head) if self.passed == 0 => return usage::find_in_whole(head),
            Head::Growing(head) => usage::first(head),
            Head::Read(first) => *first,
        };
        let split = if self.tail.len() == self.tail_bytes() { self.tail_position() } else { 0 };
        let (newer, older) = self.tail.split_at(split);
        usage::find(first, &[older, newer].concat())
    }

    /// From now on the ring is in use, and begins with what there was so far; the head takes what it still can of the
    /// chunk behind that.
    fn outgrow_head(&mut self, chunk: &[u8]) {
        let Head::Growing(head) = &mut self.head else { return };
        let mut head = mem::take(head);
        if self.passed == 0 {
            self.tail.reserve_exact(self.tail_bytes());
            self.keep_tail(&head);
        }
        head.extend_from_slice(&chunk[..chunk.len().min(HEAD_BYTES - head.len())]);
        self.head =
            if head.len() < HEAD_BYTES { Head::Growing(head) } else { Head::Read(usage::first(&head)) };
    }

    fn keep_tail(&mut self, chunk: &[u8]) {
        let tail_bytes = self.tail_bytes();
        let (skipped, mut rest) = chunk.split_at(chunk.len().saturating_sub(tail_bytes));
        self.passed += skipped.len() as u64;
        if !skipped.is_empty() {
            // All of the ring is about to be written.
            self.tail.resize(tail_bytes, 0);
        }
        while !rest.is_empty() {
            let position = self.tail_position();
            let (now, later) = rest.split_at(rest.len().min(tail_bytes - position));
            let overwritten = now.len().min(self.tail.len() - position);
            self.tail[position..position + overwritten].copy_from_slice(&now[..overwritten]);
            self.tail.extend_from_slice(&now[overwritten..]);
            self.passed += now.len() as u64;
            rest = later;
        }
    }

    /// Where the next byte goes: at the ring's end while it grows.
    fn tail_position(&self) -> usize {
        (self.passed % self.tail_bytes() as u64) as usize
    }

    fn tail_bytes(&self) -> usize {
        if self.events.is_some() { STREAM_TAIL } else { DOCUMENT_TAIL }
    }
}

#[cfg(test)]
mod tests;
