//! Who may enter: bounds on what the process holds at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::failure::{Failure, Reason};
use crate::ledger::Ledger;
use crate::snapshot::{Pool, Traffic};

/// Bytes of bodies held before they flow, over all requests of the process.
const HELD_LIMIT: u64 = 1 << 30;
/// Retries that cost an engine work may be this many at once, whatever the load…
const RETRIES_FLOOR: u32 = 3;
/// …and else one in so many requests in flight.
const RETRIES_ONE_IN: u32 = 5;

/// The process's bounds; shared by every worker.
#[derive(Clone, Debug)]
pub struct Budget {
    ledger: Ledger,
    retries: Arc<AtomicU32>,
}

impl Budget {
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, retries: Arc::default() }
    }

    /// Starts an account of held bytes.
    #[must_use]
    pub fn hold(&self) -> Held {
        Held { ledger: self.ledger.clone(), bytes: 0 }
    }

    /// The right to try a request again that an engine may already have worked on.
    #[must_use]
    pub fn retry(&self) -> Option<RetryPermit> {
        let allowed = u32::try_from(self.ledger.in_flight()).unwrap_or(u32::MAX) / RETRIES_ONE_IN;
        let taken = self.retries.fetch_add(1, Relaxed);
        let permit = RetryPermit(self.retries.clone());
        (taken < allowed.max(RETRIES_FLOOR)).then_some(permit)
    }
}

/// Held while a retry is under way.
#[derive(Debug)]
pub struct RetryPermit(Arc<AtomicU32>);

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Bytes that one request holds; given back on drop.
#[derive(Debug)]
pub struct Held {
    ledger: Ledger,
    bytes: u64,
}

impl Held {
    /// Takes more into the account.
    ///
    /// # Errors
    /// When the process holds too much already.
    pub fn add(&mut self, bytes: u64) -> Result<(), Failure> {
        self.bytes += bytes;
        if self.ledger.process().buffered(bytes) > HELD_LIMIT {
            return Err(Failure::new(
                Reason::Saturated,
                "too many large request bodies are being read; try again",
            ));
        }
        Ok(())
    }

    /// Gives bytes back: they have gone out and are not kept.
    pub fn release(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        if bytes > 0 {
            self.ledger.process().unbuffered(bytes);
            self.bytes -= bytes;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}

/// Whether a pool may take one more request.
///
/// # Errors
/// `saturated` when `maxParallelRequests` are in flight already.
pub fn admit(pool: &Pool, traffic: &Traffic) -> Result<(), Failure> {
    let Some(most) = traffic.max_parallel_requests else { return Ok(()) };
    let in_flight: u32 = pool.endpoints.iter().map(|e| e.leases() + e.reservations()).sum();
    if in_flight >= most {
        return Err(Failure::new(
            Reason::Saturated,
            format!("the pool {} has {most} requests in flight already (maxParallelRequests)", pool.name),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{AccessLog, Meter};

    fn ledger() -> Ledger {
        Ledger::new(AccessLog::off())
    }

    #[test]
    fn held_bytes_are_given_back_once() {
        let ledger = ledger();
        let mut held = Budget::new(ledger.clone()).hold();
        held.add(100).unwrap();
        held.add(20).unwrap();
        assert_eq!(ledger.process().buffered_bytes(), 120);
        held.release(1000);
        held.add(7).unwrap();
        drop(held);
        assert_eq!(ledger.process().buffered_bytes(), 0);
    }

    #[test]
    fn beyond_the_limit_a_body_is_shed_and_its_bytes_given_back() {
        let ledger = ledger();
        let budget = Budget::new(ledger.clone());
        let mut large = budget.hold();
        large.add(HELD_LIMIT).unwrap();
        let mut more = budget.hold();
        assert_eq!(more.add(1).unwrap_err().reason, Reason::Saturated);
        drop(more);
        assert_eq!(ledger.process().buffered_bytes(), HELD_LIMIT);
    }

    #[test]
    fn retries_are_a_fraction_of_the_load_with_a_floor() {
        let ledger = ledger();
        let budget = Budget::new(ledger.clone());
        let few: Vec<_> = (0..10).filter_map(|_| budget.retry()).collect();
        assert_eq!(few.len(), 3);
        drop(few);
        let meter = Arc::new(Meter::default());
        let _in_flight: Vec<_> = (0..100).map(|_| ledger.open(&meter)).collect();
        let many: Vec<_> = (0..100).filter_map(|_| budget.retry()).collect();
        assert_eq!(many.len(), 20);
    }
}
