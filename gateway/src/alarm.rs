//! A deadline that moves often and is seldom reached.

#![forbid(unsafe_code)]

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer for all deadlines of a connection, one after the other. When they move on it stays where it was armed:
/// moving it for each request costs more than waking up too early once in a while.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when `deadline` has passed; wakes `cx` then, and maybe once before.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
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
    async fn a_deadline_that_has_passed_is_over_at_once_and_does_not_spoil_the_next() {
        let mut alarm = Alarm::default();
        let start = Instant::now();
        assert_eq!(elapsed(&mut alarm, start, Duration::ZERO).await, Duration::ZERO);
        assert!(is_pending(&mut alarm, start + SECOND).await);
        assert!(!is_pending(&mut alarm, start).await);
    }
}
