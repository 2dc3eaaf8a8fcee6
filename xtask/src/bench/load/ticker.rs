//! Waits until a time with the kernel's precision: tokio's own timers round up to whole milliseconds.

use std::os::fd::OwnedFd;

use anyhow::Result;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

pub(super) struct Ticker(AsyncFd<OwnedFd>);

impl Ticker {
    pub(super) fn new() -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: an `OwnedFd` is the same open descriptor for as long as it lives.
        Ok(Self(unsafe { AsyncFd::register(timer) }?))
    }

    /// Waits until CLOCK_MONOTONIC has this value.
    pub(super) async fn until(&mut self, at_ns: u64) -> Result<()> {
        let at = Timespec {
            tv_sec: i64::try_from(at_ns / 1_000_000_000)?,
            tv_nsec: i64::try_from(at_ns % 1_000_000_000)?,
        };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: at };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0; 8])?));
            if let Ok(read) = read {
                read?;
                return Ok(());
            }
        }
    }
}
