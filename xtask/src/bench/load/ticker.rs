//! Waits until a time with the kernel's precision: tokio's own timers round up to whole milliseconds.

use std::io::ErrorKind;

use anyhow::Result;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

/// A timer of the kernel. It is read and polled as a pipe is, and tokio asks no more of one.
pub(super) struct Ticker(Receiver);

impl Ticker {
    pub(super) fn new() -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(Receiver::from_owned_fd_unchecked(timer)?))
    }

    /// Waits until CLOCK_MONOTONIC has this value.
    pub(super) async fn until(&mut self, at_ns: u64) -> Result<()> {
        let at = Timespec {
            tv_sec: i64::try_from(at_ns / 1_000_000_000)?,
            tv_nsec: i64::try_from(at_ns % 1_000_000_000)?,
        };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: at };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &once)?;
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return Ok(read.map(drop)?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::answer::now_ns;
    use super::*;

    #[test]
    fn a_time_is_waited_for_and_a_past_one_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut ticker = Ticker::new().unwrap();
            for wait_ns in [0, 300_000, 1, 2_000_000] {
                let at_ns = now_ns() + wait_ns;
                ticker.until(at_ns).await.unwrap();
                assert!(now_ns() >= at_ns);
            }
        });
    }
}
