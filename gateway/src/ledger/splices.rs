//! How splicing goes, for the process as a whole: arms, hand-backs by reason, and answers that could not be spliced.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::kernel::splice::Reason;

/// One for each [`Reason`], and one for none.
const HAND_BACKS: usize = 8;

/// Shared by all workers; written a few times per answer.
#[derive(Debug, Default)]
pub struct SpliceMeters {
    arms: AtomicU64,
    /// By [`Reason`]; the first: none.
    handed_back: [AtomicU64; HAND_BACKS],
    unspliced: [AtomicU64; Unspliced::ALL.len()],
}

/// Why the events of a chunked HTTP/1.1 answer all pass the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unspliced {
    /// The engine is on another host, behind address translation, or speaks over a Unix socket.
    Remote,
    /// Another program holds the engine's socket.
    Held,
    /// As many connections as can be spliced are open.
    NoSlot,
    /// The kernel does not take the client's socket.
    Client,
    /// Something at this endpoint did not add up before.
    Anomaly,
    /// The route says so.
    Off,
}

impl Unspliced {
    pub const ALL: [Self; 6] =
        [Self::Remote, Self::Held, Self::NoSlot, Self::Client, Self::Anomaly, Self::Off];

    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Remote => "remote",
            Self::Held => "held",
            Self::NoSlot => "no_slot",
            Self::Client => "client",
            Self::Anomaly => "anomaly",
            Self::Off => "off",
        }
    }
}

impl SpliceMeters {
    pub fn armed(&self) {
        self.arms.fetch_add(1, Relaxed);
    }

    pub fn handed_back(&self, reason: Option<Reason>) {
        if let Some(counter) = self.handed_back.get(reason.map_or(0, |reason| reason as usize)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub fn unspliced(&self, why: Unspliced) {
        if let Some(counter) = self.unspliced.get(why as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    #[must_use]
    pub fn arms(&self) -> u64 {
        self.arms.load(Relaxed)
    }

    /// Each reason with its count; without a reason, the engine ended its connection, or somebody the answer.
    pub fn hand_backs(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let word = |reason| Reason::of(reason).map_or("ended", Reason::word);
        (0..).zip(&self.handed_back).map(move |(reason, count)| (word(reason), count.load(Relaxed)))
    }

    #[must_use]
    pub fn unspliced_for(&self, why: Unspliced) -> u64 {
        self.unspliced.get(why as usize).map_or(0, |counter| counter.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_and_a_word_of_its_own() {
        let meters = SpliceMeters::default();
        let reasons = (1..20).filter_map(Reason::of);
        reasons.map(Some).chain([None]).for_each(|reason| meters.handed_back(reason));
        assert!(meters.hand_backs().all(|(_, count)| count == 1));
        let mut words: Vec<_> = meters.hand_backs().map(|(word, _)| word).collect();
        words.extend(Unspliced::ALL.map(Unspliced::word));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), HAND_BACKS + Unspliced::ALL.len());
    }
}
