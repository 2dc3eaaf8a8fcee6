//! The IO type under hyper, and the handle to it that the serving code keeps.
//!
//! [`GateIo`] reads the socket, [`Gate`] is told when a response is over and asked why a connection failed. Both
//! live on one worker's thread. An idle connection holds no buffer: the socket is read into memory of the worker,
//! from which hyper's buffer is filled; only a head in the making and bytes behind the end of a message are held per
//! connection. [Bodies of declared length](body) never reach hyper, and its own buffers go when it [parks](park).

mod body;
mod finish;
mod http1;
mod http2;
mod park;
mod past;
mod pieces;
mod read;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use ::hyper::rt::{Read, ReadBufCursor, Write};
use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Sleep, timeout_at};

pub use self::body::DeclaredBody;
use self::http1::Turn;
use self::http2::Frames;
pub use self::pieces::sweep as sweep_pieces;
use crate::alarm::Alarm;
use crate::failure::{Dialect, Failure};

/// What every HTTP/2 client says first (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// For the first byte of a connection: one that never says anything takes the place of one that would.
const FIRST_BYTE: Duration = Duration::from_secs(60);

/// The deadlines of a connection.
#[derive(Clone, Copy, Debug)]
pub struct GateLimits {
    /// From the first byte of a head, preface or control frame to its last.
    pub head_timeout: Duration,
    /// Without a request in flight or on its way.
    pub idle_timeout: Duration,
    /// For a client that takes nothing of its answer.
    pub stall_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    /// With prior knowledge: the client began with the preface.
    Http2,
}

/// What hyper reads from and writes to.
pub struct GateIo<S>(Rc<RefCell<Inner<S>>>);

/// The serving code's handle to a connection.
pub struct Gate<S>(Rc<RefCell<Inner<S>>>);

struct Inner<S> {
    /// `None` once the connection is finished.
    stream: Option<S>,
    limits: GateLimits,
    side: Side,
    /// Received and not yet handed to hyper.
    held: BytesMut,
    deadline: Instant,
    alarm: Alarm,
    /// Runs while the client takes nothing of what is written.
    stall: Option<Pin<Box<Sleep>>>,
    /// When a client that takes nothing is given up at the latest.
    write_by: Option<Instant>,
    /// Whom to wake when the turn of the next request may have come.
    reader: Option<Waker>,
    /// How often all that hyper had was written.
    flushes: u64,
    flush_awaited: bool,
    end: Option<End>,
}

enum Side {
    Http1(Turn),
    Http2(Frames),
}

/// Why nothing more is read.
#[derive(Clone, Debug)]
enum End {
    /// The client closed its side.
    Eof,
    /// The client sends a body that nobody reads any more.
    Unread,
    Idle,
    /// A head that is refused, with the dialect of its path.
    Refused(Failure, Dialect),
    /// A body that breaks its framing.
    Fault(Failure),
    Http2(http2::Violation),
}

impl<S> Clone for Gate<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gate<S> {
    /// Waits for the first bytes and tells HTTP/1.1 from HTTP/2 by them. `None`: the client left or stayed silent.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn detect(
        mut stream: S,
        limits: GateLimits,
    ) -> io::Result<Option<(Protocol, GateIo<S>, Self)>> {
        let mut held = BytesMut::with_capacity(4 << 10);
        let idle_at = Instant::now() + limits.idle_timeout.min(FIRST_BYTE);
        match timeout_at(idle_at, stream.read_buf(&mut held)).await.ok().transpose()? {
            Some(1..) => {}
            Some(0) | None => return Ok(None),
        }
        let deadline = Instant::now() + limits.head_timeout;
        let mut end = None;
        while held.len() < PREFACE.len() && PREFACE.starts_with(&held) {
            match timeout_at(deadline, stream.read_buf(&mut held)).await.ok().transpose()? {
                Some(1..) => {}
                Some(0) => return Ok(None),
                None => {
                    end = Some(End::Refused(http1::head_slow(), Dialect::default()));
                    break;
                }
            }
        }
        let (protocol, side) = if held.starts_with(PREFACE) {
            (Protocol::Http2, Side::Http2(Frames::new(Instant::now())))
        } else {
            (Protocol::Http1, Side::Http1(Turn::default()))
        };
        let (stream, alarm, stall, reader) = (Some(stream), Alarm::default(), None, None);
        let (write_by, flushes, flush_awaited) = (None, 0, false);
        let inner = Inner {
            stream,
            limits,
            side,
            held,
            deadline,
            alarm,
            stall,
            write_by,
            reader,
            flushes,
            flush_awaited,
            end,
        };
        let inner = Rc::new(RefCell::new(inner));
        Ok(Some((protocol, GateIo(inner.clone()), Self(inner))))
    }

    /// A request of this connection is in flight.
    pub fn opened(&self) {
        if let Side::Http2(frames) = &mut self.0.borrow_mut().side {
            frames.in_flight += 1;
        }
    }

    /// The response to a request is over: its body was read to the end or given up. On HTTP/1.1 this lets the
    /// next request in.
    pub fn answered(&self) {
        let mut inner = self.0.borrow_mut();
        match &mut inner.side {
            Side::Http1(turn) => turn.answered(),
            Side::Http2(frames) => {
                frames.in_flight = frames.in_flight.saturating_sub(1);
                frames.active = Instant::now();
            }
        }
        inner.wake_reader();
    }

    /// Whether nothing of a request is here, in flight or on its way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let inner = self.0.borrow();
        match &inner.side {
            Side::Http1(turn) => inner.held.is_empty() && turn.is_idle(),
            Side::Http2(frames) => inner.held.is_empty() && frames.is_idle(),
        }
    }

    /// Bounds the writing of the current response: hyper does not ask a body for more while the client takes
    /// nothing, so that the body cannot keep this deadline.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        self.0.borrow_mut().write_by = deadline;
    }

    /// How often everything that hyper held was written to the socket: what it got before the last time is there.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.0.borrow().flushes
    }

    /// Has the connection's task polled again once everything that hyper holds is written to the socket.
    pub fn wake_when_flushed(&self) {
        self.0.borrow_mut().flush_awaited = true;
    }

    /// The head that was refused, to be answered in [`finish`](Self::finish): hyper never saw it.
    #[must_use]
    pub fn refusal(&self) -> Option<(Failure, Dialect)> {
        match &self.0.borrow().end {
            Some(End::Refused(failure, dialect)) => Some((failure.clone(), *dialect)),
            _ => None,
        }
    }

    /// Why the body of the current request broke off, where the client sent what is no body. Without a fault, a
    /// client whose body broke off is gone.
    #[must_use]
    pub fn fault(&self) -> Option<Failure> {
        match &self.0.borrow().end {
            Some(End::Fault(failure)) => Some(failure.clone()),
            _ => None,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + AsFd + Unpin> Gate<S> {
    /// Ready when the client has left before its answer was over: what is done for it may be dropped. For HTTP/1.1; to be
    /// polled by the task that polls hyper, behind it.
    pub async fn left(&self) {
        poll_fn(|cx| self.0.borrow_mut().poll_left(cx)).await;
    }
}

impl<S> Inner<S> {
    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// All that there was to write is in the socket.
    fn flushed(&mut self) {
        self.flushes += 1;
        if let Side::Http1(turn) = &mut self.side
            && turn.flushed()
        {
            self.wake_reader();
        }
    }

    /// Whether the client has closed its side, also behind bytes that were not read.
    fn is_gone(&self) -> bool
    where
        S: AsFd,
    {
        let Some(stream) = &self.stream else { return true };
        let mut asked = [PollFd::new(stream, PollFlags::RDHUP)];
        // Where asking fails, the next read or write says what there is to say.
        poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    fn stream(&mut self) -> io::Result<Pin<&mut S>>
    where
        S: Unpin,
    {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// What became of a write; an error when the client has taken nothing for too long.
    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let Self { limits, stall, write_by, .. } = self;
        let stall = stall.get_or_insert_with(|| {
            let stalled = Instant::now() + limits.stall_timeout;
            Box::pin(tokio::time::sleep_until(write_by.map_or(stalled, |by| by.min(stalled))))
        });
        stall.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl End {
    /// What hyper is told: that the client is gone, or that the connection is broken.
    fn report(&self) -> io::Result<()> {
        let text = match self {
            Self::Eof | Self::Unread | Self::Idle => return Ok(()),
            Self::Refused(failure, _) | Self::Fault(failure) => failure.to_string(),
            Self::Http2(violation) => violation.to_string(),
        };
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }
}

impl<S: AsyncRead + AsyncWrite + AsFd + Unpin> Read for GateIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(cx, out)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Write for GateIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        let written = inner.stream()?.poll_write(cx, bytes);
        let written = ready!(inner.poll_written(cx, written))?;
        if let Side::Http2(frames) = &mut inner.side {
            frames.outbound(bytes.get(..written).unwrap_or(bytes));
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        let written = inner.stream()?.poll_write_vectored(cx, slices);
        let written = ready!(inner.poll_written(cx, written))?;
        if let Side::Http2(frames) = &mut inner.side {
            let mut left = written;
            for slice in slices {
                let bytes = &slice[..left.min(slice.len())];
                frames.outbound(bytes);
                left -= bytes.len();
            }
        }
        Poll::Ready(Ok(written))
    }

    /// hyper flushes the stream once its own buffer is empty, so this also says that a response is on its way.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.stream()?.poll_flush(cx))?;
        if std::mem::take(&mut inner.flush_awaited) {
            cx.waker().wake_by_ref();
        }
        inner.flushed();
        Poll::Ready(Ok(()))
    }

    /// Flushes only: [`Gate::finish`] closes, when the last words are out.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
