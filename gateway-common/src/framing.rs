//! One framing state machine for HTTP/1.1 bodies.
//!
//! It says of each received byte whether it is payload, framing or trailer, and where the message ends. The gate
//! follows requests with it, the engine side follows answers, and the kernel half may follow both: one reading
//! for all. Input may be cut anywhere; payload is skipped in one step, whatever its size.
//!
//! Stricter than RFC 9112 section 7.1 asks of a recipient, because what two readers could take differently has no
//! place behind a gateway: lines end in CRLF only, no white space beside a size, extensions and trailers are
//! bounded.

mod chunked;
#[cfg(test)]
mod tests;

use core::fmt;

use chunked::Step;
pub use chunked::{is_field_byte, is_token};

/// Bytes of chunk extensions in one message; hyper stops at 16 KiB.
pub const MAX_EXTENSION_BYTES: u16 = 4 << 10;
/// Bytes of a trailer section with its line ends; hyper stops at 16 KiB.
pub const MAX_TRAILER_BYTES: u16 = 8 << 10;
/// Fields in a trailer section; hyper stops at 100.
pub const MAX_TRAILER_FIELDS: u8 = 64;

/// Where in a message body the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    state: State,
    /// Payload bytes until the end of the body or chunk; the size so far while a chunk size is read.
    left: u64,
    /// Bytes spent of the budget: extensions of all chunks, then the trailer section.
    spent: u16,
    /// Digits of the chunk size being read, then fields of the trailer section.
    count: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    Length,
    UntilClose,
    Chunked(Step),
    Broken(FramingError),
}

/// What the first bytes of an input are; the number is how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Payload.
    Body(usize),
    /// Chunk-size lines and the line ends behind chunks.
    Framing(usize),
    /// The trailer section, from behind the last chunk's line to the empty line, inclusive.
    Trailer(usize),
    /// Nothing of the input: it belongs to another message.
    Done,
}

/// Why bytes are not a body. The message stays broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    ChunkSize,
    ChunkTooLarge,
    ChunkExtension,
    ExtensionsTooLong,
    LineEnd,
    ChunkEnd,
    Trailer,
    TrailerTooLong,
}

impl Framing {
    /// A message without a body.
    #[must_use]
    pub const fn none() -> Self {
        Self::new(State::Done, 0)
    }

    /// A body of exactly `bytes`.
    #[must_use]
    pub const fn length(bytes: u64) -> Self {
        Self::new(if bytes == 0 { State::Done } else { State::Length }, bytes)
    }

    #[must_use]
    pub const fn chunked() -> Self {
        Self::new(State::Chunked(Step::SizeStart), 0)
    }

    /// A body that ends with its connection: answers only.
    #[must_use]
    pub const fn until_close() -> Self {
        Self::new(State::UntilClose, 0)
    }

    const fn new(state: State, left: u64) -> Self {
        Self { state, left, spent: 0, count: 0 }
    }

    /// Classifies a prefix of `input` and steps over it. The prefix is empty only where `input` is, or at the
    /// end of the message.
    ///
    /// # Errors
    /// When `input` holds a byte that cannot stand where it does; then nothing of it may be used.
    pub fn next(&mut self, input: &[u8]) -> Result<Piece, FramingError> {
        match self.state {
            State::Done => Ok(Piece::Done),
            State::UntilClose => Ok(Piece::Body(input.len())),
            State::Length => Ok(Piece::Body(self.skip(input.len(), State::Done))),
            State::Chunked(Step::Payload) => {
                Ok(Piece::Body(self.skip(input.len(), State::Chunked(Step::PayloadCr))))
            }
            State::Chunked(step) => self.lines(step, input),
            State::Broken(error) => Err(error),
        }
    }

    /// Nothing more belongs to this message.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// A chunk, or the last one, begins with the next byte.
    #[must_use]
    pub const fn is_between_chunks(&self) -> bool {
        matches!(self.state, State::Chunked(Step::SizeStart))
    }

    /// Whether the connection may end here; elsewhere the message is cut short.
    #[must_use]
    pub const fn end_of_input(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }

    /// Steps over at most `available` payload bytes; at the last one `after` begins.
    fn skip(&mut self, available: usize, after: State) -> usize {
        let skipped = self.left.min(available as u64);
        self.left -= skipped;
        if self.left == 0 {
            self.state = after;
        }
        // At most `available`, which is a usize.
        skipped as usize
    }

    /// Steps over the bytes around chunks, one by one, while they stay of one kind.
    fn lines(&mut self, mut step: Step, input: &[u8]) -> Result<Piece, FramingError> {
        let trailer = step.is_trailer();
        let mut stepped = 0;
        for &byte in input {
            let next = self.step(step, byte).inspect_err(|&error| self.state = State::Broken(error))?;
            stepped += 1;
            self.state = next;
            match next {
                State::Chunked(next) if next != Step::Payload && next.is_trailer() == trailer => step = next,
                _ => break,
            }
        }
        Ok(if trailer { Piece::Trailer(stepped) } else { Piece::Framing(stepped) })
    }
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChunkSize => "a chunk size is not 1 to 16 hexadecimal digits",
            Self::ChunkTooLarge => "a chunk size is beyond 2^63 - 1",
            Self::ChunkExtension => "a chunk extension is malformed",
            Self::ExtensionsTooLong => "the chunk extensions are longer than 4 KiB",
            Self::LineEnd => "a line of the chunked body does not end in CRLF",
            Self::ChunkEnd => "a chunk is longer than its size says",
            Self::Trailer => "a trailer field is malformed",
            Self::TrailerTooLong => "the trailer section is longer than 8 KiB or 64 fields",
        })
    }
}

impl core::error::Error for FramingError {}
