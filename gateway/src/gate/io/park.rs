//! A connection between two requests, without hyper: after a second of silence its two buffers and its state go, and
//! come back with the first byte of the next head. The deadlines and all that tells of the client stay.

use std::future::poll_fn;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::read::Stop;
use super::{Gate, GateIo, Inner, Side};

/// A client with more to ask has most often asked by then; what hyper holds is made anew in a microsecond or two.
const PARK_AFTER: Duration = Duration::from_secs(1);

impl<S: AsyncRead + AsyncWrite + AsFd + Unpin> Gate<S> {
    /// Ready when hyper has waited for a head of HTTP/1.1 for a while and holds nothing of this connection: it may be
    /// dropped. To be polled by the task that polls hyper, behind it.
    pub async fn quiet(&self) {
        poll_fn(|_| if self.0.borrow().is_quiet() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Waits, in the place of hyper that was dropped, until there is something to read for a new one; `None`: the
    /// connection is over.
    pub async fn next_io(&self) -> Option<GateIo<S>> {
        let spoke = poll_fn(|cx| self.0.borrow_mut().poll_parked(cx)).await;
        spoke.then(|| GateIo(self.0.clone()))
    }
}

impl<S: AsyncRead + AsyncWrite + AsFd + Unpin> Inner<S> {
    /// Waits for [`Gate::quiet`], without a byte of a head; behind it only the connection's own deadline remains.
    pub(super) fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle_since = self.deadline.checked_sub(self.limits.idle_timeout);
        let quiet_at = idle_since.map_or(self.deadline, |since| self.deadline.min(since + PARK_AFTER));
        self.alarm.poll(cx, quiet_at)
    }

    pub(super) fn is_quiet(&self) -> bool {
        matches!(&self.side, Side::Http1(turn) if turn.quiet)
    }

    pub(super) fn set_quiet(&mut self, quiet: bool) {
        if let Side::Http1(turn) = &mut self.side {
            turn.quiet = quiet;
        }
    }

    fn poll_parked(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match ready!(self.poll_head(cx)) {
            Ok(()) => return Poll::Ready(true),
            Err(Stop::End(end)) => self.end = Some(end),
            Err(Stop::Broken(_)) => {}
        }
        Poll::Ready(false)
    }
}
