//! A deadline that moves often and is seldom reached.

#![forbid(unsafe_code)]

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer for all deadlines of a connection, one after the other. When they move on it stays where it was armed:
/// moving it for each request costs more than waking up too early once in a while.
#[derive(Debug, Default)]
pub struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
    /// Whom the timer wakes.
    waker: Option<Waker>,
}

impl Alarm {
    /// Whether a timer runs that will wake `cx`.
    #[must_use]
    pub fn wakes(&self, cx: &Context<'_>) -> bool {
        self.knows(cx) && self.timer.as_ref().is_some_and(|timer| !timer.is_elapsed())
    }

    fn knows(&self, cx: &Context<'_>) -> bool {
        self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
    }

    /// Ready when `deadline` has passed; wakes `cx` then, and maybe once before.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let known = self.knows(cx);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // Most often nothing has changed since the last time.
        if known && timer.deadline() <= deadline && !timer.is_elapsed() {
            return Poll::Pending;
        }
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        if !known {
            self.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn elapsed(alarm: &mut Alarm, start: Instant, deadline: Duration) -> Duration {
        poll_fn(|cx| alarm.poll(cx, start + deadline)).await;
        start.elapsed()
    }

    async fn is_pending(alarm: &mut Alarm, deadline: Instant) -> bool {
        poll_fn(|cx| Poll::Ready(alarm.poll(cx, deadline).is_pending())).await
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_deadline_asked_for_counts_however_it_moved() {
        let mut alarm = Alarm::default();
        let start = Instant::now();
        for seconds in [10, 5, 20] {
            assert!(is_pending(&mut alarm, start + seconds * SECOND).await);
        }
        let rounded = Duration::from_millis(2);
        let later = elapsed(&mut alarm, start, 20 * SECOND).await;
        assert!((20 * SECOND..20 * SECOND + rounded).contains(&later), "{later:?}");
        assert!(is_pending(&mut alarm, start + 30 * SECOND).await);
        let sooner = elapsed(&mut alarm, start, 25 * SECOND).await;
        assert!((25 * SECOND..25 * SECOND + rounded).contains(&sooner), "{sooner:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asked_last_is_woken() {
        let mut alarm = Alarm::default();
        let deadline = Instant::now() + SECOND;
        let forgotten = std::task::Waker::noop();
        for _ in 0..2 {
            assert!(alarm.poll(&mut Context::from_waker(forgotten), deadline).is_pending());
            assert!(is_pending(&mut alarm, deadline).await);
        }
        tokio::time::timeout(2 * SECOND, poll_fn(|cx| alarm.poll(cx, deadline))).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_has_passed_is_over_at_once_and_does_not_spoil_the_next() {
        let mut alarm = Alarm::default();
        let start = Instant::now();
        assert_eq!(elapsed(&mut alarm, start, Duration::ZERO).await, Duration::ZERO);
        assert!(is_pending(&mut alarm, start + SECOND).await);
        assert!(!is_pending(&mut alarm, start).await);
    }
}
