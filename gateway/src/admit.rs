//! Who may enter: bounds on what the process holds at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::failure::{Failure, Reason};
use crate::snapshot::{Pool, Traffic};

/// Bytes of bodies held before they flow, over all requests of the process.
const HELD_LIMIT: u64 = 1 << 30;
/// Retries that cost an engine work may be this many at once, whatever the load…
const RETRIES_FLOOR: u32 = 3;
/// …and else one in so many requests in flight.
const RETRIES_ONE_IN: u32 = 5;

/// The process's bounds; shared by every worker.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    held_bytes: AtomicU64,
    retries: AtomicU32,
}

impl Budget {
    /// Starts an account of held bytes.
    #[must_use]
    pub fn hold(&self) -> Held {
        Held { shared: self.shared.clone(), bytes: 0 }
    }

    /// Bytes of bodies held now.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.shared.held_bytes.load(Relaxed)
    }

    /// The right to try a request again that an engine may already have worked on.
    #[must_use]
    pub fn retry(&self, in_flight: u64) -> Option<RetryPermit> {
        let allowed = u32::try_from(in_flight).unwrap_or(u32::MAX) / RETRIES_ONE_IN;
        let taken = self.shared.retries.fetch_add(1, Relaxed);
        let permit = RetryPermit { shared: self.shared.clone() };
        (taken < allowed.max(RETRIES_FLOOR)).then_some(permit)
    }
}

/// Held while a retry is under way.
#[derive(Debug)]
pub struct RetryPermit {
    shared: Arc<Shared>,
}

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.shared.retries.fetch_sub(1, Relaxed);
    }
}

/// Bytes that one request holds; given back on drop.
#[derive(Debug)]
pub struct Held {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Held {
    /// Takes more into the account.
    ///
    /// # Errors
    /// When the process holds too much already.
    pub fn add(&mut self, bytes: u64) -> Result<(), Failure> {
        self.bytes += bytes;
        let before = self.shared.held_bytes.fetch_add(bytes, Relaxed);
        if before + bytes > HELD_LIMIT {
            return Err(Failure::new(Reason::Saturated, "too many large request bodies are being read; try again"));
        }
        Ok(())
    }

    /// Gives everything back: the bytes flow.
    pub fn release(&mut self) {
        if self.bytes > 0 {
            self.shared.held_bytes.fetch_sub(self.bytes, Relaxed);
            self.bytes = 0;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
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

    #[test]
    fn held_bytes_are_given_back_once() {
        let budget = Budget::default();
        let mut held = budget.hold();
        held.add(100).unwrap();
        held.add(20).unwrap();
        assert_eq!(budget.held_bytes(), 120);
        held.release();
        held.add(7).unwrap();
        drop(held);
        assert_eq!(budget.held_bytes(), 0);
    }

    #[test]
    fn beyond_the_limit_a_body_is_shed_and_its_bytes_given_back() {
        let budget = Budget::default();
        let mut large = budget.hold();
        large.add(HELD_LIMIT).unwrap();
        let mut more = budget.hold();
        assert_eq!(more.add(1).unwrap_err().reason, Reason::Saturated);
        drop(more);
        assert_eq!(budget.held_bytes(), HELD_LIMIT);
    }

    #[test]
    fn retries_are_a_fraction_of_the_load_with_a_floor() {
        let budget = Budget::default();
        let few: Vec<_> = (0..10).filter_map(|_| budget.retry(1)).collect();
        assert_eq!(few.len(), 3);
        drop(few);
        let many: Vec<_> = (0..100).filter_map(|_| budget.retry(100)).collect();
        assert_eq!(many.len(), 20);
    }
}
