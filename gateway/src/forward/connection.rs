//! One connection to an engine: its stream, and the bytes that arrived but are not yet understood.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::stream::Stream;
use crate::alarm::Alarm;
use crate::endpoint::Endpoint;
use crate::kernel::splice::{Slot, Splice};

/// Bytes asked of the kernel at once.
const READ_SIZE: usize = 64 << 10;

thread_local! {
    /// Every read lands here first and is copied out at its true size: thousands of idle streams then hold no
    /// buffers, and a copy of one token event costs less than a reserved page would.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// Lends the worker's scratch. Not to be called within itself.
pub fn with_scratch<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| f(scratch))
}

#[derive(Debug)]
pub struct Connection {
    stream: Rc<Stream>,
    /// Received, not yet taken.
    pub inbox: Bytes,
    /// Whether an earlier request has used it: then its end before any byte of an answer is nobody's fault.
    pub reused: bool,
    /// For whatever is waited for on this connection.
    pub alarm: Alarm,
    /// `None`: its answers cannot be spliced.
    pub slot: Option<Slot>,
    taken: u64,
    /// Whether the last fill found nothing, so that its task is woken by what comes next.
    awaited: bool,
}

impl Connection {
    pub(super) async fn open(endpoint: &Arc<Endpoint>, splice: Option<&Arc<Splice>>) -> io::Result<Self> {
        let (stream, slot) = Stream::connect(endpoint, splice).await?;
        let (stream, inbox, alarm) = (Rc::new(stream), Bytes::new(), Alarm::default());
        Ok(Self { stream, inbox, reused: false, alarm, slot, taken: 0, awaited: false })
    }

    /// The stream, for a request that is still being sent while its answer is read.
    pub(super) fn stream(&self) -> Rc<Stream> {
        self.stream.clone()
    }

    /// Adds what has arrived to the inbox; returns how many bytes, 0 at the end of the stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        with_scratch(|scratch| {
            let n = std::task::ready!(self.poll_read(cx, scratch))?;
            self.keep(&scratch[..n]);
            Poll::Ready(Ok(n))
        })
    }

    /// Reads what has arrived into `scratch`: what of it is not done with at once is to be [kept](Self::keep).
    pub fn poll_read(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = self.stream.poll_read(cx, scratch);
        self.awaited = read.is_pending();
        let n = std::task::ready!(read)?;
        self.taken += n as u64;
        Poll::Ready(Ok(n))
    }

    /// Adds what was read to the inbox.
    pub fn keep(&mut self, arrived: &[u8]) {
        if self.inbox.is_empty() {
            self.inbox = Bytes::copy_from_slice(arrived);
        } else {
            let mut joined = BytesMut::with_capacity(self.inbox.len() + arrived.len());
            joined.extend_from_slice(&self.inbox);
            joined.extend_from_slice(arrived);
            self.inbox = joined.freeze();
        }
    }

    /// Whether `cx` waits for bytes and for the alarm already, and neither has come: asking again would change nothing.
    #[must_use]
    pub fn is_awaited(&self, cx: &Context<'_>) -> bool {
        self.awaited && self.alarm.wakes(cx) && self.stream.is_silent()
    }

    /// Bytes that were ever read from it.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether a kept connection can carry another request.
    pub(super) fn is_quiet(&self) -> bool {
        self.inbox.is_empty() && self.stream.is_quiet()
    }

    /// Ends the connection with a reset instead of an orderly close.
    pub fn reset(self) {
        self.stream.reset_on_close();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::endpoint::Address;

    /// Waits for the connection as a relay does; whether anything came.
    fn wait(connection: &mut Connection, cx: &mut Context<'_>, deadline: Instant) -> bool {
        connection.poll_fill(cx).is_ready() || connection.alarm.poll(cx, deadline).is_ready()
    }

    #[tokio::test]
    async fn who_waits_already_need_not_ask_again_until_something_comes() {
        let engine = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Arc::new(Endpoint::new(Address::Tcp(engine.local_addr().unwrap())));
        let mut connection = Connection::open(&endpoint, None).await.unwrap();
        let (mut accepted, _) = engine.accept().await.unwrap();
        let never = Instant::now() + Duration::from_secs(3600);
        let ask = async |connection: &mut Connection, deadline| {
            poll_fn(|cx| Poll::Ready((connection.is_awaited(cx), wait(connection, cx, deadline)))).await
        };

        assert_eq!(ask(&mut connection, never).await, (false, false));
        assert_eq!(ask(&mut connection, never).await, (true, false));
        assert!(!connection.is_awaited(&Context::from_waker(Waker::noop())));
        accepted.write_all(b"x").await.unwrap();
        // Woken, which nobody would be whose waiting had been forgotten.
        assert_eq!(poll_fn(|cx| connection.poll_fill(cx)).await.unwrap(), 1);
        assert_eq!(ask(&mut connection, never).await, (false, false));
        drop(accepted);
        while !poll_fn(|cx| Poll::Ready(!connection.is_awaited(cx))).await {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(ask(&mut connection, never).await, (false, true));
    }

    #[tokio::test]
    async fn who_waits_asks_again_when_time_is_up() {
        let engine = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Arc::new(Endpoint::new(Address::Tcp(engine.local_addr().unwrap())));
        let mut connection = Connection::open(&endpoint, None).await.unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        poll_fn(|cx| match connection.is_awaited(cx) {
            true => Poll::Pending,
            false if wait(&mut connection, cx, soon) => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        assert!(Instant::now() >= soon);
    }
}
