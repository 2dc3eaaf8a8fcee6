//! Writing to the client past hyper, for who knows that hyper has nothing to write; and without it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::http1::Phase;
use super::{Gate, GateIo, Side};

/// Parts of what is written in one call: a chunk has three.
const PARTS: usize = 4;

impl Gate<TcpStream> {
    /// Writes what the socket takes at once; to be called by the task that polls hyper.
    ///
    /// # Errors
    /// When the client is gone, or has taken nothing for too long.
    pub fn poll_write_past(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        let Some(stream) = &mut inner.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let written = Pin::new(stream).poll_write(cx, bytes);
        inner.poll_written(cx, written)
    }

    /// Whether hyper has done all that it is needed for, once it has written the head of the answer to the current request:
    /// the request has been read to its end, and another may follow. It may be dropped then.
    #[must_use]
    pub fn needs_no_hyper(&self) -> bool {
        let inner = self.0.borrow();
        let Side::Http1(turn) = &inner.side else { return false };
        let Phase::Message(message) = &turn.phase else { return false };
        turn.released == 0 && message.framing.is_done() && message.keep_alive && inner.end.is_none()
    }

    /// Writes all of `out`, in the place of hyper that was dropped.
    ///
    /// # Errors
    /// As [`Self::poll_write_past`].
    pub fn poll_write_all(&self, cx: &mut Context<'_>, out: &mut impl Buf) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        while out.has_remaining() {
            let mut parts = [IoSlice::new(&[]); PARTS];
            let count = out.chunks_vectored(&mut parts);
            let written = inner.stream()?.poll_write_vectored(cx, &parts[..count]);
            match ready!(inner.poll_written(cx, written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => out.advance(written),
            }
        }
        inner.flushed();
        Poll::Ready(Ok(()))
    }

    /// What a new hyper reads from and writes to, after [`Self::needs_no_hyper`] and the end of the answer.
    #[must_use]
    pub fn io(&self) -> GateIo<TcpStream> {
        GateIo(self.0.clone())
    }
}
