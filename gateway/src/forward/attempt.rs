//! One try: a request to one endpoint, up to the head of its answer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::Method;
use tokio::time::{Instant, timeout};

use super::send::SendError;
use super::{Connection, Connections, Sending};
use crate::endpoint::Lease;
use crate::failure::{Failure, Reason};
use crate::gate::answer::{self, Answer};
use crate::snapshot::Traffic;
use crate::upload::Upload;

/// Interim answers (1xx) that one request may draw; each is read and dropped.
const INTERIM_LIMIT: u32 = 32;

/// An engine that has begun to answer.
pub struct Attempt {
    pub connection: Connection,
    pub answer: Answer,
    /// When the engine's socket had taken the whole request; `None`: not yet.
    pub sent: Option<Instant>,
    /// The rest of the request, where the engine answered before it had everything.
    pub sending: Option<Sending>,
}

/// A try that brought no answer.
#[derive(Debug)]
pub struct AttemptError {
    pub failure: Failure,
    pub seen: Seen,
}

/// How much the engine can have seen of a request that failed: decides whether another try is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Connecting failed.
    Nothing,
    /// A kept connection ended before any byte of an answer: the engine had closed it.
    Stale,
    /// The engine had some or all of it and said nothing.
    Request,
    /// The engine's answer was read in part, or the client is the one to blame: never again.
    Final,
}

/// Sends the request on `lease`'s endpoint and waits for the head of the answer.
///
/// A kept connection is used where there is one, unless `fresh` asks for a new one.
///
/// # Errors
/// With the blame, and how much the engine has seen.
pub async fn attempt(
    connections: &Connections,
    lease: &mut Lease,
    method: &Method,
    head: Bytes,
    upload: &Rc<RefCell<Upload>>,
    traffic: &Traffic,
    fresh: bool,
) -> Result<Attempt, AttemptError> {
    let endpoint = lease.endpoint().clone();
    let kept = if fresh { None } else { connections.take(&endpoint) };
    let connection = match kept {
        Some(kept) => kept,
        None => connect(&endpoint.address, traffic.connect_timeout).await?,
    };
    let sending = Sending::new(connection.stream(), head, upload.clone());
    let mut exchange = Exchange {
        connection: Some(connection),
        sending: Some(sending),
        sent: None,
        answered: false,
        interim: 0,
    };
    let answered = poll_fn(|cx| exchange.poll(cx, method, lease));
    // The engine's silence is bounded; the client's is the upload's own affair, which ends long before.
    match timeout(traffic.stream_idle_timeout, answered).await {
        Ok(Ok((connection, answer))) => {
            Ok(Attempt { connection, answer, sent: exchange.sent, sending: exchange.sending.take() })
        }
        Ok(Err(e)) => Err(e),
        Err(_) => Err(AttemptError {
            failure: Failure::new(Reason::EngineSlow, "the engine did not begin to answer in time"),
            seen: Seen::Request,
        }),
    }
}

async fn connect(address: &crate::endpoint::Address, limit: Duration) -> Result<Connection, AttemptError> {
    let failure = match timeout(limit, Connection::open(address)).await {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(e)) if is_local(&e) => {
            Failure::new(Reason::Saturated, "the gateway is out of sockets; try again")
        }
        Ok(Err(_)) => Failure::new(Reason::EngineRefused, "the engine refused the connection"),
        Err(_) => Failure::new(Reason::EngineSlow, "the engine did not accept the connection in time"),
    };
    Err(AttemptError { failure, seen: Seen::Nothing })
}

/// Whether connecting failed for want of something on our side, of which the engine is innocent.
fn is_local(e: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = e.raw_os_error();
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL]
        .iter()
        .any(|local| errno == Some(local.raw_os_error()))
}

/// Both directions of a try. Dropped in the middle, its connection is reset.
struct Exchange {
    connection: Option<Connection>,
    sending: Option<Sending>,
    sent: Option<Instant>,
    /// Whether any byte has come back.
    answered: bool,
    interim: u32,
}

impl Exchange {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        lease: &mut Lease,
    ) -> Poll<Result<(Connection, Answer), AttemptError>> {
        let broken = match self.poll_send(cx, lease) {
            Ok(broken) => broken,
            Err(failure) => return Poll::Ready(Err(AttemptError { failure, seen: Seen::Final })),
        };
        // Read also after a broken write: an engine that refuses a body answers first and then closes.
        let answer = match self.poll_answer(cx, method) {
            Poll::Ready(Ok(answer)) => answer,
            Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
            Poll::Pending if broken => return Poll::Ready(Err(self.reset())),
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(self.connection.take().map(|connection| (connection, answer)).ok_or_else(|| self.reset()))
    }

    /// Sends on; true when the engine takes no more.
    fn poll_send(&mut self, cx: &mut Context<'_>, lease: &mut Lease) -> Result<bool, Failure> {
        let Some(sending) = &mut self.sending else { return Ok(false) };
        match sending.poll(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => {
                lease.commit();
                self.sent = Some(Instant::now());
                self.sending = None;
                Ok(false)
            }
            Poll::Ready(Err(SendError::Body(failure))) => Err(failure),
            Poll::Ready(Err(SendError::Engine)) => Ok(true),
        }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<Answer, AttemptError>> {
        loop {
            let Some(connection) = &mut self.connection else { return Poll::Ready(Err(self.reset())) };
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
                _ended => return Poll::Ready(Err(self.reset())),
            }
        }
    }

    /// The connection ended before the head of an answer.
    fn reset(&self) -> AttemptError {
        let reused = self.connection.as_ref().is_some_and(|connection| connection.reused);
        let seen = match (self.answered, reused) {
            (true, _) => Seen::Final,
            (false, true) => Seen::Stale,
            (false, false) => Seen::Request,
        };
        let failure =
            Failure::new(Reason::EngineReset, "the engine closed the connection before it answered");
        AttemptError { failure, seen }
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
    let failure =
        Failure::new(Reason::EngineInvalid, format!("the engine's answer is not valid HTTP/1.1: {what}"));
    AttemptError { failure, seen: Seen::Final }
}
