//! Reading: the socket into hyper's buffer, through the rules of either protocol and under their deadlines.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::hyper::rt::ReadBufCursor;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::http1::{self, Phase, Turn};
use super::pieces::{self, Arrived};
use super::{End, Inner, Side};

/// What one read takes from a socket at most.
const READ_BYTES: usize = 64 << 10;
/// And while a head is waited for: a body of 64 KiB with its head. What is here of more than one message is held.
const HEAD_READ_BYTES: u64 = 80 << 10;
/// Of a large read that begins with a head: most heads are shorter, and what is behind them is not copied.
const HEAD_BYTES: usize = 4 << 10;
/// Bytes behind the message in flight that are held before the socket is left alone. Beyond that a client that
/// leaves is noticed only once its answer is written.
const HELD_BYTES: usize = 64 << 10;

/// How often the socket is asked for a hang-up when nothing more is read from it.
const LOOK: Duration = Duration::from_millis(50);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

impl<S: AsyncRead + AsyncWrite + AsFd + Unpin> Inner<S> {
    /// hyper's read: no bytes and no error mean that the client is gone.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mut out: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.is_none() {
            let polled = match self.side {
                Side::Http1(_) => self.poll_http1(cx, &mut out),
                Side::Http2(_) => self.poll_http2(cx, &mut out),
            };
            match ready!(polled) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(Stop::Broken(error)) => return Poll::Ready(Err(error)),
                Err(Stop::End(end)) => self.end = Some(end),
            }
        }
        Poll::Ready(self.end.as_ref().map_or(Ok(()), End::report))
    }

    fn poll_http1(&mut self, cx: &mut Context<'_>, out: &mut ReadBufCursor<'_>) -> Poll<Result<(), Stop>> {
        loop {
            let Side::Http1(turn) = &mut self.side else { return Poll::Ready(Ok(())) };
            if turn.released > 0 {
                turn.released -= hand_over(&mut self.held, turn.released, out);
                return Poll::Ready(Ok(()));
            }
            match &mut turn.phase {
                Phase::Head(_) => match turn.release_head(&mut self.held) {
                    Ok(true) => continue,
                    Ok(false) => ready!(self.poll_head(cx))?,
                    Err((failure, dialect)) => {
                        return Poll::Ready(Err(End::Refused(failure, dialect).into()));
                    }
                },
                Phase::Message(message) if message.is_over() => {
                    turn.phase = Phase::default();
                    let wait = if self.held.is_empty() {
                        self.limits.idle_timeout
                    } else {
                        self.limits.head_timeout
                    };
                    self.deadline = Instant::now() + wait;
                }
                Phase::Message(message) if message.framing.is_done() => match self.poll_behind(cx) {
                    Poll::Ready(read) => read?,
                    Poll::Pending => {
                        self.reader = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                },
                Phase::Message(message) if message.left > 0 => {
                    if !message.is_answered() {
                        self.reader = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                    ready!(self.poll_unread(cx))?;
                }
                Phase::Message(message) if !self.held.is_empty() => {
                    turn.released = message.walk(&self.held).map_err(End::Fault)?;
                }
                Phase::Message(_) => return self.poll_body(cx, out),
            }
        }
    }

    /// Reads more of a head, under the deadline of its first byte or, before that, of an idle connection.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let was_empty = self.held.is_empty();
        if let Poll::Ready(read) = self.poll_hold_head(cx) {
            read?;
            if was_empty {
                self.deadline = Instant::now() + self.limits.head_timeout;
                self.set_quiet(false);
            }
            return Poll::Ready(Ok(()));
        }
        if was_empty {
            // Nothing to keep the memory of the last head for.
            self.held = BytesMut::new();
            if !self.is_quiet() {
                ready!(self.poll_quiet(cx));
                self.set_quiet(true);
            }
        }
        ready!(self.alarm.poll(cx, self.deadline));
        Poll::Ready(Err(if was_empty {
            End::Idle.into()
        } else {
            End::Refused(http1::head_slow(), http1::dialect(&self.held)).into()
        }))
    }

    /// Reads body bytes straight on to hyper, and holds what comes behind the body.
    fn poll_body(&mut self, cx: &mut Context<'_>, out: &mut ReadBufCursor<'_>) -> Poll<Result<(), Stop>> {
        let Self { stream, side: Side::Http1(turn), held, .. } = self else { return Poll::Ready(Ok(())) };
        let Phase::Message(message) = &mut turn.phase else { return Poll::Ready(Ok(())) };
        poll_scratch(stream, cx, out.remaining(), |bytes| {
            let (ours, behind) = bytes.split_at(message.walk(bytes).map_err(End::Fault)?);
            out.put_slice(ours);
            held.extend_from_slice(behind);
            Ok(())
        })
    }

    /// An answer is over before the body that it answers: what is here of that body is dropped, and where it does not end
    /// it, the connection does.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let Self { stream, side: Side::Http1(turn), held, .. } = self else { return Poll::Ready(Ok(())) };
        let Phase::Message(message) = &mut turn.phase else { return Poll::Ready(Ok(())) };
        let dropped = poll_scratch(stream, cx, READ_BYTES, |bytes| {
            let (_, behind) = bytes.split_at(message.walk(bytes).map_err(End::Fault)?);
            held.extend_from_slice(behind);
            Ok(())
        });
        match dropped {
            Poll::Ready(Err(stop)) => Poll::Ready(Err(stop)),
            _ if turn.is_idle() => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(End::Unread.into())),
        }
    }

    /// Ready when the client has left before its answer was over; with a half-closed connection it is taken as gone.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.end.is_some() || !self.is_behind() {
            return Poll::Pending;
        }
        loop {
            match ready!(self.poll_behind(cx)) {
                Ok(()) => continue,
                Err(Stop::End(end)) => self.end = Some(end),
                Err(Stop::Broken(_)) => {}
            }
            return Poll::Ready(());
        }
    }

    /// Whether the socket's next bytes are behind the message in flight.
    fn is_behind(&self) -> bool {
        match &self.side {
            Side::Http1(Turn { released: 0, phase: Phase::Message(message), .. }) => {
                message.framing.is_done() && !message.is_over()
            }
            _ => false,
        }
    }

    /// The request is whole and its response is not: reads on to notice a client that leaves.
    fn poll_behind(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let room = HELD_BYTES.saturating_sub(self.held.len());
        if room > 0
            && let Poll::Ready(read) = self.poll_hold(cx, room)
        {
            return Poll::Ready(read);
        }
        if room == 0 {
            // Nothing is read any more, so reading cannot tell that the client left.
            self.deadline = self.deadline.min(Instant::now() + LOOK);
            while self.alarm.poll(cx, self.deadline).is_ready() {
                if self.is_gone() {
                    return Poll::Ready(Err(End::Eof.into()));
                }
                self.deadline = Instant::now() + LOOK;
            }
        }
        if self.held.is_empty() {
            // A stream of an hour does not need the memory of its request.
            self.held = BytesMut::new();
        }
        Poll::Pending
    }

    fn poll_hold_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let Self { stream: Some(stream), side: Side::Http1(turn), held, .. } = self else {
            return Poll::Ready(Err(End::Eof.into()));
        };
        let some = ready!(pieces::poll_read(stream, cx, HEAD_READ_BYTES, |arrived| match arrived {
            Arrived::Few(bytes) => {
                held.extend_from_slice(bytes);
                !bytes.is_empty()
            }
            Arrived::Many(mut chunk) => {
                held.extend_from_slice(&chunk.split_to(HEAD_BYTES));
                turn.behind = chunk;
                true
            }
        }))?;
        Poll::Ready(if some { Ok(()) } else { Err(End::Eof.into()) })
    }

    fn poll_hold(&mut self, cx: &mut Context<'_>, at_most: usize) -> Poll<Result<(), Stop>> {
        let Self { stream, held, .. } = self;
        poll_scratch(stream, cx, at_most, |bytes| {
            held.extend_from_slice(bytes);
            Ok(())
        })
    }

    fn poll_http2(&mut self, cx: &mut Context<'_>, out: &mut ReadBufCursor<'_>) -> Poll<Result<(), Stop>> {
        let Self { stream, side: Side::Http2(frames), held, .. } = self else { return Poll::Ready(Ok(())) };
        if !held.is_empty() {
            let length = held.len().min(out.remaining());
            frames.inbound(&held[..length], Instant::now()).map_err(End::Http2)?;
            hand_over(held, length, out);
            return Poll::Ready(Ok(()));
        }
        let read = poll_scratch(stream, cx, out.remaining(), |bytes| {
            frames.inbound(bytes, Instant::now()).map_err(End::Http2)?;
            out.put_slice(bytes);
            Ok(())
        });
        if read.is_ready() {
            return read;
        }
        let deadline = frames.deadline(&self.limits);
        if let Some((deadline, end)) = deadline {
            ready!(self.alarm.poll(cx, deadline));
            return Poll::Ready(Err(end.into()));
        }
        // Answering the last request starts the idle time.
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Why a read brought nothing.
pub(super) enum Stop {
    Broken(io::Error),
    End(End),
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Reads at most `at_most` bytes and passes them to `take`. The end of the stream is [`End::Eof`].
fn poll_scratch<S: AsyncRead + Unpin>(
    stream: &mut Option<S>,
    cx: &mut Context<'_>,
    at_most: usize,
    take: impl FnOnce(&[u8]) -> Result<(), Stop>,
) -> Poll<Result<(), Stop>> {
    let Some(stream) = stream else { return Poll::Ready(Err(End::Eof.into())) };
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(&mut scratch[..at_most.min(READ_BYTES)]);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(if buffer.filled().is_empty() { Err(End::Eof.into()) } else { take(buffer.filled()) })
    })
}

/// Moves up to `at_most` bytes from the front of `held`; how many it were.
fn hand_over(held: &mut BytesMut, at_most: usize, out: &mut ReadBufCursor<'_>) -> usize {
    let length = at_most.min(out.remaining()).min(held.len());
    out.put_slice(&held[..length]);
    held.advance(length);
    length
}
