//! A body whose length is declared, as the service reads it. hyper is told that there is none: through hyper it would
//! take a channel, a turn of the task for each chunk, and a copy of what came with its head.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::http1::{Message, Phase};
use super::pieces::{self, Arrived};
use super::{End, Gate, Inner, Side};

/// What one client may bring in a turn of the loop; then others have theirs.
const TURN_BYTES: usize = 1 << 20;

/// What came of a body in the read that brought the end of its head: what was copied with the head, and what was not.
#[derive(Debug, Default)]
pub(super) struct CameWithHead(pub(super) Bytes, pub(super) Bytes);

/// What of the body is still to be read.
pub struct DeclaredBody<S> {
    gate: Gate<S>,
    /// The number of the message: nobody reads the body of another one.
    message: u64,
    came: CameWithHead,
    left: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gate<S> {
    /// The body of the request that hyper hands to its service, where the gate keeps it from hyper.
    #[must_use]
    pub fn take_body(&self) -> Option<DeclaredBody<S>> {
        let mut inner = self.0.borrow_mut();
        let Side::Http1(turn) = &mut inner.side else { return None };
        let Phase::Message(message) = &turn.phase else { return None };
        let came = turn.body.take()?;
        Some(DeclaredBody { gate: self.clone(), message: turn.messages, came, left: message.left })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> DeclaredBody<S> {
    /// Bytes that are still to come.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.came.0.len() + self.came.1.len()) as u64 + self.left
    }

    /// The next chunk; `None` after the last.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let CameWithHead(copied, rest) = &mut self.came;
        if let Some(came) = [copied, rest].into_iter().find(|came| !came.is_empty()) {
            return Poll::Ready(Some(Ok(std::mem::take(came))));
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let chunk = ready!(self.gate.0.borrow_mut().poll_chunk(cx, self.message));
        if let Ok(chunk) = &chunk {
            self.left -= chunk.len() as u64;
        }
        Poll::Ready(Some(chunk))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inner<S> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, number: u64) -> Poll<io::Result<Bytes>> {
        let Self { stream: Some(stream), side: Side::Http1(turn), held, end: end @ None, .. } = self else {
            return Poll::Ready(Err(ErrorKind::NotConnected.into()));
        };
        let message = match &mut turn.phase {
            Phase::Message(message) if turn.messages == number && !message.answered => message,
            _ => return Poll::Ready(Err(ErrorKind::NotConnected.into())),
        };
        ready!(poll_interim(stream, cx, message))?;
        if message.turn_bytes >= TURN_BYTES {
            message.turn_bytes = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // One byte more than there is to come: a read that brings less has taken all there was, and tells tokio so.
        let Poll::Ready(read) = pieces::poll_read(stream, cx, message.left + 1, owned) else {
            message.turn_bytes = 0;
            return Poll::Pending;
        };
        let mut chunk = read?;
        if chunk.is_empty() {
            *end = Some(End::Eof);
            return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
        }
        message.turn_bytes += chunk.len();
        let ours = message.walk(&chunk).map_err(|_| ErrorKind::InvalidData)?;
        held.extend_from_slice(&chunk.split_off(ours));
        Poll::Ready(Ok(chunk))
    }
}

fn owned(arrived: Arrived<'_>) -> Bytes {
    match arrived {
        Arrived::Few(bytes) => Bytes::copy_from_slice(bytes),
        Arrived::Many(chunk) => chunk,
    }
}

/// Tells a client that waits for it that its body is wanted.
fn poll_interim<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    message: &mut Message,
) -> Poll<io::Result<()>> {
    while !message.interim.is_empty() {
        match ready!(Pin::new(&mut *stream).poll_write(cx, message.interim))? {
            0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
            written => message.interim = message.interim.get(written..).unwrap_or_default(),
        }
    }
    Poll::Ready(Ok(()))
}
