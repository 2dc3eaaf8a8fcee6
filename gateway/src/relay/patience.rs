//! How long an answer may be silent, and how long it may take in all.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::alarm::Alarm;
use crate::failure::{Failure, Reason, request_timeout};

/// Bounds on an answer's time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Silence of the engine.
    pub idle: Duration,
    /// When the whole exchange must be over; `None`: no bound.
    pub deadline: Option<Instant>,
}

/// Watches one answer; asks for the alarm only when the engine pauses.
pub(super) struct Patience {
    limits: Limits,
    last: Instant,
}

impl Patience {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, last: Instant::now() }
    }

    /// When the whole exchange must be over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.limits.deadline
    }

    /// The engine said something now; returns when that is.
    ///
    /// # Errors
    /// When the deadline has passed: nobody asks for the alarm while the engine never pauses.
    pub(super) fn renew(&mut self) -> Result<Instant, Failure> {
        self.last = Instant::now();
        match self.limits.deadline {
            Some(deadline) if deadline <= self.last => Err(request_timeout()),
            _ => Ok(self.last),
        }
    }

    /// The engine said something at this time; whether that is news.
    pub(super) fn heard(&mut self, at: std::time::Instant) -> bool {
        let at = Instant::from_std(at);
        let news = at > self.last;
        self.last = self.last.max(at);
        news
    }

    /// When the engine last said something.
    pub(super) fn last(&self) -> Instant {
        self.last
    }

    /// Ready when a bound is reached.
    pub(super) fn poll(&self, alarm: &mut Alarm, cx: &mut Context<'_>) -> Poll<Failure> {
        let idle_at = self.last + self.limits.idle;
        let next = self.limits.deadline.map_or(idle_at, |deadline| deadline.min(idle_at));
        ready!(alarm.poll(cx, next));
        Poll::Ready(if next == idle_at {
            Failure::new(Reason::EngineSlow, "the engine fell silent in its answer")
        } else {
            request_timeout()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::time::{advance, timeout};

    async fn bound_within(patience: &mut Patience, wait: u64) -> Option<Reason> {
        let mut alarm = Alarm::default();
        let bound = timeout(Duration::from_secs(wait), poll_fn(|cx| patience.poll(&mut alarm, cx))).await;
        bound.ok().map(|failure| failure.reason)
    }

    #[tokio::test(start_paused = true)]
    async fn each_word_buys_the_idle_time_again() {
        let mut patience = Patience::new(Limits { idle: Duration::from_secs(10), deadline: None });
        assert_eq!(bound_within(&mut patience, 9).await, None);
        patience.renew().unwrap();
        assert_eq!(bound_within(&mut patience, 9).await, None);
        assert_eq!(bound_within(&mut patience, 2).await, Some(Reason::EngineSlow));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_said_unheard_counts_from_when_it_was_said() {
        let mut patience = Patience::new(Limits { idle: Duration::from_secs(10), deadline: None });
        let begun = Instant::now();
        advance(Duration::from_secs(9)).await;
        assert!(patience.heard((begun + Duration::from_secs(6)).into_std()));
        assert!(!patience.heard((begun + Duration::from_secs(5)).into_std()));
        assert_eq!(bound_within(&mut patience, 6).await, None);
        assert_eq!(bound_within(&mut patience, 2).await, Some(Reason::EngineSlow));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_holds_however_lively_the_engine() {
        let deadline = Some(Instant::now() + Duration::from_secs(30));
        let mut patience = Patience::new(Limits { idle: Duration::from_secs(10), deadline });
        for _ in 0..3 {
            assert_eq!(bound_within(&mut patience, 9).await, None);
            patience.renew().unwrap();
        }
        advance(Duration::from_secs(1)).await;
        assert_eq!(bound_within(&mut patience, 5).await, Some(Reason::RequestTimeout));
        assert_eq!(patience.renew().unwrap_err().reason, Reason::RequestTimeout);
    }
}
