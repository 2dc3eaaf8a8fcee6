//! The rest of a streamed answer, written without hyper: that was needed for the head, and would only hold memory now.
//!
//! Whole chunks go [straight](super::straight) from the relay. What the relay gives out, pieces of chunks, is framed here, and
//! so is the end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::buf::Chain;
use bytes::{Buf, Bytes};
use http_body::Body;
use tokio::net::TcpStream;

use super::answer::Answer;
use crate::gate::io::Gate;

/// RFC 9112 section 7.1: the last chunk, and an empty trailer section.
const LAST: &[u8] = b"0\r\n\r\n";

/// A future that is ready when the answer is over: whether the client has all of it.
pub struct Rest {
    /// `None`: over, but for what is still to be written.
    answer: Option<Answer>,
    gate: Gate<TcpStream>,
    /// A size line, the bytes, and the line end behind them; or the last chunk.
    out: Chain<Chain<Bytes, Bytes>, &'static [u8]>,
}

impl Rest {
    #[must_use]
    pub fn new(answer: Answer, gate: Gate<TcpStream>) -> Self {
        let nothing = Bytes::new().chain(Bytes::new()).chain(&[][..]);
        Self { answer: Some(answer), gate, out: nothing }
    }
}

impl Future for Rest {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let Self { answer, gate, out } = &mut *self;
        loop {
            if out.has_remaining() && ready!(gate.poll_write_all(cx, out)).is_err() {
                return Poll::Ready(false);
            }
            let Some(relayed) = answer else { return Poll::Ready(true) };
            match ready!(Pin::new(relayed).poll_frame(cx)) {
                // Not an empty chunk, which would be the last, nor trailers that no Trailer field announced: they may be
                // dropped (RFC 9110 section 6.5.1).
                Some(Ok(frame)) => {
                    if let Some(data) = frame.into_data().ok().filter(|data| !data.is_empty()) {
                        *out = chunk(data);
                    }
                }
                Some(Err(_)) => return Poll::Ready(false),
                None => {
                    *out = Bytes::new().chain(Bytes::new()).chain(LAST);
                    // First, as hyper would: who writes the last byte lets the next request in.
                    *answer = None;
                }
            }
        }
    }
}

fn chunk(data: Bytes) -> Chain<Chain<Bytes, Bytes>, &'static [u8]> {
    let size = Bytes::from(format!("{:x}\r\n", data.len()));
    size.chain(data).chain(&b"\r\n"[..])
}
