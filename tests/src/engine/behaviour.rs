//! How an engine treats the requests that come from now on: well, or in one of the ways that engines misbehave.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// What happens to a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Keep,
    Close,
    Reset,
}

#[derive(Clone, Debug, Default)]
pub enum Behaviour {
    #[default]
    Normal,
    /// The first event of a stream goes out at once, each further one when the test calls `step`.
    Stepped,
    /// As llama.cpp does: advertises keep-alive, and closes after each streamed answer.
    ClosesKept,
    /// Takes the request and never answers.
    Hangs,
    /// Takes the request and answers it when the test calls `step`.
    Held,
    /// Waits before the answer.
    Slow(Duration),
    ResetsAtAccept,
    /// After the whole request, before any byte of an answer.
    ResetsBeforeAnswer,
    /// After the whole request and some work on it, before any byte of an answer.
    ResetsAtWork(Duration),
    /// After the whole request, without a byte.
    ClosesBeforeAnswer,
    /// Answers the first request of a connection, and closes at the next one: its keep-alive time was over.
    ClosesReused,
    /// After so many events of a streamed answer.
    ResetsAfter(usize),
    /// Answers as soon as the head is there, whatever of the body is still to come, and closes.
    AnswersEarly(u16),
    /// As [`Behaviour::AnswersEarly`], but without waiting for the client to read it: what the client still
    /// sends is answered with a RST.
    AnswersEarlyAndLeaves(u16),
    Status(u16),
    /// An answer of so many bytes of [`pattern`], as fast as they are read.
    Big(usize),
    /// An answer without an end, as fast as it is read.
    Endless,
    /// These writes are the answer, with a pause behind most of them.
    Writes(Vec<Vec<u8>>, Then),
    /// The head of a stream, this chunk so many times with a pause behind most of them, and the stream's end.
    Repeats(Arc<[u8]>, usize),
    /// These bytes are the answer.
    Raw(Vec<u8>, Then),
}

impl Behaviour {
    /// Not HTTP at all.
    #[must_use]
    pub fn garbage() -> Self {
        Self::raw("SSH-2.0-OpenSSH_9.2\r\n", Then::Close)
    }

    /// Promises ten bytes and closes after five.
    #[must_use]
    pub fn cut_length() -> Self {
        Self::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", Then::Close)
    }

    /// Closes inside a chunked answer.
    #[must_use]
    pub fn cut_chunked() -> Self {
        Self::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", Then::Close)
    }

    /// An answer with two framings.
    #[must_use]
    pub fn two_framings() -> Self {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        Self::raw(&format!("{head}5\r\n12345\r\n0\r\n\r\n"), Then::Close)
    }

    /// 103 and an unasked 100 before the answer.
    #[must_use]
    pub fn interim_first() -> Self {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
        Self::raw(&format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345"), Then::Keep)
    }

    #[must_use]
    pub fn with_trailers() -> Self {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
        Self::raw(&format!("{head}5\r\n12345\r\n0\r\nX-Sum: 15\r\n\r\n"), Then::Keep)
    }

    /// HTTP/1.0: the close ends the body.
    #[must_use]
    pub fn close_delimited() -> Self {
        Self::raw("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n12345", Then::Close)
    }

    #[must_use]
    pub fn raw(bytes: &str, then: Then) -> Self {
        Self::Raw(bytes.as_bytes().to_vec(), then)
    }
}

/// `length` bytes without a short period, so that lost, doubled and swapped parts show. A stretch of a prime length
/// is made once and repeated: byte by byte, a debug build takes seconds for what a test sends.
#[must_use]
pub fn pattern(length: usize) -> Vec<u8> {
    const STRETCH: usize = 1_048_573;
    static MADE: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..STRETCH).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect());
    let mut bytes = MADE.repeat(length / STRETCH);
    bytes.extend_from_slice(&MADE[..length % STRETCH]);
    bytes
}
