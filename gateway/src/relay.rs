//! An engine's answer on its way to the client: bytes as they come, never joined, never delayed.

pub mod tap;

mod answer;
mod patience;
mod rest;
mod splice;
mod straight;

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use penstock_common::framing::{Framing, MAX_TRAILER_FIELDS, Piece};
use tokio::time::Instant;

use self::patience::Patience;
use self::straight::Chunk;
use self::tap::Tap;
use crate::endpoint::{Endpoint, Lease};
use crate::failure::{Failure, Reason};
use crate::forward::{Connection, Connections, SendError, Sending, with_scratch};
use crate::gate::fields::strip_trailers;
use crate::kernel::splice::{Slot, Unequal};
use crate::ledger::Entry;

pub use self::answer::{Answer, Bounds, Downstream, Heir};
pub use self::patience::Limits;
pub use self::rest::Rest;
pub use self::splice::Splicing;
pub use self::straight::Straight;

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
    endpoint: Arc<Endpoint>,
    /// Given back with the last byte from the engine, however long the client takes over it.
    lease: Option<Lease>,
    /// Taken at the first byte of the body: heads come early, tokens do not.
    sent: Option<Instant>,
    declined: bool,
    begun: bool,
    tap: Option<Tap>,
    /// Where both sides frame the answer as chunks.
    straight: Option<Straight>,
    /// Where engine, client and answer allow it; only beside `straight`.
    splicing: Option<Splicing>,
    trailers: BytesMut,
    patience: Patience,
}

/// What a relay takes over from the try that succeeded.
pub struct Begun {
    pub connection: Connection,
    pub framing: Framing,
    /// When the engine had the whole request; `None`: not yet, or its answer is no measure of it.
    pub sent: Option<Instant>,
    /// The engine says that it cannot serve: no proof of its health.
    pub declined: bool,
    pub sending: Option<Sending>,
    pub reusable: bool,
    pub straight: Option<Straight>,
    pub splicing: Option<Splicing>,
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
            endpoint: lease.endpoint().clone(),
            lease: Some(lease),
            sent: begun.sent,
            declined: begun.declined,
            begun: false,
            tap,
            straight: begun.straight,
            splicing: begun.splicing,
            trailers: BytesMut::new(),
            patience: Patience::new(limits),
        };
        // Until the client's side asks for its body.
        relay.lease.iter_mut().for_each(Lease::begin);
        if relay.framing.is_done() {
            relay.finish();
        }
        relay
    }

    /// When the answer must be over; `None`: no bound.
    pub fn deadline(&self) -> Option<Instant> {
        self.patience.deadline()
    }

    fn is_over(&self) -> bool {
        self.connection.is_none() && self.trailers.is_empty()
    }

    /// Whether what comes can go on without hyper.
    fn needs_no_hyper(&self) -> bool {
        let Self { connection: Some(connection), sending: None, straight: Some(straight), .. } = self else {
            return false;
        };
        straight.needs_no_hyper(connection.slot.as_ref().is_some_and(Slot::is_armed))
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let frame = ready!(self.poll_next(cx, entry));
        if let Some(Err(failure)) = &frame
            // A long answer that runs out of its time is slow, not sick.
            && failure.reason != Reason::RequestTimeout
        {
            self.endpoint.failed(failure.reason);
        }
        Poll::Ready(frame)
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if let Err(failure) = self.poll_send(cx, entry) {
            return Poll::Ready(Some(Err(failure)));
        }
        loop {
            if let Some(straight) = &mut self.straight
                && let Err(failure) = ready!(straight.poll_clear(cx))
            {
                return Poll::Ready(Some(Err(failure)));
            }
            if self.is_asleep(cx) {
                return Poll::Pending;
            }
            let Some(connection) = &mut self.connection else { return Poll::Ready(self.take_trailers()) };
            if !connection.inbox.is_empty() || self.framing.is_done() {
                match self.take_piece(entry) {
                    Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                    Ok(None) => continue,
                    Err(failure) => return Poll::Ready(Some(Err(failure))),
                }
            }
            match self.poll_fill(cx, entry) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(failure)) => return Poll::Ready(Some(Err(failure))),
                Poll::Pending => {
                    if !self.begun {
                        self.lease.iter_mut().for_each(Lease::wait);
                    }
                    self.arm(entry);
                    return self.poll_late(cx).map(|failure| Some(Err(failure)));
                }
            }
        }
    }

    /// Reads what the engine sent. What can goes straight on to the client, the rest to the inbox.
    fn poll_fill(&mut self, cx: &mut Context<'_>, entry: &mut Entry) -> Poll<Result<(), Failure>> {
        with_scratch(|scratch| {
            let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(())) };
            let read = ready!(connection.poll_read(cx, scratch));
            // What was spliced went before what is here.
            self.take_back(entry)?;
            let arrived = match read {
                Ok(n) if n > 0 => &scratch[..n],
                ended => return Poll::Ready(self.end_of_input(ended.is_ok())),
            };
            let now = self.patience.renew()?;
            self.endpoint.silence.end(now.into_std());
            let passed = self.pass_straight(cx, arrived, entry);
            if let Some(connection) = &mut self.connection
                && passed < arrived.len()
            {
                connection.keep(&arrived[passed..]);
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Writes the whole chunks that `arrived` begins with to the client, past hyper; returns how many bytes they have.
    fn pass_straight(&mut self, cx: &mut Context<'_>, arrived: &[u8], entry: &mut Entry) -> usize {
        let inbox_empty = self.connection.as_ref().is_some_and(|connection| connection.inbox.is_empty());
        let Some(straight) = &mut self.straight else { return 0 };
        if !self.begun || !inbox_empty || self.sending.is_some() || !straight.is_clear() {
            return 0;
        }
        let (mut passed, mut events) = (0, 0);
        while let Some(chunk) = Chunk::step(&mut self.framing, &arrived[passed..]) {
            passed += chunk.length;
            entry.bytes_out += chunk.payload.len() as u64;
            events += self.tap.as_mut().map_or(0, |tap| tap.pass(chunk.payload));
        }
        straight.write(cx, &arrived[..passed]);
        self.book(events, entry);
        passed
    }

    /// Events were relayed.
    fn book(&mut self, events: u64, entry: &mut Entry) {
        if events > 0 {
            entry.event(events, self.patience.last().into_std());
        }
        if let Some(splicing) = &mut self.splicing {
            splicing.passed(events);
        }
    }

    /// Whether this is asked for no reason: hyper asks again when it has written what it was given.
    fn is_asleep(&self, cx: &Context<'_>) -> bool {
        self.sending.is_none()
            && self.splicing.is_none()
            && self.connection.as_ref().is_some_and(|connection| connection.is_awaited(cx))
    }

    /// Lets the kernel carry on, if the stream stands where it can.
    fn arm(&mut self, entry: &Entry) {
        let Self {
            connection: Some(connection),
            straight: Some(straight),
            splicing: Some(splicing),
            tap: Some(tap),
            ..
        } = self
        else {
            return;
        };
        if self.framing.is_between_chunks()
            && self.sending.is_none()
            && tap.is_between_events()
            && let Some(last) = entry.last_event()
        {
            splicing.arm(connection, straight, last);
        }
    }

    /// Takes the stream back from the kernel: the engine's connection has spoken.
    fn take_back(&mut self, entry: &mut Entry) -> Result<(), Failure> {
        self.unsplice(entry).map_err(|unequal| splice::distrust(&self.endpoint, unequal))
    }

    /// Books all there is to book, whole or not: the answer ends here.
    fn settle(&mut self, entry: &mut Entry) {
        let _ = self.unsplice(entry);
        entry.usage = self.tap.as_ref().and_then(Tap::usage);
    }

    fn unsplice(&mut self, entry: &mut Entry) -> Result<(), Unequal> {
        let Self { connection: Some(connection), straight: Some(straight), splicing: Some(splicing), .. } =
            self
        else {
            return Ok(());
        };
        splicing.take(connection, straight, self.tap.as_mut(), entry)
    }

    /// Ready when the answer has taken too long. What is spliced comes unheard, so it is asked for when time is up.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let Some(connection) = &mut self.connection else { return Poll::Pending };
        loop {
            let late = ready!(self.patience.poll(&mut connection.alarm, cx));
            if !Splicing::heard(connection).is_some_and(|heard| self.patience.heard(heard)) {
                return Poll::Ready(late);
            }
        }
    }

    /// Goes on with a request that the engine began to answer before it had everything.
    fn poll_send(&mut self, cx: &mut Context<'_>, entry: &mut Entry) -> Result<(), Failure> {
        let Some(sending) = &mut self.sending else { return Ok(()) };
        let sent = sending.poll(cx);
        entry.bytes_in = sending.received();
        match sent {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => {
                if let Some(lease) = &mut self.lease {
                    lease.commit();
                }
            }
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
                    self.lease.iter_mut().for_each(Lease::begin);
                    let now = self.patience.last();
                    self.endpoint.silence.end(now.into_std());
                    entry.first_byte(now.into_std());
                    if let Some(sent) = self.sent {
                        self.endpoint.observe_ttft(now.duration_since(sent));
                    }
                    if !self.declined && self.endpoint.health.is_ejected() {
                        self.endpoint.succeeded();
                    }
                }
                let events = self.tap.as_mut().map_or(0, |tap| tap.pass(&chunk));
                self.book(events, entry);
                self.straight.iter_mut().for_each(Straight::given);
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

    /// The engine's side is over: closed in order, or broken.
    fn end_of_input(&mut self, orderly: bool) -> Result<(), Failure> {
        if !orderly || !self.framing.end_of_input() {
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
        if !self.declined {
            self.endpoint.succeeded();
        }
        self.lease = None;
        // Surplus bytes belong to no request of ours: such a connection is not to be trusted.
        if self.reusable && self.sending.is_none() && connection.inbox.is_empty() {
            self.connections.put(&self.endpoint, connection);
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
