//! A body must make progress: its first window within ten seconds, then 16 KiB in each ten.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::FIRST_WINDOW;
use crate::failure::{Failure, Reason};

const PERIOD: Duration = Duration::from_secs(10);
const BYTES_PER_PERIOD: u64 = 16 << 10;

/// Watches one body. Only time spent waiting for the client counts: a slow engine is not its fault.
pub(super) struct Pace {
    /// Still to come in the present period.
    wanted: u64,
    /// Waited in the present period, up to the present wait.
    waited: Duration,
    /// When the whole body must be there, where the listener says so.
    whole_by: Option<Instant>,
    /// When the present wait began.
    waiting_since: Option<Instant>,
    /// Boxed: most bodies arrive whole and never wait.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// A body of a declared length, if any.
    pub(super) fn new(declared: Option<u64>) -> Self {
        let wanted = declared.unwrap_or(FIRST_WINDOW).min(FIRST_WINDOW);
        Self { wanted, waited: Duration::ZERO, whole_by: None, waiting_since: None, timer: None }
    }

    /// The whole body must be there within `limit` from now.
    pub(super) fn set_limit(&mut self, limit: Option<Duration>) {
        self.whole_by = limit.map(|limit| Instant::now() + limit);
    }

    pub(super) fn received(&mut self, bytes: usize) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        self.wanted = self.wanted.saturating_sub(bytes as u64);
        if self.wanted == 0 {
            self.wanted = BYTES_PER_PERIOD;
            self.waited = Duration::ZERO;
        }
    }

    /// Ready, with the refusal, when the client has been too slow.
    pub(super) fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let progress_by = since + PERIOD.saturating_sub(self.waited);
        let deadline = self.whole_by.map_or(progress_by, |whole_by| whole_by.min(progress_by));
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx).map(|()| too_slow(deadline < progress_by))
    }
}

fn too_slow(whole: bool) -> Failure {
    let message = if whole {
        "the request body was not complete in time (timeout.http.requestReceivedTimeout)".into()
    } else {
        format!(
            "the request body came slower than its first {FIRST_WINDOW} bytes, or {BYTES_PER_PERIOD} after them, \
             in {} s",
            PERIOD.as_secs()
        )
    };
    Failure::new(Reason::BodySlow, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::time::{advance, timeout};

    async fn is_slow(pace: &mut Pace, within: Duration) -> bool {
        timeout(within, poll_fn(|cx| pace.poll_slow(cx))).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_for_a_period_is_slow() {
        let mut pace = Pace::new(None);
        assert!(!is_slow(&mut pace, PERIOD - Duration::from_millis(10)).await);
        assert!(is_slow(&mut pace, Duration::from_millis(20)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_does_not_buy_time_but_a_window_does() {
        let mut pace = Pace::new(None);
        assert!(!is_slow(&mut pace, Duration::from_secs(6)).await);
        pace.received(10);
        assert!(is_slow(&mut pace, Duration::from_secs(6)).await);

        let mut pace = Pace::new(None);
        assert!(!is_slow(&mut pace, Duration::from_secs(6)).await);
        pace.received(FIRST_WINDOW as usize);
        assert!(!is_slow(&mut pace, Duration::from_secs(6)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_body_is_wanted_whole_and_a_long_one_in_steps() {
        let mut pace = Pace::new(Some(100));
        pace.received(99);
        assert!(is_slow(&mut pace, Duration::from_secs(11)).await);

        let mut pace = Pace::new(Some(1 << 20));
        pace.received(FIRST_WINDOW as usize);
        for _ in 0..5 {
            assert!(!is_slow(&mut pace, Duration::from_secs(9)).await);
            pace.received(BYTES_PER_PERIOD as usize);
        }
        assert!(is_slow(&mut pace, Duration::from_secs(11)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_waited_for_the_client_does_not_count() {
        let mut pace = Pace::new(None);
        assert!(!is_slow(&mut pace, Duration::from_secs(1)).await);
        pace.received(10);
        advance(Duration::from_secs(60)).await;
        assert!(!is_slow(&mut pace, Duration::from_secs(8)).await);
    }
}
