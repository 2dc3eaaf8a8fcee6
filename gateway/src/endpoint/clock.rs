//! A clock that fits into an atomic.

use std::sync::LazyLock;
use std::time::Instant;

/// Milliseconds since the process first asked, from 1: 0 is free to mean "never".
pub(super) fn now_ms() -> u64 {
    #[cfg(test)]
    if let Some(now_ms) = BY_HAND_MS.get() {
        return now_ms;
    }
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_millis() as u64 + 1
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
