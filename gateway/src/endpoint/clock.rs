//! A clock that fits into an atomic.

use std::sync::LazyLock;
use std::time::Instant;

/// Milliseconds since the process first asked, from 1: 0 is free to mean "never".
pub(super) fn now_ms() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_millis() as u64 + 1
}
