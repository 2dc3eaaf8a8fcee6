//! Whole chunks on the straight way from the engine to the client, as they came, in one write and past hyper.
//!
//! hyper is parked meanwhile: the body has nothing for it, and it has written all that it was given. It writes whole
//! chunks, so does the engine, and the client reads one chunked body, whoever wrote which part. What is not a whole chunk
//! goes by hyper, and so does the end.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use penstock_common::framing::{Framing, Piece};
use tokio::net::TcpStream;

use crate::failure::{Failure, Reason};
use crate::gate::io::Gate;

/// After so many writes past it, hyper is worth less than what it takes to make a new one for the next request.
const SOME: u32 = 8;

/// The client's side of an answer that both sides frame as chunks.
pub struct Straight {
    gate: Gate<TcpStream>,
    /// Of the client's connection, when hyper was last given something.
    flushes: u64,
    /// How often something was written past hyper.
    writes: u32,
    /// What the client has not yet taken: at most one read. Before it, nothing else may be written.
    backlog: Bytes,
}

impl Straight {
    #[must_use]
    pub fn new(gate: Gate<TcpStream>) -> Self {
        let flushes = gate.flushes();
        Self { gate, flushes, writes: 0, backlog: Bytes::new() }
    }

    pub(super) fn gate(&self) -> &Gate<TcpStream> {
        &self.gate
    }

    /// A piece goes to hyper.
    pub(super) fn given(&mut self) {
        self.flushes = self.gate.flushes();
    }

    /// Whether all that was given and written is in the socket.
    pub(super) fn is_clear(&self) -> bool {
        self.backlog.is_empty() && self.gate.flushes() != self.flushes
    }

    /// Whether hyper is in the way of an answer that goes on like this: with two buffers of 8 KiB, and a turn for each event.
    pub(super) fn needs_no_hyper(&self, is_spliced: bool) -> bool {
        (is_spliced || self.writes >= SOME) && self.is_clear() && self.gate.needs_no_hyper()
    }

    /// Writes what is clear to be written; what the client does not take at once is kept.
    pub(super) fn write(&mut self, cx: &mut Context<'_>, mut chunks: &[u8]) {
        while !chunks.is_empty()
            && let Poll::Ready(Ok(n @ 1..)) = self.gate.poll_write_past(cx, chunks)
        {
            chunks = chunks.get(n..).unwrap_or_default();
        }
        self.writes = self.writes.saturating_add(1);
        // An error comes again where the backlog is written.
        self.backlog = Bytes::copy_from_slice(chunks);
    }

    /// Ready when the client has taken all that was [written](Self::write).
    pub(super) fn poll_clear(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while !self.backlog.is_empty() {
            let Ok(n @ 1..) = ready!(self.gate.poll_write_past(cx, &self.backlog)) else {
                let gone = "the client went away, or took nothing of its answer for too long";
                return Poll::Ready(Err(Failure::new(Reason::ClientGone, gone)));
            };
            self.backlog.advance(n);
        }
        Poll::Ready(Ok(()))
    }
}

/// The chunk at the front of `input`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    pub(super) payload: &'a [u8],
    /// Bytes with its size line and the line end behind it.
    pub(super) length: usize,
}

impl<'a> Chunk<'a> {
    /// Steps over the chunk that `input` begins with. `None`, without a step: it is not all here, it is the last, or has what
    /// is for us alone (extensions, RFC 9112 section 7.1.1).
    pub(super) fn step(framing: &mut Framing, input: &'a [u8]) -> Option<Self> {
        let mut ahead = *framing;
        if !ahead.is_between_chunks() {
            return None;
        }
        let Ok(Piece::Framing(line)) = ahead.next(input) else { return None };
        let (line, rest) = input.split_at_checked(line)?;
        let Ok(Piece::Body(size)) = ahead.next(rest) else { return None };
        let (payload, rest) = rest.split_at_checked(size)?;
        let Ok(Piece::Framing(end)) = ahead.next(rest.get(..2)?) else { return None };
        if !ahead.is_between_chunks() || line.contains(&b';') {
            return None;
        }
        *framing = ahead;
        Some(Self { payload, length: line.len() + size + end })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step(input: &[u8]) -> Option<(usize, usize)> {
        let mut framing = Framing::chunked();
        let chunk = Chunk::step(&mut framing, input).map(|chunk| (chunk.payload.len(), chunk.length));
        assert!(framing.is_between_chunks());
        chunk
    }

    #[test]
    fn a_chunk_is_one_only_when_it_is_whole() {
        let input = b"5\r\nhello\r\n3\r\nyou\r\n";
        for end in 0..10 {
            assert_eq!(step(&input[..end]), None, "{end}");
        }
        for end in 10..input.len() {
            assert_eq!(step(&input[..end]), Some((5, 10)), "{end}");
        }
    }

    #[test]
    fn the_last_one_an_extension_and_what_is_broken_are_none() {
        for input in
            ["0\r\n\r\n", "0\r\nx-sum: 1\r\n\r\n", "1;a=b\r\nx\r\n", "1\r\nxy\r\n", "1\nx\n", "x\r\n", "\r\n"]
        {
            assert_eq!(step(input.as_bytes()), None, "{input:?}");
        }
    }

    /// All payload, piece by piece; `None`: broken.
    fn payload(mut framing: Framing, mut input: &[u8]) -> Option<(Framing, Vec<u8>)> {
        let mut payload = Vec::new();
        while !input.is_empty() {
            let n = match framing.next(input).ok()? {
                Piece::Body(n) => {
                    payload.extend_from_slice(&input[..n]);
                    n
                }
                Piece::Framing(n) | Piece::Trailer(n) => n,
                Piece::Done => break,
            };
            input = &input[n..];
        }
        Some((framing, payload))
    }

    proptest! {
        #[test]
        fn what_goes_straight_is_what_the_framing_reads(
            sizes in prop::collection::vec(prop_oneof![0..40usize, 200..300usize], 0..8),
            noise in prop::option::of((any::<prop::sample::Index>(), prop::sample::select(b"0aA;\r\n x".to_vec()))),
            cut in any::<prop::sample::Index>(),
        ) {
            let chunk = |size: &usize| format!("{size:x}\r\n{}\r\n", "y".repeat(*size)).into_bytes();
            let mut input: Vec<u8> = sizes.iter().flat_map(chunk).collect();
            if let Some((at, byte)) = noise.filter(|_| !input.is_empty()) {
                let at = at.index(input.len());
                input[at] = byte;
            }
            input.truncate(cut.index(input.len() + 1));
            let (mut framing, mut straight, mut passed) = (Framing::chunked(), Vec::new(), 0);
            while let Some(chunk) = Chunk::step(&mut framing, &input[passed..]) {
                straight.extend_from_slice(chunk.payload);
                passed += chunk.length;
            }
            let at_once = payload(Framing::chunked(), &input[..passed]).expect("whole chunks");
            prop_assert_eq!(&at_once, &(framing, straight));
            // And what is left is not the worse for it.
            let all = payload(Framing::chunked(), &input).map(|(framing, payload)| (framing, payload.len()));
            let parts = payload(framing, &input[passed..]).map(|(framing, rest)| (framing, at_once.1.len() + rest.len()));
            prop_assert_eq!(all, parts);
        }
    }
}
