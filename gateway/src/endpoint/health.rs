//! An endpoint that fails in a row, or hangs, is left alone for a while (ejected), then tried with one request at a
//! time until it answers (restored).

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
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
    /// Ejected until this time of [`now_ms`]; 0: not ejected.
    ejected_until_ms: AtomicU64,
    /// Ejections since the last answer: each is twice as long as the one before.
    streak: AtomicU32,
    /// Whether the one request that tries an ejected endpoint is out.
    trial: AtomicBool,
    /// When it was last judged to hang, in ms of [`now_ms`]; 0: it does not.
    hung_ms: AtomicU64,
    ejections: AtomicU64,
}

impl Health {
    /// Whether a picker may choose the endpoint. When an ejection has run out, exactly one caller is told yes
    /// and the ejection goes on for as long again, so that one request tries the engine and not a crowd.
    #[must_use]
    pub fn admits(&self) -> bool {
        let until = self.ejected_until_ms.load(Relaxed);
        if until == 0 {
            return true;
        }
        let now = now_ms();
        let again = now + ejection(self.streak.load(Relaxed).saturating_sub(1)).as_millis() as u64;
        let taken =
            now >= until && self.ejected_until_ms.compare_exchange(until, again, Relaxed, Relaxed).is_ok();
        if taken {
            self.trial.store(true, Relaxed);
        }
        taken
    }

    /// Whether the endpoint is left alone now; asks without the side effect of [`Self::admits`].
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.ejected_until_ms.load(Relaxed) != 0
    }

    /// Whether it is left alone because it hangs.
    #[must_use]
    pub fn is_hung(&self) -> bool {
        self.hung_ms() != 0
    }

    pub(super) fn hung_ms(&self) -> u64 {
        self.hung_ms.load(Relaxed)
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
        self.streak.store(0, Relaxed);
        self.trial.store(false, Relaxed);
        self.hung_ms.store(0, Relaxed);
        self.ejected_until_ms.swap(0, Relaxed) != 0
    }

    /// The engine refused, reset or spoke nonsense. Returns for how long that ejects it, if it does: what else
    /// fails while it is ejected belongs to the same incident, but for the trial.
    pub fn failed(&self) -> Option<Duration> {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        let until = self.ejected_until_ms.load(Relaxed);
        let trial = self.trial.swap(false, Relaxed);
        if failures < FAILURES_TO_EJECT || (until != 0 && !trial) {
            return None;
        }
        self.eject(until)
    }

    /// The engine is asked and says nothing. Returns for how long that ejects it, if it does; the ejection of one that
    /// hangs already begins anew, so that it runs from when nobody asks any more.
    pub fn hangs(&self) -> Option<Duration> {
        let until = self.ejected_until_ms.load(Relaxed);
        let trial = self.trial.swap(false, Relaxed);
        if until != 0 && !trial {
            if self.is_hung() {
                let again =
                    now_ms() + ejection(self.streak.load(Relaxed).saturating_sub(1)).as_millis() as u64;
                // Lost where the endpoint is restored meanwhile.
                let _ = self.ejected_until_ms.compare_exchange(until, again, Relaxed, Relaxed);
            }
            return None;
        }
        self.hung_ms.store(now_ms(), Relaxed);
        self.eject(until)
    }

    /// Of two that see the same incident, one ejects.
    fn eject(&self, until: u64) -> Option<Duration> {
        let ejection = ejection(self.streak.load(Relaxed));
        let ejected = now_ms() + ejection.as_millis() as u64;
        self.ejected_until_ms.compare_exchange(until, ejected, Relaxed, Relaxed).ok()?;
        self.streak.fetch_add(1, Relaxed);
        self.ejections.fetch_add(1, Relaxed);
        Some(ejection)
    }
}

/// How long the ejection after `streak` others lasts.
fn ejection(streak: u32) -> Duration {
    FIRST_EJECTION.saturating_mul(1 << streak.min(8)).min(LONGEST_EJECTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_out(health: &Health) {
        health.ejected_until_ms.store(1, Relaxed);
        std::thread::sleep(Duration::from_millis(2));
    }

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
    fn one_incident_ejects_once_however_many_requests_it_took() {
        let health = Health::default();
        let ejections: Vec<_> = (0..40).filter_map(|_| health.failed()).collect();
        assert_eq!(ejections, [FIRST_EJECTION]);
        assert_eq!(health.ejections(), 1);
    }

    #[test]
    fn each_failed_trial_doubles_the_ejection_up_to_a_bound() {
        let health = Health::default();
        (0..3).for_each(|_| _ = health.failed());
        let mut lasted = Vec::new();
        for _ in 0..8 {
            run_out(&health);
            assert!(health.admits());
            lasted.extend(health.failed().map(|ejection| ejection.as_secs()));
        }
        assert_eq!(lasted, [2, 4, 8, 16, 30, 30, 30, 30]);
    }

    #[test]
    fn one_that_hangs_is_left_alone_until_its_ejection_ran_out_in_peace() {
        let health = Health::default();
        assert_eq!(health.hangs(), Some(FIRST_EJECTION));
        run_out(&health);
        assert_eq!(health.hangs(), None);
        assert!(health.is_hung() && !health.admits());
        run_out(&health);
        assert!(health.admits());
        assert_eq!(health.hangs(), Some(2 * FIRST_EJECTION));
        assert!(health.succeeded());
        assert!(!health.is_hung() && health.admits());
    }

    #[test]
    fn an_ejection_that_ran_out_admits_one_trial() {
        let health = Health::default();
        (0..3).for_each(|_| _ = health.failed());
        run_out(&health);
        assert!(health.admits());
        assert!(!health.admits());
    }
}
