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
}

impl Connection {
    pub(super) async fn open(endpoint: &Arc<Endpoint>, splice: Option<&Arc<Splice>>) -> io::Result<Self> {
        let (stream, slot) = Stream::connect(endpoint, splice).await?;
        let (stream, inbox, alarm) = (Rc::new(stream), Bytes::new(), Alarm::default());
        Ok(Self { stream, inbox, reused: false, alarm, slot, taken: 0 })
    }

    /// The stream, for a request that is still being sent while its answer is read.
    pub(super) fn stream(&self) -> Rc<Stream> {
        self.stream.clone()
    }

    /// Adds what has arrived to the inbox; returns how many bytes, 0 at the end of the stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let n = std::task::ready!(self.stream.poll_read(cx, scratch))?;
            self.taken += n as u64;
            let arrived = &scratch[..n];
            if self.inbox.is_empty() {
                self.inbox = Bytes::copy_from_slice(arrived);
            } else {
                let mut joined = BytesMut::with_capacity(self.inbox.len() + n);
                joined.extend_from_slice(&self.inbox);
                joined.extend_from_slice(arrived);
                self.inbox = joined.freeze();
            }
            Poll::Ready(Ok(n))
        })
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
