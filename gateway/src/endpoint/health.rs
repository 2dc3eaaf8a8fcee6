//! An endpoint that fails in a row is left alone for a while (ejected), then tried with one request at a time
//! until it answers (restored).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::clock::now_ms;

/// Failures in a row that eject.
const FAILURES_TO_EJECT: u32 = 3;
/// The first ejection lasts this long; each further one twice as long.
const FIRST_EJECTION: Duration = Duration::from_secs(1);
/// No ejection lasts longer.
const LONGEST_EJECTION: Duration = Duration::from_secs(30);

/// Passive health: fed by the outcome of requests, read by the picker.
#[derive(Debug, Default)]
pub struct Health {
    failures: AtomicU32,
    /// Ejected until this many ms after process start; 0: not ejected.
    ejected_until_ms: AtomicU64,
    ejections: AtomicU64,
}

impl Health {
    /// Whether a picker may choose the endpoint. When an ejection has run out, exactly one caller is told yes
    /// and the ejection is prolonged, so that one request tries the engine and not a crowd.
    #[must_use]
    pub fn admits(&self) -> bool {
        let until = self.ejected_until_ms.load(Relaxed);
        if until == 0 {
            return true;
        }
        let now = now_ms();
        now >= until
            && self
                .ejected_until_ms
                .compare_exchange(until, now + FIRST_EJECTION.as_millis() as u64, Relaxed, Relaxed)
                .is_ok()
    }

    /// Whether the endpoint is left alone now; asks without the side effect of [`Self::admits`].
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.ejected_until_ms.load(Relaxed) != 0
    }

    /// How often the endpoint has been ejected.
    #[must_use]
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    /// The engine answered: whatever it was, it lives. Returns whether that restored it.
    pub fn succeeded(&self) -> bool {
        // Plain loads first: the hot path writes nothing while all is well.
        if self.failures.load(Relaxed) == 0 && self.ejected_until_ms.load(Relaxed) == 0 {
            return false;
        }
        self.failures.store(0, Relaxed);
        self.ejected_until_ms.swap(0, Relaxed) != 0
    }

    /// The engine refused, reset or spoke nonsense. Returns for how long it is ejected now, if it is.
    pub fn failed(&self) -> Option<Duration> {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        let over = failures.checked_sub(FAILURES_TO_EJECT)?;
        let ejection = FIRST_EJECTION.saturating_mul(1 << over.min(8)).min(LONGEST_EJECTION);
        self.ejected_until_ms.store(now_ms() + ejection.as_millis() as u64, Relaxed);
        self.ejections.fetch_add(1, Relaxed);
        Some(ejection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_eject_and_one_answer_restores() {
        let health = Health::default();
        assert_eq!(health.failed(), None);
        assert_eq!(health.failed(), None);
        assert!(!health.succeeded());
        assert_eq!(health.failed(), None);
        assert_eq!(health.failed(), None);
        assert_eq!(health.failed(), Some(FIRST_EJECTION));
        assert!(health.is_ejected() && !health.admits());
        assert!(health.succeeded());
        assert!(!health.is_ejected() && health.admits());
    }

    #[test]
    fn ejections_double_up_to_a_bound() {
        let health = Health::default();
        let longest = (0..40).filter_map(|_| health.failed()).max();
        assert_eq!(longest, Some(LONGEST_EJECTION));
    }

    #[test]
    fn an_ejection_that_ran_out_admits_one_trial() {
        let health = Health::default();
        (0..3).for_each(|_| _ = health.failed());
        health.ejected_until_ms.store(1, Relaxed);
        std::thread::sleep(Duration::from_millis(2));
        assert!(health.admits());
        assert!(!health.admits());
    }
}
