//! Watches HTTP/2 frames go by, by their nine-byte heads, and bounds what the client may have us do for nothing.
//!
//! Every frame that asks for work without moving a body costs one token. Tokens come back with time and with each
//! HEADERS or DATA frame that we send: an honest client acknowledges those with a WINDOW_UPDATE or two and a PING
//! to measure the path, so it never runs dry however long it streams, and a flood does within a second.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::{End, GateLimits, PREFACE};
use crate::gate::MAX_HEAD_BYTES;

/// Tokens of a fresh connection, and the most that it can save up.
const BURST: u32 = 1000;
/// How often one token comes back.
const REFILL: Duration = Duration::from_millis(10);
/// Tokens that a HEADERS or DATA frame of ours brings: Go's client returns window every 4 KiB, so four times for
/// a full frame, others do so for stream and connection, and some measure the path besides.
const EARNED_OUTBOUND: u32 = 8;
/// A DATA frame of at least this payload brings one; smaller ones cost and bring nothing.
const EARNING_BYTES: u32 = 1 << 10;
/// SETTINGS_MAX_FRAME_SIZE, which we never raise.
const MAX_FRAME_BYTES: u32 = 16 << 10;
const MAX_CONTINUATIONS: u8 = 8;
/// Padding of a DATA frame with the byte that says how much.
const MAX_PADDING: u32 = 256;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

#[derive(Debug)]
pub(super) struct Frames {
    inbound: Cursor,
    outbound: Cursor,
    tokens: u32,
    refilled: Instant,
    block: Option<Block>,
    last_stream: u32,
    /// Requests that the serving code works on.
    pub(super) in_flight: usize,
    /// The last byte from the client or the end of the last response.
    pub(super) active: Instant,
    /// When the frame or header block that is still incomplete began.
    started: Option<Instant>,
}

/// A header block that goes on in CONTINUATION frames.
#[derive(Debug, Default)]
struct Block {
    bytes: u32,
    continuations: u8,
}

/// What a client did that HTTP/2 forbids or a server need not bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    FrameTooLarge,
    Interleaved,
    HeaderBlockTooLarge,
    TooManyContinuations,
    Flood,
    Slow,
}

impl Frames {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            // The preface passes like a payload.
            inbound: Cursor { left: PREFACE.len() as u32, ..Cursor::default() },
            outbound: Cursor::default(),
            tokens: BURST,
            refilled: now,
            block: None,
            last_stream: 0,
            in_flight: 0,
            active: now,
            started: None,
        }
    }

    /// Judges bytes from the client; on a violation none of them may go on.
    pub(super) fn inbound(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Violation> {
        self.refill(now);
        self.active = now;
        while let Some(frame) = self.inbound.next(&mut bytes) {
            self.judge(frame)?;
            // A header block is one thing to wait for, in however many frames it comes.
            if self.block.is_none() {
                self.started = None;
            }
        }
        let incomplete = self.block.is_some() || self.inbound.is_inside() && !self.inbound.is_in_data();
        self.started = incomplete.then(|| self.started.unwrap_or(now));
        Ok(())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.started.is_none()
    }

    /// Counts what goes to the client.
    pub(super) fn outbound(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.outbound.next(&mut bytes) {
            if matches!(frame.kind, DATA | HEADERS) {
                self.earn(EARNED_OUTBOUND);
            }
        }
    }

    /// When to give up on the client unless it sends something, and as what.
    pub(super) fn deadline(&self, limits: &GateLimits) -> Option<(Instant, End)> {
        match self.started {
            Some(started) => Some((started + limits.head_timeout, End::Http2(Violation::Slow))),
            None if self.in_flight == 0 => Some((self.active + limits.idle_timeout, End::Idle)),
            None => None,
        }
    }

    /// GOAWAY with `code`; `None` in the middle of another frame.
    pub(super) fn goaway(&self, code: u32) -> Option<Vec<u8>> {
        if self.outbound.is_inside() {
            return None;
        }
        let mut frame = vec![0, 0, 8, 7, 0, 0, 0, 0, 0];
        frame.extend_from_slice(&self.last_stream.to_be_bytes());
        frame.extend_from_slice(&code.to_be_bytes());
        Some(frame)
    }

    fn judge(&mut self, frame: FrameHead) -> Result<(), Violation> {
        if frame.length > MAX_FRAME_BYTES {
            return Err(Violation::FrameTooLarge);
        }
        if (frame.kind == CONTINUATION) != self.block.is_some() {
            return Err(Violation::Interleaved);
        }
        match frame.kind {
            DATA if frame.length >= EARNING_BYTES => self.earn(1),
            DATA if frame.carries_payload() || frame.flags & END_STREAM != 0 => {}
            _ => self.tokens = self.tokens.checked_sub(1).ok_or(Violation::Flood)?,
        }
        if matches!(frame.kind, HEADERS | CONTINUATION) {
            self.header_block(frame)?;
        }
        Ok(())
    }

    fn header_block(&mut self, frame: FrameHead) -> Result<(), Violation> {
        let mut block = self.block.take().unwrap_or_default();
        block.bytes += frame.length;
        if frame.kind == HEADERS {
            self.last_stream = self.last_stream.max(frame.stream);
        } else {
            block.continuations += 1;
        }
        if block.bytes > MAX_HEAD_BYTES as u32 {
            return Err(Violation::HeaderBlockTooLarge);
        }
        if block.continuations > MAX_CONTINUATIONS {
            return Err(Violation::TooManyContinuations);
        }
        if frame.flags & END_HEADERS == 0 {
            self.block = Some(block);
        }
        Ok(())
    }

    fn earn(&mut self, tokens: u32) {
        self.tokens = (self.tokens + tokens).min(BURST);
    }

    fn refill(&mut self, now: Instant) {
        let periods = now.duration_since(self.refilled).as_millis() / REFILL.as_millis();
        if let Ok(tokens) = u32::try_from(periods)
            && tokens < BURST
        {
            self.earn(tokens);
            self.refilled += REFILL * tokens;
        } else {
            self.tokens = BURST;
            self.refilled = now;
        }
    }
}

impl Violation {
    /// The error code for GOAWAY (RFC 9113 section 7).
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Interleaved => 1,
            Self::FrameTooLarge => 6,
            Self::HeaderBlockTooLarge | Self::TooManyContinuations | Self::Flood | Self::Slow => 11,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FrameTooLarge => "an HTTP/2 frame is larger than 16 KiB",
            Self::Interleaved => "an HTTP/2 header block is interrupted or continued from nowhere",
            Self::HeaderBlockTooLarge => "an HTTP/2 header block is larger than 64 KiB",
            Self::TooManyContinuations => "an HTTP/2 header block has more than 8 CONTINUATION frames",
            Self::Flood => "HTTP/2 control frames come faster than 100 a second",
            Self::Slow => "an HTTP/2 frame did not come whole in time",
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct FrameHead {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl FrameHead {
    /// Whether more than padding is surely in a DATA frame.
    fn carries_payload(self) -> bool {
        self.length > if self.flags & PADDED == 0 { 0 } else { MAX_PADDING }
    }
}

/// Steps from frame to frame, whatever way the bytes are cut.
#[derive(Debug, Default)]
struct Cursor {
    head: [u8; 9],
    /// Bytes of the current head.
    got: usize,
    /// Bytes of the current payload that are still to come.
    left: u32,
}

impl Cursor {
    /// The next head that is completed by `bytes`, which are cut to what follows it.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<FrameHead> {
        let skipped = bytes.len().min(self.left as usize);
        self.left -= skipped as u32;
        *bytes = &bytes[skipped..];
        let taken = bytes.len().min(self.head.len() - self.got);
        self.head[self.got..self.got + taken].copy_from_slice(&bytes[..taken]);
        self.got += taken;
        *bytes = &bytes[taken..];
        if self.got < self.head.len() {
            return None;
        }
        self.got = 0;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.head;
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        self.left = length;
        Some(FrameHead { length, kind, flags, stream })
    }

    /// Whether the bytes so far end inside a frame.
    fn is_inside(&self) -> bool {
        self.got > 0 || self.left > 0
    }

    /// Whether they end inside the payload of a DATA frame, whose pace the request path watches.
    fn is_in_data(&self) -> bool {
        self.left > 0 && self.head[3] == DATA
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        frame.resize(9 + length, 0);
        frame
    }

    #[test]
    fn a_client_that_acknowledges_each_event_never_runs_dry() {
        let now = Instant::now();
        let mut frames = Frames::new(now);
        frames.inbound(PREFACE, now).unwrap();
        for _ in 0..100_000 {
            frames.outbound(&frame(DATA, 0, 100));
            // Stream, connection, and a PING to measure the path, all in no time.
            for (kind, length) in [(8, 4), (8, 4), (6, 8)] {
                frames.inbound(&frame(kind, 0, length), now).unwrap();
            }
        }
    }

    #[test]
    fn tokens_come_back_with_time() {
        let mut now = Instant::now();
        let mut frames = Frames::new(now);
        frames.inbound(PREFACE, now).unwrap();
        frames.inbound(&frame(6, 0, 8).repeat(BURST as usize), now).unwrap();
        for _ in 0..1000 {
            now += REFILL;
            frames.inbound(&frame(6, 0, 8), now).unwrap();
        }
        assert_eq!(frames.inbound(&frame(6, 0, 8), now), Err(Violation::Flood));
    }

    #[test]
    fn empty_data_is_work_and_data_is_not() {
        for (flags, length, flood) in [
            (0, 0, true),
            (PADDED, 1, true),
            (PADDED, 256, true),
            (END_STREAM, 0, false),
            (0, 1, false),
            (PADDED, 257, false),
        ] {
            let now = Instant::now();
            let mut frames = Frames::new(now);
            let bytes = [&PREFACE[..], &frame(DATA, flags, length).repeat(BURST as usize + 1)].concat();
            assert_eq!(frames.inbound(&bytes, now).is_err(), flood, "{flags} {length}");
        }
    }

    proptest! {
        #[test]
        fn frames_are_found_however_they_are_cut(
            shapes in prop::collection::vec((0..10u8, any::<u8>(), 0..300usize), 0..20),
            cuts in prop::collection::vec(1..50usize, 1..50),
        ) {
            let bytes: Vec<u8> = shapes.iter().flat_map(|&(kind, flags, length)| frame(kind, flags, length)).collect();
            let (mut cursor, mut found, mut rest) = (Cursor::default(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (mut piece, behind) = rest.split_at(rest.len().min(*cut));
                while let Some(head) = cursor.next(&mut piece) {
                    found.push((head.kind, head.flags, head.length as usize));
                }
                rest = behind;
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(found, shapes);
            prop_assert!(!cursor.is_inside());
        }
    }
}
