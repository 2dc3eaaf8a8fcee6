//! Requests counted by how they ended: a small table whose rows are claimed as outcomes are met.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::failure::Reason;

/// Distinct outcomes told apart per meter: every reason word with room for a dozen statuses of engines. An engine
/// that makes up statuses fills the table and no more.
const ROWS: usize = 40;
const FREE: u32 = 0;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// The status that the client was sent; 499 where it left before one; 0 stands for all that found no row.
    pub status: u16,
    /// `None`: an answer passed on whole.
    pub reason: Option<Reason>,
}

impl Outcome {
    /// What is counted once the table is full.
    pub const OTHER: Self = Self { status: 0, reason: None };

    /// Status and reason in one word, never [`FREE`].
    fn key(self) -> u32 {
        let reason = self.reason.map_or(1, |reason| reason as u32 + 2);
        (u32::from(self.status) << 8) | reason
    }

    fn of_key(key: u32) -> Self {
        let reason = (key & 0xff).checked_sub(2).and_then(|index| Reason::ALL.get(index as usize));
        Self { status: (key >> 8) as u16, reason: reason.copied() }
    }
}

#[derive(Debug)]
pub(super) struct Outcomes {
    rows: [Row; ROWS],
    other: AtomicU64,
}

#[derive(Debug, Default)]
struct Row {
    /// An outcome's key, or [`FREE`]; once claimed it never changes.
    key: AtomicU32,
    count: AtomicU64,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self { rows: std::array::from_fn(|_| Row::default()), other: AtomicU64::new(0) }
    }
}

impl Outcomes {
    /// The commonest outcome claims a row among the first, so the search is short.
    pub(super) fn count(&self, outcome: Outcome) {
        let key = outcome.key();
        // What claims to be `OTHER` is: a scrape must not see it in two places.
        for row in self.rows.iter().filter(|_| outcome != Outcome::OTHER) {
            let mut found = row.key.load(Relaxed);
            if found == FREE {
                found =
                    row.key.compare_exchange(FREE, key, Relaxed, Relaxed).map_or_else(|taken| taken, |_| key);
            }
            if found == key {
                row.count.fetch_add(1, Relaxed);
                return;
            }
        }
        self.other.fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> Vec<(Outcome, u64)> {
        let rows = self.rows.iter().map(|row| (row.key.load(Relaxed), row.count.load(Relaxed)));
        let known = rows.filter(|&(key, _)| key != FREE).map(|(key, count)| (Outcome::of_key(key), count));
        let other = (Outcome::OTHER, self.other.load(Relaxed));
        known.chain([other].into_iter().filter(|&(_, count)| count > 0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_survives_its_key() {
        for reason in Reason::ALL.iter().copied().map(Some).chain([None]) {
            for status in [0, 100, 200, 499, 999] {
                let outcome = Outcome { status, reason };
                assert_ne!(outcome.key(), FREE);
                assert_eq!(Outcome::of_key(outcome.key()), outcome);
            }
        }
    }

    #[test]
    fn workers_that_meet_a_new_outcome_at_once_count_it_in_one_row() {
        let outcomes = Outcomes::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for status in (200..210).cycle().take(10_000) {
                        outcomes.count(Outcome { status, reason: None });
                    }
                });
            }
        });
        let mut read = outcomes.read();
        read.sort_by_key(|(outcome, _)| outcome.status);
        let expected: Vec<_> = (200..210).map(|status| (Outcome { status, reason: None }, 4_000)).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn an_engine_that_makes_up_statuses_is_bounded() {
        let outcomes = Outcomes::default();
        outcomes.count(Outcome::OTHER);
        (100..1000).for_each(|status| outcomes.count(Outcome { status, reason: None }));
        let read = outcomes.read();
        assert_eq!(read.len(), ROWS + 1);
        assert_eq!(read.last(), Some(&(Outcome::OTHER, 901 - ROWS as u64)));
    }
}
