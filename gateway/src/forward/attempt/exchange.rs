//! Both directions of a try at once: an engine may answer before it has the whole request.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http::Method;
use tokio::time::Instant;

use super::patience::{self, Waiting};
use super::{Attempt, AttemptError, Connection, Seen, Sending, Terms};
use crate::endpoint::Lease;
use crate::failure::{Failure, Reason};
use crate::forward::SendError;
use crate::gate::answer::{self, Answer};

/// Interim answers (1xx) that one request may draw; each is read and dropped.
const INTERIM_LIMIT: u32 = 32;
/// A kept connection that ends within this time of the request had been closed before it; one that ends later was
/// closed over the request, and the same may happen to the next engine.
const STALE_WITHIN: Duration = Duration::from_millis(100);

/// Dropped in the middle, it resets its connection.
pub(super) struct Exchange {
    connection: Option<Connection>,
    sending: Option<Sending>,
    started: Instant,
    sent: Option<Instant>,
    /// The engine takes no more of the request; it may have answered all the same.
    broken: bool,
    /// Whether any byte has come back.
    answered: bool,
    interim: u32,
}

impl Exchange {
    pub(super) fn new(connection: Connection, sending: Sending, started: Instant) -> Self {
        Self {
            connection: Some(connection),
            sending: Some(sending),
            started,
            sent: None,
            broken: false,
            answered: false,
            interim: 0,
        }
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        terms: Terms<'_>,
        lease: &mut Lease,
    ) -> Poll<Result<Attempt, AttemptError>> {
        if let Err(failure) = self.poll_send(cx, lease) {
            return Poll::Ready(Err(AttemptError { failure, seen: Seen::Final }));
        }
        match self.poll_answer(cx, terms.method) {
            Poll::Ready(Ok(answer)) => Poll::Ready(self.begun(answer)),
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => {
                let waiting = self.waiting();
                let Some(connection) = &mut self.connection else { return Poll::Ready(Err(self.ended())) };
                patience::poll(&mut connection.alarm, cx, terms, waiting).map(Err)
            }
        }
    }

    /// Sends on, until the engine has everything or takes no more: the end of its answer will tell which.
    fn poll_send(&mut self, cx: &mut Context<'_>, lease: &mut Lease) -> Result<(), Failure> {
        let Some(sending) = self.sending.as_mut().filter(|_| !self.broken) else { return Ok(()) };
        match sending.poll(cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                lease.commit();
                self.sent = sending.last_written();
                self.sending = None;
            }
            Poll::Ready(Err(SendError::Body(failure))) => return Err(failure),
            Poll::Ready(Err(SendError::Engine)) => self.broken = true,
        }
        Ok(())
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<Answer, AttemptError>> {
        loop {
            let Some(connection) = &mut self.connection else { return Poll::Ready(Err(self.ended())) };
            if !connection.inbox.is_empty() {
                match answer::parse(&connection.inbox, method) {
                    Ok(Some(answer)) if answer.status.is_informational() => {
                        connection.inbox.advance(answer.len);
                        self.interim += 1;
                        if self.interim > INTERIM_LIMIT {
                            return Poll::Ready(Err(invalid("more interim answers than any request needs")));
                        }
                        continue;
                    }
                    Ok(Some(answer)) => {
                        connection.inbox.advance(answer.len);
                        return Poll::Ready(Ok(answer));
                    }
                    Ok(None) => {}
                    Err(e) => return Poll::Ready(Err(invalid(e))),
                }
            }
            match ready!(connection.poll_fill(cx)) {
                Ok(n) if n > 0 => self.answered = true,
                _ended => return Poll::Ready(Err(self.ended())),
            }
        }
    }

    fn begun(&mut self, answer: Answer) -> Result<Attempt, AttemptError> {
        let Some(connection) = self.connection.take() else { return Err(self.ended()) };
        Ok(Attempt { connection, answer, sent: self.sent, sending: self.sending.take() })
    }

    /// The connection ended before the head of an answer.
    fn ended(&self) -> AttemptError {
        let reused = self.connection.as_ref().is_some_and(|connection| connection.reused);
        let seen = match (self.answered, reused) {
            (true, _) => Seen::Final,
            (false, true) if self.started.elapsed() < STALE_WITHIN => Seen::Stale,
            (false, _) => Seen::Request,
        };
        let failure =
            Failure::new(Reason::EngineReset, "the engine closed the connection before it answered");
        AttemptError { failure, seen }
    }

    /// Who is waited for, and since when.
    fn waiting(&self) -> Waiting {
        match (&self.sending, self.sent) {
            (_, Some(sent)) => Waiting::Answer(sent),
            (Some(sending), None) if !self.broken && !sending.waits_for_engine() => Waiting::Client,
            (sending, None) => {
                let last = sending.as_ref().and_then(Sending::last_written);
                Waiting::Engine(last.unwrap_or(self.started))
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.reset();
        }
    }
}

fn invalid(what: impl std::fmt::Display) -> AttemptError {
    let message = format!("the engine's answer is not valid HTTP/1.1: {what}");
    AttemptError { failure: Failure::new(Reason::EngineInvalid, message), seen: Seen::Final }
}
