//! The client's body on its way to an engine: scanned, bounded, paced, replayable.
//!
//! Every byte passes the scanner before it may leave, and the last ones leave only after the scan has ended clean,
//! so an engine never holds a complete request that would be refused. Chunks go out as they came in, uncopied,
//! but for crumbs, which are joined.

mod body;
mod pace;
mod row;
mod splice;

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use self::body::BrokenOff;
pub use self::body::ClientBody;
use self::pace::Pace;
pub use self::row::Row;
use crate::admit::{Budget, Held};
use crate::failure::{Failure, Reason};
use crate::scan::{self, ModelValue, ScanError, ScanErrorKind, Scanner};

/// A body up to this size is scanned whole before any of it goes out.
pub const FIRST_WINDOW: u64 = 64 << 10;
/// Bytes already sent that are kept for another try.
const REPLAY_LIMIT: u64 = 1 << 20;

/// What the client's connection knows about it beside the body.
pub trait Sender {
    /// Why reading the body failed, if it was not for the client going away.
    fn fault(&self) -> Option<Failure>;
    /// Whether the client has left: asked while nothing is read from it, so that reading cannot tell.
    fn is_gone(&self) -> bool;
}

/// The body of one request.
pub struct Upload {
    /// `None` once its end has been read.
    client: Option<ClientBody>,
    scanner: Option<Scanner>,
    /// Whether a body without a model, or one that cannot have any, is routed all the same.
    optional: bool,
    sender: Rc<dyn Sender>,
    pace: Pace,
    /// The Content-Length that the client declared, and what becomes of it by a rewrite.
    declared: Option<u64>,
    outgoing: Option<u64>,
    received: u64,
    /// Bytes that the body may have.
    limit: u64,
    /// Scanned and ready to go out.
    window: Row,
    /// Counts the window and the replay against the process's budget.
    held: Held,
    /// Has gone out, kept for another try; empty when there cannot be one.
    sent: Row,
    sent_bytes: u64,
    /// Up to how many bytes sent are kept.
    replay_limit: u64,
}

/// How the engine is told where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Known(u64),
    Chunked,
}

impl Upload {
    pub fn new(
        body: ClientBody,
        scanner: Option<Scanner>,
        optional: bool,
        budget: &Budget,
        sender: Rc<dyn Sender>,
    ) -> Self {
        let declared = body.declared();
        let ended = body.is_ended();
        Self {
            client: (!ended).then_some(body),
            scanner,
            optional,
            sender,
            pace: Pace::new(declared),
            declared,
            outgoing: declared,
            received: 0,
            limit: u64::MAX,
            window: Row::default(),
            held: budget.hold(),
            sent: Row::default(),
            sent_bytes: 0,
            replay_limit: REPLAY_LIMIT,
        }
    }

    /// Bounds the time until the whole body is there.
    pub fn set_receive_timeout(&mut self, limit: Option<Duration>) {
        self.pace.set_limit(limit);
    }

    /// Reads until the request can be routed: a body within the first window to its end, a longer one until its
    /// model is known, within `buffer_limit` bytes.
    ///
    /// # Errors
    /// What the scanner refuses, a body that is too slow, and a model that is not known in time.
    pub fn poll_routable(&mut self, cx: &mut Context<'_>, buffer_limit: u64) -> Poll<Result<(), Failure>> {
        let window = FIRST_WINDOW.min(buffer_limit);
        if self.client.is_none() {
            self.end_scan()?;
        }
        while self.client.is_some() {
            let seen = match (&self.scanner, self.model()) {
                (None, _) => return Poll::Ready(Ok(())),
                (Some(_), None) => self.received,
                (Some(_), Some(model)) => model.span.end,
            };
            if seen > buffer_limit {
                return Poll::Ready(Err(model_too_late(buffer_limit)));
            }
            let longer = self.received >= window || self.declared.is_some_and(|declared| declared > window);
            if longer && self.model().is_some() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_receive(cx))?;
        }
        Poll::Ready(match self.model() {
            Some(model) if model.span.end > buffer_limit => Err(model_too_late(buffer_limit)),
            _ => Ok(()),
        })
    }

    /// The model, as soon as it is known.
    #[must_use]
    pub fn model(&self) -> Option<&ModelValue> {
        self.scanner.as_ref()?.model()
    }

    /// Whether the whole body has arrived.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.client.is_none()
    }

    /// Bytes received from the client so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bounds the body.
    ///
    /// # Errors
    /// When it is declared, or already found, to be larger.
    pub fn set_limit(&mut self, limit: u64) -> Result<(), Failure> {
        self.limit = limit;
        if self.declared.unwrap_or(0).max(self.received) > limit { Err(too_large(limit)) } else { Ok(()) }
    }

    /// Puts `name` in the place of the model. Only before anything went out.
    pub fn rewrite_model(&mut self, name: &str) {
        let Some(scanner) = &self.scanner else { return };
        let Some(model) = scanner.model() else { return };
        let (span, replacement) = (model.span.clone(), scan::splice(scanner.format(), name));
        if let Some(outgoing) = &mut self.outgoing {
            *outgoing = *outgoing - (span.end - span.start) + replacement.len() as u64;
        }
        self.window.edit(|chunks| splice::splice(chunks, span, replacement.into()));
    }

    /// How to frame what will go out.
    #[must_use]
    pub fn length(&self) -> Length {
        match self.outgoing {
            _ if self.is_whole() => Length::Known(self.unsent()),
            Some(outgoing) => Length::Known(outgoing),
            None => Length::Chunked,
        }
    }

    /// Whether another try could send the same bytes again.
    #[must_use]
    pub fn is_replayable(&self) -> bool {
        self.sent_bytes <= self.replay_limit
    }

    /// Whether the body may outgrow what is kept for another try.
    #[must_use]
    pub fn may_outgrow_replay(&self) -> bool {
        match self.length() {
            Length::Known(length) => length > REPLAY_LIMIT,
            Length::Chunked => true,
        }
    }

    /// Nothing sent is kept from now on: a long body then passes through one buffer that stays warm.
    pub fn forgo_replay(&mut self) {
        self.replay_limit = 0;
    }

    /// Takes everything sent back for another try; false where it is no longer there.
    pub fn rewind(&mut self) -> bool {
        if !self.is_replayable() {
            return false;
        }
        self.window.prepend(std::mem::take(&mut self.sent));
        self.sent_bytes = 0;
        true
    }

    /// The next bytes for the engine; `None` after the last. An error is the client's, and the engine must not
    /// be allowed to take what it has for a whole request.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            if !self.holds_back()
                && let Some(chunk) = self.window.pop()
            {
                self.keep_for_replay(&chunk);
                return Poll::Ready(Some(Ok(chunk)));
            }
            if self.client.is_none() {
                return Poll::Ready(None);
            }
            if let Err(failure) = ready!(self.poll_receive(cx)) {
                return Poll::Ready(Some(Err(failure)));
            }
        }
    }

    /// Whether the client left while more of its body is to come.
    ///
    /// # Errors
    /// `client_gone` if so.
    pub fn check_client(&self) -> Result<(), Failure> {
        if self.client.is_some() && self.sender.is_gone() { Err(client_gone()) } else { Ok(()) }
    }

    /// Takes one chunk from the client through the scanner into the window.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(client) = &mut self.client else { return Poll::Ready(Ok(())) };
        let chunk = match client.poll_chunk(cx) {
            Poll::Ready(chunk) => chunk,
            Poll::Pending => return self.pace.poll_slow(cx).map(Err),
        };
        Poll::Ready(match chunk {
            Some(Ok(chunk)) => self.receive(chunk),
            Some(Err(BrokenOff)) => Err(self.sender.fault().unwrap_or_else(client_gone)),
            None => {
                self.client = None;
                self.end_scan()
            }
        })
    }

    fn receive(&mut self, chunk: Bytes) -> Result<(), Failure> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.received += chunk.len() as u64;
        self.pace.received(chunk.len());
        if self.received > self.limit {
            return Err(too_large(self.limit));
        }
        self.scan(&chunk)?;
        self.held.add(chunk.len() as u64)?;
        self.window.push(chunk);
        // With a Content-Length over HTTP/1.1 the end is known with the last byte.
        if self.client.as_ref().is_some_and(ClientBody::is_ended) {
            self.client = None;
            self.end_scan()?;
        }
        Ok(())
    }

    /// Whether what is left would complete the body at the engine before its end, and so the verdict, has come:
    /// over HTTP/2 the last byte and the end of the stream may come apart.
    fn holds_back(&self) -> bool {
        self.client.is_some() && self.declared == Some(self.received) && self.window.is_one_chunk()
    }

    fn scan(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        let Some(scanner) = &mut self.scanner else { return Ok(()) };
        let before = self.received - chunk.len() as u64;
        match scanner.push(chunk) {
            // A JSON array has no top-level model that any reader could find.
            Err(e) if self.optional && e.kind == ScanErrorKind::NotAnObject && is_array(chunk, e, before) => {
                self.scanner = None;
                Ok(())
            }
            scanned => scanned.map_err(scan_failure),
        }
    }

    fn end_scan(&mut self) -> Result<(), Failure> {
        let Some(scanner) = &mut self.scanner else { return Ok(()) };
        match scanner.finish() {
            Err(e) if self.optional && e.kind == ScanErrorKind::NotAnObject && is_blank(e, self.received) => {
                Ok(())
            }
            finished => finished.map_err(scan_failure),
        }
    }

    fn keep_for_replay(&mut self, chunk: &Bytes) {
        self.sent_bytes += chunk.len() as u64;
        if self.is_replayable() {
            self.sent.push(chunk.clone());
        } else {
            let kept = std::mem::take(&mut self.sent);
            self.held.release((kept.bytes() + chunk.len()) as u64);
        }
    }

    fn unsent(&self) -> u64 {
        self.window.bytes() as u64
    }
}

/// Whether the body begins with `[`: what the scanner stumbled over in this chunk.
fn is_array(chunk: &[u8], e: ScanError, before: u64) -> bool {
    let at = usize::try_from(e.offset.saturating_sub(before)).unwrap_or(usize::MAX);
    chunk.get(at) == Some(&b'[')
}

/// Whether the body ended without anything in it but white space.
fn is_blank(e: ScanError, received: u64) -> bool {
    e.offset == received
}

/// What the scanner refused, as the client is told.
pub fn scan_failure(e: ScanError) -> Failure {
    Failure::new(e.kind.reason(), e.to_string())
}

fn client_gone() -> Failure {
    Failure::new(Reason::ClientGone, "the client went away before its request was complete")
}

fn too_large(limit: u64) -> Failure {
    Failure::new(
        Reason::BodyTooLarge,
        format!("the request body is larger than the {limit} bytes allowed here (requestBuffer.limit)"),
    )
}

fn model_too_late(limit: u64) -> Failure {
    Failure::new(
        Reason::ModelTooLate,
        format!(
            "no top-level \"model\" within the first {limit} bytes of the body (bufferLimit); send it earlier"
        ),
    )
}
