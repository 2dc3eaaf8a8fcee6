//! The body of every response, an engine's or one of our own, and the closing of its entry.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::Relay;
use crate::failure::{Failure, Reason, request_timeout};
use crate::ledger::Entry;

/// What a connection that takes bytes at all needs to take the last ones.
const PARTING: Duration = Duration::from_millis(20);

/// The client's side of a response.
pub trait Downstream {
    /// The response is over; `cut`: broken off after its head had gone out.
    fn over(&self, cut: bool);
    /// Whether the drain is out of time, so that what is dropped now is cut by us.
    fn is_ended(&self) -> bool;
}

/// The body of a response.
pub struct Answer {
    inner: Rc<RefCell<Inner>>,
    /// Ends with the response.
    guard: Option<AbortHandle>,
}

/// Who takes an [`Answer`] over from hyper.
#[derive(Default)]
pub struct Heir(Weak<RefCell<Inner>>);

struct Inner {
    source: Source,
    /// `None` once it is closed.
    entry: Option<Entry>,
    downstream: Rc<dyn Downstream>,
    parting: Option<Parting>,
    /// When the client's side last took something; kept where [`Answer::guard`] watches.
    taken: Option<Instant>,
}

enum Source {
    Own(Bytes),
    Engine(Box<Relay>),
    /// Given up before its end.
    Cut,
}

/// A failure that waits for the bytes before it: hyper drops what it has not yet written when a body fails.
struct Parting {
    failure: Failure,
    until: Pin<Box<Sleep>>,
}

/// Bounds on a response whose client may stop taking it, unseen by the body: hyper asks for no more then.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The client takes nothing for so long.
    pub stall: Duration,
    /// When the whole exchange must be over.
    pub deadline: Option<Instant>,
}

impl Answer {
    /// An answer of the gateway itself.
    #[must_use]
    pub fn own(body: Bytes, entry: Entry, downstream: Rc<dyn Downstream>) -> Self {
        Self::new(Source::Own(body), entry, downstream)
    }

    /// An engine's answer.
    #[must_use]
    pub fn engine(relay: Box<Relay>, entry: Entry, downstream: Rc<dyn Downstream>) -> Self {
        Self::new(Source::Engine(relay), entry, downstream)
    }

    fn new(source: Source, entry: Entry, downstream: Rc<dyn Downstream>) -> Self {
        let inner = Inner { source, entry: Some(entry), downstream, parting: None, taken: None };
        Self { inner: Rc::new(RefCell::new(inner)), guard: None }
    }

    /// What may take the rest of it over from hyper.
    #[must_use]
    pub fn heir(&self) -> Heir {
        Heir(Rc::downgrade(&self.inner))
    }

    /// Watches the bounds from outside. For HTTP/2, where a stream without window is not asked for its body; the
    /// writes of an HTTP/1.1 connection are watched by the gate.
    pub fn guard(&mut self, bounds: Bounds) {
        self.inner.borrow_mut().taken = Some(Instant::now());
        let watched = Rc::downgrade(&self.inner);
        self.guard = Some(spawn_local(guard(watched, bounds)).abort_handle());
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.inner.borrow_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.borrow().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner.borrow().source {
            Source::Own(body) => SizeHint::with_exact(body.len() as u64),
            // The engine's own Content-Length is among the header fields, where hyper looks first.
            Source::Engine(_) | Source::Cut => SizeHint::default(),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(guard) = &self.guard {
            guard.abort();
        }
        // Otherwise it was taken over.
        if Rc::strong_count(&self.inner) == 1 {
            self.inner.borrow_mut().close();
        }
    }
}

impl Heir {
    /// The rest of the answer, once hyper has written all that it was given of it and is no longer needed: it is to be dropped,
    /// and with it what it has of the answer.
    #[must_use]
    pub fn take(&self) -> Option<Answer> {
        let inner = self.0.upgrade()?;
        let is_ready = match &*inner.borrow() {
            Inner { source: Source::Engine(relay), entry: Some(_), parting: None, .. } => {
                relay.needs_no_hyper()
            }
            _ => false,
        };
        is_ready.then_some(Answer { inner, guard: None })
    }
}

impl Inner {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if let Some(parting) = &mut self.parting {
            ready!(parting.until.as_mut().poll(cx));
            return Poll::Ready(Some(Err(parting.failure.clone())));
        }
        let Some(entry) = &mut self.entry else { return Poll::Ready(None) };
        if let Some(taken) = &mut self.taken {
            *taken = Instant::now();
        }
        let frame = match &mut self.source {
            Source::Own(body) if body.is_empty() => None,
            Source::Own(body) => Some(Ok(Frame::data(std::mem::take(body)))),
            Source::Engine(relay) => ready!(relay.poll_frame(cx, entry)),
            Source::Cut => None,
        };
        match frame {
            Some(Ok(frame)) => {
                entry.bytes_out += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(failure)) => {
                self.cut(failure);
                self.poll_frame(cx)
            }
            None => {
                entry.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(body) => body.is_empty(),
            Source::Engine(relay) => relay.is_over(),
            Source::Cut => false,
        }
    }

    /// Gives the response up: the engine is freed and the client's side told at once, its body fails when asked.
    fn cut(&mut self, failure: Failure) {
        if let Some(entry) = &mut self.entry {
            entry.fail(failure.reason);
        }
        self.parting = Some(Parting { failure, until: Box::pin(sleep(PARTING)) });
        self.end(true);
    }

    /// The response is dropped, whole or not.
    fn close(&mut self) {
        // hyper asks no further when the length is reached or there is no body to send.
        if self.is_end_stream()
            && let Some(entry) = &mut self.entry
        {
            entry.finish();
        }
        let cut = !self.is_end_stream() && self.downstream.is_ended();
        if cut && let Some(entry) = &mut self.entry {
            entry.fail(Reason::Draining);
        }
        self.end(cut);
    }

    fn end(&mut self, cut: bool) {
        let Some(mut entry) = self.entry.take() else { return };
        if let Source::Engine(relay) = &mut self.source {
            relay.settle(&mut entry);
        }
        if !self.is_end_stream() {
            self.source = Source::Cut;
        }
        drop(entry);
        self.downstream.over(cut);
    }
}

async fn guard(watched: Weak<RefCell<Inner>>, bounds: Bounds) {
    loop {
        let Some(inner) = watched.upgrade() else { return };
        let Some(taken) = inner.borrow().taken else { return };
        let stalled_at = taken + bounds.stall;
        let next = bounds.deadline.map_or(stalled_at, |deadline| deadline.min(stalled_at));
        if Instant::now() >= next {
            let failure = if next == stalled_at {
                Failure::new(Reason::ClientGone, "the client took nothing of its answer for too long")
            } else {
                request_timeout()
            };
            return inner.borrow_mut().cut(failure);
        }
        drop(inner);
        sleep_until(next).await;
    }
}
