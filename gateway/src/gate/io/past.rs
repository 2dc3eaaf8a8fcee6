//! Writing to the client past hyper, for who knows that hyper has nothing to write.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::Gate;

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
}
