//! A clock that fits into an atomic.

use std::sync::LazyLock;
use std::time::Instant;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since the process first asked, from 1: 0 is free to mean "never".
pub(super) fn now_ms() -> u64 {
    ms_of(Instant::now())
}

/// The same for a time that was read already.
pub(super) fn ms_of(time: Instant) -> u64 {
    #[cfg(test)]
    if let Some(now_ms) = BY_HAND_MS.get() {
        return now_ms;
    }
    time.duration_since(*START).as_millis() as u64 + 1
}

#[cfg(test)]
thread_local! {
    static BY_HAND_MS: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// Lets time pass for this thread alone, where it then stands still otherwise.
#[cfg(test)]
pub fn pass(time: std::time::Duration) {
    BY_HAND_MS.set(Some(now_ms() + time.as_millis() as u64));
}
