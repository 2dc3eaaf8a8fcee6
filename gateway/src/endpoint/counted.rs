//! What the kernel counts at an endpoint: written ten times a second by the control side, read by every pick.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::clock;
use crate::kernel::EndpointCounts;

/// Counts older than this say nothing about now.
const FRESH_MS: u64 = 2_000;
/// A drift of shorter duration is two readings of one change.
const DRIFT_MS: u64 = 2_000;

/// What the kernel's counts are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There never were any.
    Uncounted,
    /// None came of late.
    Stale,
    /// They stay apart from what can be found.
    Drifting,
    /// Picking goes by them.
    Believed,
}

/// The last counts, and whether they are to be believed.
#[derive(Debug, Default)]
pub struct Counted {
    /// Requests of others, as far as the counts are believed; picking reads nothing but these two.
    busy: AtomicU32,
    /// When the counts came, in ms of [`clock::now_ms`]; 0 before the first.
    came_ms: AtomicU64,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    counts: EndpointCounts,
    /// Since when there is a drift.
    drifts_ms: Option<u64>,
}

impl Counted {
    /// The control side has read these. Answers whether they are believed.
    pub fn publish(&self, counts: EndpointCounts) -> bool {
        self.publish_at(counts, clock::now_ms())
    }

    fn publish_at(&self, counts: EndpointCounts, now_ms: u64) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let drifts_ms = (counts.drift != 0).then(|| last.drifts_ms.unwrap_or(now_ms));
        *last = Last { counts, drifts_ms };
        let believed = !drifts(drifts_ms, now_ms);
        self.busy.store(if believed { counts.foreign_busy } else { 0 }, Relaxed);
        self.came_ms.store(now_ms, Relaxed);
        believed
    }

    /// Requests that others have at the endpoint; 0 where the kernel does not say, or is not believed.
    #[must_use]
    pub fn foreign_busy(&self) -> u32 {
        match self.busy.load(Relaxed) {
            0 => 0,
            busy if self.is_fresh(clock::now_ms()) => busy,
            _ => 0,
        }
    }

    /// The last counts, and whether picking believes them; `None` where the kernel has said nothing lately.
    #[must_use]
    pub fn read(&self) -> Option<(EndpointCounts, bool)> {
        let now_ms = clock::now_ms();
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_fresh(now_ms).then(|| (last.counts, !drifts(last.drifts_ms, now_ms)))
    }

    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.read() {
            Some((_, true)) => Standing::Believed,
            Some((_, false)) => Standing::Drifting,
            None if self.came_ms.load(Relaxed) != 0 => Standing::Stale,
            None => Standing::Uncounted,
        }
    }

    fn is_fresh(&self, now_ms: u64) -> bool {
        let came_ms = self.came_ms.load(Relaxed);
        came_ms != 0 && now_ms.saturating_sub(came_ms) <= FRESH_MS
    }
}

fn drifts(since_ms: Option<u64>, now_ms: u64) -> bool {
    since_ms.is_some_and(|since| now_ms.saturating_sub(since) >= DRIFT_MS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::endpoint::pass;

    fn busy(foreign_busy: u32, drift: i32) -> EndpointCounts {
        EndpointCounts { foreign_busy, drift, ..EndpointCounts::default() }
    }

    #[test]
    fn counts_stand_as_they_come_drift_and_grow_old() {
        let counted = Counted::default();
        assert_eq!(counted.standing(), Standing::Uncounted);
        counted.publish(busy(3, 0));
        assert_eq!((counted.standing(), counted.foreign_busy()), (Standing::Believed, 3));
        counted.publish(busy(3, 1));
        pass(Duration::from_secs(2));
        counted.publish(busy(3, 1));
        assert_eq!((counted.standing(), counted.foreign_busy()), (Standing::Drifting, 0));
        counted.publish(busy(3, 0));
        pass(Duration::from_millis(FRESH_MS + 1));
        assert_eq!((counted.standing(), counted.foreign_busy()), (Standing::Stale, 0));
    }

    #[test]
    fn nothing_is_believed_before_the_first_counts_or_after_old_ones() {
        let counted = Counted::default();
        assert_eq!((counted.foreign_busy(), counted.read()), (0, None));
        let now_ms = clock::now_ms();
        counted.publish_at(busy(3, 0), now_ms);
        assert_eq!((counted.foreign_busy(), counted.read()), (3, Some((busy(3, 0), true))));
        assert!(counted.is_fresh(now_ms + FRESH_MS) && !counted.is_fresh(now_ms + FRESH_MS + 1));
    }

    #[test]
    fn a_drift_that_stays_is_not_believed_until_it_has_gone() {
        let counted = Counted::default();
        let now_ms = clock::now_ms();
        let at = |counts, ms| (counted.publish_at(counts, now_ms + ms), counted.foreign_busy());
        assert_eq!(at(busy(3, 1), 0), (true, 3));
        assert_eq!(at(busy(3, 0), 1_900), (true, 3));
        assert_eq!(at(busy(3, -1), 2_000), (true, 3));
        assert_eq!(at(busy(3, -2), 4_000), (false, 0));
        assert_eq!(at(busy(3, 0), 4_100), (true, 3));
    }
}
