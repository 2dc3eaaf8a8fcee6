//! One try: a request to one endpoint, up to the head of its answer.

mod exchange;
mod patience;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use tokio::time::{Instant, timeout_at};

use self::exchange::Exchange;
use super::{Connection, Connections, Sending};
use crate::endpoint::{Endpoint, Lease};
use crate::failure::{Failure, Reason, request_timeout};
use crate::gate::answer::Answer;
use crate::snapshot::Traffic;
use crate::upload::Upload;

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
    /// A kept connection ended at once, before any byte of an answer: the engine had closed it.
    Stale,
    /// The engine had some or all of it and said nothing.
    Request,
    /// The engine's answer was read in part, or the client is the one to blame: never again.
    Final,
}

/// How a try is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    pub method: &'a Method,
    pub traffic: &'a Traffic,
    /// When the whole exchange must be over.
    pub deadline: Option<Instant>,
    /// On a new connection, whatever is kept.
    pub fresh: bool,
}

/// Sends the request on `lease`'s endpoint and waits for the head of the answer.
///
/// # Errors
/// With the blame, and how much the engine has seen.
pub async fn attempt(
    connections: &Connections,
    lease: &mut Lease,
    head: Bytes,
    upload: &Rc<RefCell<Upload>>,
    terms: Terms<'_>,
) -> Result<Attempt, AttemptError> {
    let endpoint = lease.endpoint().clone();
    let now = Instant::now();
    let kept = if terms.fresh { None } else { connections.take(&endpoint, now) };
    let (connection, started) = match kept {
        Some(kept) => (kept, now),
        None => (connect(connections, &endpoint, terms, now).await?, Instant::now()),
    };
    let sending = Sending::new(connection.stream(), head, upload.clone());
    let mut exchange = Exchange::new(connection, sending, started);
    poll_fn(|cx| exchange.poll(cx, terms, lease)).await
}

async fn connect(
    connections: &Connections,
    endpoint: &Arc<Endpoint>,
    terms: Terms<'_>,
    now: Instant,
) -> Result<Connection, AttemptError> {
    let limit = now + terms.traffic.connect_timeout;
    let until = terms.deadline.map_or(limit, |deadline| deadline.min(limit));
    let (failure, seen) = match timeout_at(until, connections.open(endpoint)).await {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(e)) if is_local(&e) => {
            (Failure::new(Reason::Saturated, "the gateway is out of sockets; try again"), Seen::Nothing)
        }
        Ok(Err(_)) => {
            (Failure::new(Reason::EngineRefused, "the engine refused the connection"), Seen::Nothing)
        }
        Err(_) if until < limit => (request_timeout(), Seen::Final),
        Err(_) => (
            Failure::new(Reason::EngineSlow, "the engine did not accept the connection in time"),
            Seen::Nothing,
        ),
    };
    Err(AttemptError { failure, seen })
}

/// Whether connecting failed for want of something on our side, of which the engine is innocent.
fn is_local(e: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = e.raw_os_error();
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL]
        .iter()
        .any(|local| errno == Some(local.raw_os_error()))
}
