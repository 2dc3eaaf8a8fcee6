//! The tries of one request: which endpoints, in which order, and when another try is safe.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode, Version};
use tokio::time::{Instant, sleep_until};

use super::Client;
use super::head::Outgoing;
use crate::admit::RetryPermit;
use crate::endpoint::{Endpoint, Lease};
use crate::failure::{Failure, Reason, request_timeout};
use crate::forward::{Attempt, AttemptError, Connection, Seen, Terms, attempt};
use crate::ledger::{Entry, Unspliced};
use crate::pick::Picker;
use crate::relay::tap::{self, Tap};
use crate::relay::{Begun, Limits, Relay, Splicing, Straight};
use crate::route::Forward;
use crate::snapshot::Traffic;
use crate::upload::Upload;

/// Endpoints that one request may find closed; beyond it the pool is down, not unlucky.
const REFUSALS: usize = 8;

/// Sends the request to endpoints of the pool until one answers, for as long as another try is safe.
pub(super) async fn try_endpoints(
    client: &Rc<Client>,
    head: &Outgoing,
    upload: &Rc<RefCell<Upload>>,
    traffic: &Traffic,
    forward: &Forward<'_>,
    deadline: Option<Instant>,
    entry: &mut Entry,
) -> Result<Response<Box<Relay>>, Failure> {
    let mut tries =
        Tries { client, traffic, deadline, tried: Vec::new(), failure: None, retries: 0, permit: None };
    loop {
        let mut lease = tries.pick(forward)?;
        entry.endpoint = Some(lease.endpoint().label.clone());
        entry.tries += 1;
        let tried = pin!(tries.one(head, upload, &mut lease, entry)).await;
        entry.bytes_in = upload.borrow().received();
        let failed = match tried {
            Ok(begun) if tries.may_repeat(&begun, upload) => {
                let endpoint = lease.endpoint();
                let status = begun.answer.status;
                if declines(status) {
                    endpoint.declined(status)
                } else {
                    endpoint.succeeded()
                }
                None
            }
            Ok(begun) => return Ok(tries.respond(begun, lease, head, entry)),
            Err(failed) => {
                lease.endpoint().failed(failed.failure.reason);
                Some(failed)
            }
        };
        tries.tried.push(lease.endpoint().clone());
        // Nothing is in flight while another try is waited for.
        drop(lease);
        tries.again(failed, upload).await?;
    }
}

struct Tries<'a> {
    client: &'a Rc<Client>,
    traffic: &'a Traffic,
    deadline: Option<Instant>,
    tried: Vec<Arc<Endpoint>>,
    /// Of the last try; what the client is told when no endpoint is left.
    failure: Option<Failure>,
    /// Tries that cost an engine work, after the first.
    retries: u32,
    permit: Option<RetryPermit>,
}

impl Tries<'_> {
    /// The next endpoint: one that has not been tried, or any where trying the same one again may help.
    fn pick(&mut self, forward: &Forward<'_>) -> Result<Lease, Failure> {
        let (picker, endpoints) = (&self.client.worker.picker, &forward.pool.endpoints);
        let mut picked = picker.pick(endpoints, &self.tried, self.tried.is_empty());
        if picked.is_none() && self.retries > 0 {
            picked = picker.pick(endpoints, &[], false);
        }
        picked.ok_or_else(|| self.failure.take().unwrap_or_else(|| no_endpoint(forward)))
    }

    /// One endpoint's chance, with a second connection where the kept one turned out to be closed.
    async fn one(
        &self,
        head: &Outgoing,
        upload: &Rc<RefCell<Upload>>,
        lease: &mut Lease,
        entry: &mut Entry,
    ) -> Result<Attempt, AttemptError> {
        // What may outgrow the replay goes out on a connection that cannot be stale.
        let fresh = upload.borrow().may_outgrow_replay();
        if fresh && !self.traffic.retry.repeats_what_was_sent() {
            upload.borrow_mut().forgo_replay();
        }
        let mut terms = Terms { method: &head.method, traffic: self.traffic, deadline: self.deadline, fresh };
        let engines = &self.client.worker.engines;
        let bytes = head.bytes(upload.borrow().length(), lease.endpoint());
        match pin!(attempt(engines, lease, bytes, upload, terms)).await {
            Err(e) if e.seen == Seen::Stale && upload.borrow_mut().rewind() => {}
            tried => return tried,
        }
        terms.fresh = true;
        entry.tries += 1;
        let bytes = head.bytes(upload.borrow().length(), lease.endpoint());
        attempt(engines, lease, bytes, upload, terms).await.map_err(|mut e| {
            // An engine that refuses now may have died of this very request: others are not to follow it.
            if e.seen == Seen::Nothing {
                e.seen = Seen::Request;
            }
            e
        })
    }

    /// Whether an answer is one that the policy would rather not pass on, and another try is possible.
    fn may_repeat(&mut self, begun: &Attempt, upload: &Rc<RefCell<Upload>>) -> bool {
        self.traffic.retry.on_status.contains(&begun.answer.status.as_u16())
            && begun.sending.is_none()
            && upload.borrow().is_replayable()
            && self.take_permit()
    }

    /// Makes ready for another try; the failure of the last one where there must not be one.
    async fn again(
        &mut self,
        failed: Option<AttemptError>,
        upload: &Rc<RefCell<Upload>>,
    ) -> Result<(), Failure> {
        let seen = failed.as_ref().map_or(Seen::Request, |failed| failed.seen);
        if let Some(failed) = failed {
            let allowed = match seen {
                Seen::Nothing => self.tried.len() < REFUSALS,
                Seen::Request => self.traffic.retry.on_reset && self.take_permit(),
                Seen::Stale | Seen::Final => false,
            };
            if !allowed {
                return Err(failed.failure);
            }
            self.failure = Some(failed.failure);
        }
        if !upload.borrow_mut().rewind() {
            return Err(self.failure.take().unwrap_or_else(not_replayable));
        }
        if seen != Seen::Nothing {
            let pause = Instant::now() + self.backoff();
            if self.deadline.is_some_and(|deadline| deadline <= pause) {
                return Err(self.failure.take().unwrap_or_else(request_timeout));
            }
            sleep_until(pause).await;
        }
        Ok(())
    }

    fn respond(
        &self,
        begun: Attempt,
        lease: Lease,
        head: &Outgoing,
        entry: &mut Entry,
    ) -> Response<Box<Relay>> {
        let Attempt { answer, connection, .. } = begun;
        let mut response = Response::new(());
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        let kind = tap::Kind::of(response.headers());
        entry.streaming = kind == Some(tap::Kind::EventStream);
        let declined = declines(answer.status);
        if declined {
            lease.endpoint().declined(answer.status);
        }
        // A try's own time runs to its last byte.
        let attempt = begun.sent.zip(self.traffic.attempt_timeout).map(|(sent, limit)| sent + limit);
        // What hyper frames as chunks too.
        let by_chunks = head.version == Version::HTTP_11 && answer.framing.is_between_chunks();
        let splicing = (entry.streaming && by_chunks).then(|| self.splicing(&connection, &lease)).flatten();
        let begun = Begun {
            connection,
            framing: answer.framing,
            // A refusal takes no prefill: its time says nothing of the engine's.
            sent: begun.sent.filter(|_| answer.status.is_success()),
            declined,
            sending: begun.sending,
            reusable: answer.reusable,
            straight: by_chunks.then(|| Straight::new(self.client.gate.clone())),
            splicing,
        };
        let deadline = [self.deadline, attempt].into_iter().flatten().min();
        let limits = Limits { idle: self.traffic.stream_idle_timeout, deadline };
        let engines = self.client.worker.engines.clone();
        let relay = Relay::new(begun, lease, engines, kind.map(Tap::new), limits);
        // Boxed at once: it is large, and has a way to go.
        response.map(|()| Box::new(relay))
    }

    /// What it takes to splice the answer on this connection to the client, where it can be and shall.
    fn splicing(&self, connection: &Connection, lease: &Lease) -> Option<Splicing> {
        let shared = &self.client.worker.shared;
        shared.splice.as_ref()?;
        let known = match Splicing::obstacle(connection, lease.endpoint()) {
            _ if !self.traffic.splice => Err(Unspliced::Off),
            Some(obstacle) => Err(obstacle),
            None => self.client.splice().ok_or(Unspliced::Client),
        };
        let known = known.inspect_err(|why| shared.ledger.splices().unspliced(*why)).ok()?;
        Some(Splicing::new(known, shared.ledger.clone()))
    }

    fn take_permit(&mut self) -> bool {
        if self.retries >= self.traffic.retry.attempts {
            return false;
        }
        if self.permit.is_none() {
            self.permit = self.client.worker.shared.budget.retry();
        }
        self.retries += u32::from(self.permit.is_some());
        self.permit.is_some()
    }

    /// Doubles from the base up to ten times it, half of it random: clients of one dead engine do not march in step.
    fn backoff(&self) -> Duration {
        let base = self.traffic.retry.backoff;
        let full =
            base.saturating_mul(1 << self.retries.saturating_sub(1).min(4)).min(base.saturating_mul(10));
        full.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

/// Whether the answer says that the engine cannot serve now, whatever it is asked.
fn declines(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502..=504)
}

fn no_endpoint(forward: &Forward<'_>) -> Failure {
    Failure::new(Reason::NoEndpoint, format!("the pool {} has no ready endpoint", forward.pool.name))
}

fn not_replayable() -> Failure {
    Failure::new(Reason::EngineReset, "the request is too large to be sent a second time")
}
