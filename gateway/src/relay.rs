//! An engine's answer on its way to the client: bytes as they come, never joined, never delayed.

pub mod tap;

mod patience;

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use penstock_common::framing::{Framing, MAX_TRAILER_FIELDS, Piece};
use tokio::time::{Instant, Sleep, sleep};

use self::patience::Patience;
use self::tap::Tap;
use crate::endpoint::Lease;
use crate::failure::{Failure, Reason};
use crate::forward::{Connection, Connections, SendError, Sending};
use crate::gate::fields::strip_trailers;
use crate::ledger::Entry;

pub use self::patience::{Limits, request_timeout};

/// The body of every response: an engine's, or one of our own.
pub struct Answer {
    source: Source,
    entry: Entry,
    turn: Turn,
    parting: Option<Parting>,
}

/// A failure that waits for the bytes before it: hyper drops what it has not yet written when a body fails.
struct Parting {
    failure: Failure,
    until: Pin<Box<Sleep>>,
}

/// What a connection that takes bytes at all needs to take the last ones.
const PARTING: Duration = Duration::from_millis(20);

/// Tells the client's connection, when dropped, that this response is over.
pub struct Turn {
    over: Option<Box<dyn FnOnce(Ending)>>,
    ending: Ending,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Whole, or given up by the client.
    Orderly,
    /// Broken off after its head had gone out.
    Cut,
}

enum Source {
    Own(Bytes),
    Engine(Box<Relay>),
}

impl Turn {
    pub fn new(over: impl FnOnce(Ending) + 'static) -> Self {
        Self { over: Some(Box::new(over)), ending: Ending::Orderly }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(over) = self.over.take() {
            over(self.ending);
        }
    }
}

impl Answer {
    /// An answer of the gateway itself.
    #[must_use]
    pub fn own(body: Bytes, entry: Entry, turn: Turn) -> Self {
        Self { source: Source::Own(body), entry, turn, parting: None }
    }

    /// An engine's answer.
    #[must_use]
    pub fn engine(relay: Box<Relay>, entry: Entry, turn: Turn) -> Self {
        Self { source: Source::Engine(relay), entry, turn, parting: None }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = &mut *self;
        if let Some(parting) = &mut this.parting {
            ready!(parting.until.as_mut().poll(cx));
            return Poll::Ready(Some(Err(parting.failure.clone())));
        }
        let frame = match &mut this.source {
            Source::Own(body) if body.is_empty() => None,
            Source::Own(body) => Some(Ok(Frame::data(std::mem::take(body)))),
            Source::Engine(relay) => ready!(relay.poll_frame(cx, &mut this.entry)),
        };
        match &frame {
            Some(Ok(frame)) => this.entry.bytes_out += frame.data_ref().map_or(0, |bytes| bytes.len() as u64),
            Some(Err(failure)) => {
                this.entry.fail(failure.reason);
                this.turn.ending = Ending::Cut;
                let until = Box::pin(sleep(PARTING));
                this.parting = Some(Parting { failure: failure.clone(), until });
                return self.poll_frame(cx);
            }
            None => this.entry.finish(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(body) => body.is_empty(),
            Source::Engine(relay) => relay.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(body) => SizeHint::with_exact(body.len() as u64),
            // The engine's own Content-Length is among the header fields, where hyper looks first.
            Source::Engine(_) => SizeHint::default(),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // hyper asks no further when the length is reached or there is no body to send.
        if self.is_end_stream() {
            self.entry.finish();
        }
        if let Source::Engine(relay) = &self.source
            && let Some(tap) = &relay.tap
        {
            self.entry.usage = tap.usage();
        }
    }
}

/// The body of an engine's answer, read from its connection.
pub struct Relay {
    /// `None` once the answer is over and the connection kept or closed.
    connection: Option<Connection>,
    framing: Framing,
    /// The rest of the request, where the engine answered early.
    sending: Option<Sending>,
    /// Whether the connection can carry another request.
    reusable: bool,
    connections: Rc<Connections>,
    lease: Lease,
    /// Taken at the first byte of the body: heads come early, tokens do not.
    sent: Option<Instant>,
    begun: bool,
    tap: Option<Tap>,
    trailers: BytesMut,
    patience: Patience,
}

/// What a relay takes over from the try that succeeded.
pub struct Begun {
    pub connection: Connection,
    pub framing: Framing,
    /// When the engine had the whole request; `None`: not yet.
    pub sent: Option<Instant>,
    pub sending: Option<Sending>,
    pub reusable: bool,
}

impl Relay {
    #[must_use]
    pub fn new(
        begun: Begun,
        lease: Lease,
        connections: Rc<Connections>,
        tap: Option<Tap>,
        limits: Limits,
    ) -> Self {
        let mut relay = Self {
            connection: Some(begun.connection),
            framing: begun.framing,
            sending: begun.sending,
            reusable: begun.reusable,
            connections,
            lease,
            sent: begun.sent,
            begun: false,
            tap,
            trailers: BytesMut::new(),
            patience: Patience::new(limits),
        };
        if relay.framing.is_done() {
            relay.finish();
        }
        relay
    }

    fn is_over(&self) -> bool {
        self.connection.is_none() && self.trailers.is_empty()
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if let Err(failure) = self.poll_send(cx) {
            return Poll::Ready(Some(Err(failure)));
        }
        loop {
            let Some(connection) = &mut self.connection else { return Poll::Ready(self.take_trailers()) };
            if !connection.inbox.is_empty() || self.framing.is_done() {
                match self.take_piece(entry) {
                    Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                    Ok(None) => continue,
                    Err(failure) => return Poll::Ready(Some(Err(failure))),
                }
            }
            match connection.poll_fill(cx) {
                Poll::Ready(Ok(n)) if n > 0 => self.patience.renew(),
                Poll::Ready(_ended) => match self.end_of_input() {
                    Ok(()) => {}
                    Err(failure) => return Poll::Ready(Some(Err(failure))),
                },
                Poll::Pending => return self.patience.poll(cx).map(|failure| Some(Err(failure))),
            }
        }
    }

    /// Goes on with a request that the engine began to answer before it had everything.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let Some(sending) = &mut self.sending else { return Ok(()) };
        match sending.poll(cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => self.lease.commit(),
            Poll::Ready(Err(SendError::Body(failure))) => return Err(failure),
            // The engine wants no more of the request; its answer still counts.
            Poll::Ready(Err(SendError::Engine)) => self.reusable = false,
        }
        self.sending = None;
        Ok(())
    }

    /// Takes the next piece of the message from the inbox; a frame where it is one for the client.
    fn take_piece(&mut self, entry: &mut Entry) -> Result<Option<Frame<Bytes>>, Failure> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        match self.framing.next(&connection.inbox) {
            Ok(Piece::Body(n)) => {
                let chunk = connection.inbox.split_to(n);
                if !self.begun {
                    self.begun = true;
                    entry.first_byte();
                    if let Some(sent) = self.sent {
                        self.lease.endpoint().observe_ttft(sent.elapsed());
                    }
                }
                if let Some(tap) = &mut self.tap {
                    let events = tap.pass(&chunk);
                    if events > 0 {
                        entry.event(events, Instant::now().into_std());
                    }
                }
                if self.framing.is_done() {
                    self.finish();
                }
                Ok(Some(Frame::data(chunk)))
            }
            Ok(Piece::Framing(n)) => {
                connection.inbox.advance(n);
                Ok(None)
            }
            Ok(Piece::Trailer(n)) => {
                self.trailers.extend_from_slice(&connection.inbox.split_to(n));
                Ok(None)
            }
            Ok(Piece::Done) => {
                self.finish();
                Ok(None)
            }
            Err(e) => Err(Failure::new(
                Reason::EngineInvalid,
                format!("the engine's answer breaks its own framing: {e}"),
            )),
        }
    }

    fn end_of_input(&mut self) -> Result<(), Failure> {
        if !self.framing.end_of_input() {
            return Err(Failure::new(
                Reason::EngineReset,
                "the engine closed the connection in the middle of its answer",
            ));
        }
        self.reusable = false;
        self.finish();
        Ok(())
    }

    /// The answer has been read to its end: the connection waits for another request, or closes.
    fn finish(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // Surplus bytes belong to no request of ours: such a connection is not to be trusted.
        if self.reusable && self.sending.is_none() && connection.inbox.is_empty() {
            self.connections.put(self.lease.endpoint(), connection);
        } else if self.sending.is_some() {
            connection.reset();
        }
        self.sending = None;
    }

    fn take_trailers(&mut self) -> Option<Result<Frame<Bytes>, Failure>> {
        let section = std::mem::take(&mut self.trailers);
        let trailers = parse_trailers(&section);
        (!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers)))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The client left or the answer was cut: a reset frees the engine at once.
        if let Some(connection) = self.connection.take() {
            connection.reset();
        }
    }
}

/// The fields of a trailer section that framing has followed to its end; what is not a field is left out.
fn parse_trailers(section: &[u8]) -> HeaderMap {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS as usize];
    let mut trailers = HeaderMap::new();
    if let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(section, &mut fields) {
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let value = HeaderValue::from_bytes(field.value);
            if let (Ok(name), Ok(value)) = (name, value) {
                trailers.append(name, value);
            }
        }
    }
    strip_trailers(&mut trailers);
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_keep_their_fields_but_never_framing() {
        let trailers = parse_trailers(b"x-sum: 1\r\ncontent-length: 5\r\nX-Sum: 2\r\n\r\n");
        assert_eq!(trailers.get_all("x-sum").iter().count(), 2);
        assert_eq!(trailers.len(), 2);
        assert!(parse_trailers(b"\r\n").is_empty());
    }
}
