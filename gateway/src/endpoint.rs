//! One address of one engine, with its live state: load, latency, health.
//!
//! An endpoint outlives snapshots: the control side keeps one per address, so that counters and connections
//! survive a reload, and two pools that name the same address see the same load.

mod clock;
mod counted;
mod health;
mod served;
mod silence;
mod trust;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;

use crate::failure::{Blame, Reason};

#[cfg(test)]
pub(crate) use clock::pass;
pub use counted::{Counted, Standing};
pub use health::Health;
pub use served::Served;
pub use silence::Silence;
pub use trust::Trust;

/// How long the last observed time to first byte speaks for an idle engine.
const TTFT_TRUSTED_MS: u64 = 5_000;
/// The longest time to first byte fades to a third within this time, however many answers come in it: thousands of short
/// ones between two long prompts make the next long one no shorter.
const SLOWEST_FADES_MS: u64 = 300_000;

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An engine's address and what this process knows of it; shared by every worker.
#[derive(Debug)]
pub struct Endpoint {
    pub address: Address,
    /// `address`, ready for labels and log lines.
    pub label: Arc<str>,
    /// Requests that the engine holds whole.
    leases: AtomicU32,
    /// Requests promised to it whose body is still on its way.
    reservations: AtomicU32,
    /// Those of `leases` that wait for the engine to begin its answer.
    waiting: AtomicU32,
    /// Decayed time to first byte in µs; 0 until the first answer.
    ttft_us: AtomicU64,
    /// When it was last observed, in ms of [`clock::now_ms`].
    observed_ms: AtomicU64,
    /// Maximum of the time to first byte in µs, fading.
    slowest_us: AtomicU64,
    pub health: Health,
    /// Toward ourselves: ended by bytes of a body, ours or, as the kernel sees them, of a stream of others.
    pub silence: Silence,
    /// Toward others: ended by any bytes.
    pub silence_to_others: Silence,
    /// What the kernel sees of others at the same engine.
    pub counted: Counted,
    pub served: Served,
    /// Whether its answers may be spliced.
    pub splice: Trust,
}

impl Endpoint {
    #[must_use]
    pub fn new(address: Address) -> Self {
        let label = Arc::from(address.to_string());
        Self {
            address,
            label,
            leases: AtomicU32::new(0),
            reservations: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            ttft_us: AtomicU64::new(0),
            observed_ms: AtomicU64::new(0),
            slowest_us: AtomicU64::new(0),
            health: Health::default(),
            silence: Silence::default(),
            silence_to_others: Silence::default(),
            counted: Counted::default(),
            served: Served::default(),
            splice: Trust::default(),
        }
    }

    /// Tells it from every other endpoint that there is; never 0.
    #[must_use]
    pub fn number(self: &Arc<Self>) -> u64 {
        Arc::as_ptr(self).addr() as u64
    }

    /// Requests that the engine holds whole.
    #[must_use]
    pub fn leases(&self) -> u32 {
        self.leases.load(Relaxed)
    }

    /// Requests promised to the engine whose body is still on its way.
    #[must_use]
    pub fn reservations(&self) -> u32 {
        self.reservations.load(Relaxed)
    }

    /// What picking takes for the load: our own requests, and those of others as the kernel sees them.
    #[must_use]
    pub fn load(&self) -> u64 {
        u64::from(self.leases()) + u64::from(self.reservations()) + u64::from(self.counted.foreign_busy())
    }

    /// Decayed time to first byte; `None` until the engine has answered once, and again when that is too long ago
    /// to speak for an idle engine: one slow start must not keep it from ever being asked again.
    #[must_use]
    pub fn ttft(&self) -> Option<Duration> {
        let us = self.ttft_us.load(Relaxed);
        let stale = || clock::now_ms().saturating_sub(self.observed_ms.load(Relaxed)) > TTFT_TRUSTED_MS;
        if us == 0 || (self.leases() == 0 && stale()) { None } else { Some(Duration::from_micros(us)) }
    }

    /// The longest time to first byte of the last minutes in which there was an answer; `None` until the first.
    #[must_use]
    pub fn slowest_ttft(&self) -> Option<Duration> {
        let us = self.slowest_us.load(Relaxed);
        (us != 0).then(|| Duration::from_micros(us))
    }

    /// Takes down who waits for the engine to begin an answer, and what the kernel has seen it say; for the control side,
    /// a few times a second. Answers that have begun are left out: their clients may be the slow ones.
    pub fn listen(&self) {
        self.silence.ask(self.waiting() > 0);
        self.silence_to_others.ask(self.counted.foreign_busy() > 0);
        if let Some((counts, true)) = self.counted.read() {
            counts.stream_age.iter().for_each(|ago| self.silence.ended(*ago));
            counts.answer_age.iter().for_each(|ago| self.silence_to_others.ended(*ago));
        }
        self.silence_to_others.ended_with(&self.silence);
    }

    /// For how long the engine has been silent to us or, where we want nothing of it, to others; `None` where nobody waits.
    #[must_use]
    pub fn silent(&self) -> Option<Duration> {
        self.silence.duration().or_else(|| self.silence_to_others.duration())
    }

    fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Whether a picker may choose the endpoint, as [`Health::admits`]; while a request of ours waits for one that hangs,
    /// it is trial enough.
    #[must_use]
    pub fn admits(&self) -> bool {
        let is_tried = self.health.is_hung() && (self.waiting() > 0 || self.reservations() > 0);
        !is_tried && self.health.admits()
    }

    /// Whether a request of ours waits for it: such a one is a trial that goes on.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.silence.duration().is_some()
    }

    /// Whether it has said something since it was judged to hang.
    #[must_use]
    pub fn speaks_again(&self) -> bool {
        self.silence.heard_ms() > self.health.hung_ms()
    }

    /// Takes one answer's time to first byte into the decayed figure (weight 1/8, as RFC 6298 does for SRTT).
    pub fn observe_ttft(&self, ttft: Duration) {
        let sample = u64::try_from(ttft.as_micros()).unwrap_or(u64::MAX).max(1);
        // A lost update between two workers costs one sample; a loop would cost every request.
        let decayed = match self.ttft_us.load(Relaxed) {
            0 => sample,
            old => (old - old / 8 + sample / 8).max(1),
        };
        self.ttft_us.store(decayed, Relaxed);
        let now_ms = clock::now_ms();
        let elapsed_ms = now_ms.saturating_sub(self.observed_ms.swap(now_ms, Relaxed)).min(SLOWEST_FADES_MS);
        let slowest = self.slowest_us.load(Relaxed);
        let faded = slowest.saturating_mul(elapsed_ms) / SLOWEST_FADES_MS;
        self.slowest_us.store(sample.max(slowest.saturating_sub(faded)), Relaxed);
    }

    /// The engine answered with content.
    pub fn succeeded(&self) {
        if self.health.succeeded() {
            self.silence_to_others.acquit();
            tracing::info!(endpoint = %self.label, "the endpoint answers again and is restored");
        }
    }

    /// The engine failed a request, if the reason is its own.
    pub fn failed(&self, reason: Reason) {
        if reason.blame() == Blame::Engine {
            self.count_failure(reason.word());
        }
    }

    /// The engine answered that it cannot serve: it loads its model, is overloaded, or lives on without it. Such answers
    /// come at once, so that the engine looks idle and swift and would draw the requests of all its peers.
    pub fn declined(&self, status: StatusCode) {
        self.count_failure(status.as_str());
    }

    fn count_failure(&self, reason: &str) {
        if let Some(ejection) = self.health.failed() {
            tracing::warn!(
                endpoint = %self.label,
                reason,
                ejected_s = ejection.as_secs_f64(),
                "the endpoint fails in a row and is left alone for a while"
            );
        }
    }

    /// Promises a request to this endpoint: counted at once, so that a burst sees itself.
    #[must_use]
    pub fn reserve(self: &Arc<Self>) -> Lease {
        self.reservations.fetch_add(1, Relaxed);
        Lease { endpoint: self.clone(), whole: false, begun: false, waits: false }
    }
}

/// Held while a request is in flight on an endpoint; given back on drop.
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    whole: bool,
    begun: bool,
    /// Whether it is one of those that wait for the engine.
    waits: bool,
}

impl Lease {
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The engine now has the whole request: the reservation becomes load.
    pub fn commit(&mut self) {
        if !self.whole {
            self.whole = true;
            self.endpoint.leases.fetch_add(1, Relaxed);
            self.endpoint.reservations.fetch_sub(1, Relaxed);
            if !self.begun {
                self.wait();
            }
        }
    }

    /// The engine has begun to answer.
    pub fn begin(&mut self) {
        self.begun = true;
        if std::mem::take(&mut self.waits) {
            self.endpoint.waiting.fetch_sub(1, Relaxed);
        }
    }

    /// Something of the answer is needed, and the engine has not sent it.
    pub fn wait(&mut self) {
        if self.whole && !self.waits {
            self.waits = true;
            self.endpoint.waiting.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let counter = if self.whole { &self.endpoint.leases } else { &self.endpoint.reservations };
        counter.fetch_sub(1, Relaxed);
        self.begin();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Arc<Endpoint> {
        Arc::new(Endpoint::new(Address::Tcp(([127, 0, 0, 1], 8000).into())))
    }

    #[test]
    fn a_lease_is_a_reservation_until_committed_and_nothing_after_drop() {
        let endpoint = endpoint();
        let mut lease = endpoint.reserve();
        assert_eq!((endpoint.leases(), endpoint.reservations()), (0, 1));
        lease.commit();
        lease.commit();
        assert_eq!((endpoint.leases(), endpoint.reservations()), (1, 0));
        drop(lease);
        drop(endpoint.reserve());
        assert_eq!((endpoint.leases(), endpoint.reservations()), (0, 0));
    }

    #[test]
    fn a_whole_request_waits_until_the_answer_has_begun() {
        let endpoint = endpoint();
        let (mut early, mut late) = (endpoint.reserve(), endpoint.reserve());
        early.begin();
        early.commit();
        assert_eq!(endpoint.waiting(), 0);
        early.wait();
        early.wait();
        assert_eq!(endpoint.waiting(), 1);
        late.commit();
        assert_eq!(endpoint.waiting(), 2);
        early.begin();
        early.begin();
        assert_eq!(endpoint.waiting(), 1);
        drop((early, late));
        assert_eq!(endpoint.waiting(), 0);
    }

    #[test]
    fn the_slowest_answer_fades_with_time_and_not_with_the_number_of_answers() {
        let endpoint = endpoint();
        let slowest = || endpoint.slowest_ttft().map(|slowest| slowest.as_secs());
        endpoint.observe_ttft(Duration::from_secs(60));
        for _ in 0..10_000 {
            pass(Duration::from_millis(1));
            endpoint.observe_ttft(Duration::from_millis(50));
        }
        assert_eq!(slowest(), Some(58));
        pass(Duration::from_secs(600));
        endpoint.observe_ttft(Duration::from_secs(2));
        assert_eq!(slowest(), Some(2));
    }

    #[test]
    fn ttft_decays_toward_new_samples() {
        let endpoint = endpoint();
        assert_eq!(endpoint.ttft(), None);
        endpoint.observe_ttft(Duration::from_micros(800));
        assert_eq!(endpoint.ttft(), Some(Duration::from_micros(800)));
        endpoint.observe_ttft(Duration::from_micros(1600));
        assert_eq!(endpoint.ttft(), Some(Duration::from_micros(900)));
    }
}
