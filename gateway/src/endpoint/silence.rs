//! For how long an engine that is asked has said nothing to those who wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::clock::{ms_of, now_ms};

/// Times are in ms of [`now_ms`]; 0: never.
#[derive(Debug, Default)]
pub struct Silence {
    /// When bytes of an answer last came.
    heard_ms: AtomicU64,
    /// Since when somebody waits for an answer; kept by the control side.
    asked_ms: AtomicU64,
    /// Whether those who wait now are no evidence.
    acquitted: AtomicBool,
}

impl Silence {
    /// Bytes of an answer came `now`; one store in a millisecond at most.
    pub fn end(&self, now: Instant) {
        let now_ms = ms_of(now);
        if self.heard_ms.load(Relaxed) != now_ms {
            self.heard_ms.store(now_ms, Relaxed);
        }
    }

    /// Bytes of an answer came so long ago.
    pub fn ended(&self, ago: Duration) {
        let then_ms = now_ms().saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
        self.heard_ms.fetch_max(then_ms, Relaxed);
    }

    /// What ended another silence ends this one.
    pub fn ended_with(&self, other: &Self) {
        self.heard_ms.fetch_max(other.heard_ms(), Relaxed);
    }

    /// Takes down whether anybody waits for an answer now.
    pub fn ask(&self, asked: bool) {
        match (asked, self.asked_ms.load(Relaxed)) {
            (true, 0) => self.asked_ms.store(now_ms(), Relaxed),
            (false, 1..) => {
                self.asked_ms.store(0, Relaxed);
                self.acquitted.store(false, Relaxed);
            }
            _ => {}
        }
    }

    /// The engine was proved to live: that somebody waits is his own doing, until all who wait now are gone. Half a
    /// request, or an answer that its client does not read, would otherwise speak against the engine for ever.
    pub fn acquit(&self) {
        self.acquitted.store(true, Relaxed);
    }

    /// How long it lasts; `None` where nobody waits.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        let asked_ms = self.asked_ms.load(Relaxed);
        let since = asked_ms.max(self.heard_ms.load(Relaxed));
        (asked_ms != 0 && !self.acquitted.load(Relaxed))
            .then(|| Duration::from_millis(now_ms().saturating_sub(since)))
    }

    pub(super) fn heard_ms(&self) -> u64 {
        self.heard_ms.load(Relaxed)
    }

    /// Whether bytes of an answer came within the last `time`.
    #[must_use]
    pub fn ended_within(&self, time: Duration) -> bool {
        let heard_ms = self.heard_ms.load(Relaxed);
        heard_ms != 0 && u128::from(now_ms().saturating_sub(heard_ms)) < time.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::pass;

    #[test]
    fn it_lasts_since_the_last_byte_or_since_somebody_asked() {
        let silence = Silence::default();
        let lasts = || silence.duration().map(|duration| duration.as_secs());
        pass(Duration::from_secs(60));
        assert_eq!(lasts(), None);
        silence.ask(true);
        pass(Duration::from_secs(3));
        silence.ask(true);
        assert_eq!(lasts(), Some(3));
        silence.end(Instant::now());
        pass(Duration::from_secs(2));
        assert_eq!(lasts(), Some(2));
        silence.ended(Duration::from_secs(1));
        silence.ended(Duration::from_secs(9));
        assert_eq!(lasts(), Some(1));
        assert!(
            silence.ended_within(Duration::from_secs(2)) && !silence.ended_within(Duration::from_secs(1))
        );
        silence.ask(false);
        assert_eq!(lasts(), None);
    }
}
