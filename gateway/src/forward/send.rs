//! A request going out: its head and whatever of its body may go, as few writes as the socket takes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::time::{Instant, Sleep, sleep};

use super::stream::Stream;
use crate::failure::Failure;
use crate::upload::{Length, Row, Upload};

/// Slices given to the kernel in one call.
const SLICES: usize = 32;
/// Bytes queued before they are written; more are read from the client only when these have gone.
const QUEUE_BYTES: usize = 256 << 10;
/// How often a client is looked after while its engine takes nothing: nothing is read from it then.
const LOOK: Duration = Duration::from_millis(100);

/// A request on its way to an engine. Polled beside the answer: an engine may answer before it has everything.
pub struct Sending {
    stream: Rc<Stream>,
    upload: Rc<RefCell<Upload>>,
    chunked: bool,
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Whether the body's last bytes are in the queue, and the chunk behind them.
    ended: bool,
    terminated: bool,
    last_written: Option<Instant>,
    look: Option<Pin<Box<Sleep>>>,
}

/// Why a request did not go out whole.
#[derive(Debug)]
pub enum SendError {
    /// The client's body was refused or broke off: the engine must be reset.
    Body(Failure),
    /// The engine's connection broke.
    Engine,
}

impl Sending {
    pub(super) fn new(stream: Rc<Stream>, head: Bytes, upload: Rc<RefCell<Upload>>) -> Self {
        let chunked = upload.borrow().length() == Length::Chunked;
        let queued = head.len();
        // Room for a small request: its head, its body, and the end of a chunked one.
        let mut queue = VecDeque::with_capacity(4);
        queue.push_back(head);
        Self {
            stream,
            upload,
            chunked,
            queue,
            queued,
            ended: false,
            terminated: false,
            last_written: None,
            look: None,
        }
    }

    /// Whether the engine is what is waited for: it has not taken what is queued.
    pub fn waits_for_engine(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Bytes of the body received from the client so far.
    pub fn received(&self) -> u64 {
        self.upload.borrow().received()
    }

    /// When the engine last took something.
    pub fn last_written(&self) -> Option<Instant> {
        self.last_written
    }

    /// Ready when the engine's socket has taken the last byte.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        loop {
            if let Err(failure) = self.fill(cx) {
                return Poll::Ready(Err(SendError::Body(failure)));
            }
            if self.queue.is_empty() {
                return if self.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            match self.write(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(SendError::Engine)),
                Poll::Pending => return self.poll_client(cx).map(|failure| Err(SendError::Body(failure))),
            }
        }
    }

    /// Queues what the upload has, up to the queue's bound; as one chunk where the body is chunked.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let mut ready = Row::default();
        while !self.ended && self.queued + ready.bytes() < QUEUE_BYTES {
            match self.upload.borrow_mut().poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(chunk)) => ready.push(chunk?),
                Poll::Ready(None) => self.ended = true,
            }
        }
        let framed = self.chunked && !ready.is_empty();
        if framed {
            self.enqueue(format!("{:x}\r\n", ready.bytes()).into());
        }
        while let Some(chunk) = ready.pop() {
            self.enqueue(chunk);
        }
        if framed {
            self.enqueue(Bytes::from_static(b"\r\n"));
        }
        if self.chunked && self.ended && !self.terminated {
            self.terminated = true;
            self.enqueue(Bytes::from_static(b"0\r\n\r\n"));
        }
        Ok(())
    }

    fn enqueue(&mut self, bytes: Bytes) {
        self.queued += bytes.len();
        self.queue.push_back(bytes);
    }

    /// Ready when the client has left although the engine takes nothing more.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            let look = self.look.get_or_insert_with(|| Box::pin(sleep(LOOK)));
            std::task::ready!(look.as_mut().poll(cx));
            if let Err(failure) = self.upload.borrow().check_client() {
                return Poll::Ready(failure);
            }
            self.look = None;
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = self.queue.len().min(SLICES);
        for (slice, chunk) in slices.iter_mut().zip(&self.queue) {
            *slice = IoSlice::new(chunk);
        }
        let mut written = std::task::ready!(self.stream.poll_write(cx, &slices[..count]))?;
        self.queued -= written;
        self.last_written = Some(Instant::now());
        while let Some(front) = self.queue.front_mut() {
            if written < front.len() {
                front.advance(written);
                break;
            }
            written -= front.len();
            self.queue.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}
