//! Steering: which worker gets a new connection. What workers say of themselves, and the rule by which one is chosen;
//! the kernel half and the user half compile the same lines.

use crate::account::Ip;

/// Workers that a gateway may have.
pub const WORKERS: usize = 256;
/// Listening addresses whose connections are steered; those of any further one go by hash.
pub const GROUPS: usize = 64;
/// A loop that has not come round for so long hangs, or has more than it can do.
pub const STALE_NS: u64 = 50_000_000;

/// What is known of one worker. Two cache lines: the worker writes the first, the program the second.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worker {
    /// Connections that it serves.
    pub open: u64,
    /// Since when its loop is at work on one turn, CLOCK_MONOTONIC; 0: it waits for something to do.
    pub busy_since_ns: u64,
    /// What `given` was when it had last taken in all that there was.
    pub settled: u64,
    pub reserved: [u64; 5],
    /// Connections that the program has given it.
    pub given: u64,
    pub reserved_too: [u64; 7],
}

/// The words of [`Worker`], by their place.
pub mod word {
    pub const OPEN: usize = 0;
    pub const BUSY_SINCE: usize = 1;
    pub const SETTLED: usize = 2;
    pub const GIVEN: usize = 8;
    /// In each worker.
    pub const COUNT: usize = 16;
}

/// All of them, in one value of an array that the workers map.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Table {
    pub workers: [Worker; WORKERS],
}

/// A listening address, whose sockets are a group.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub ip: Ip,
    pub port: u16,
    pub reserved: u16,
}

/// Where a group's sockets are: that of worker n at `first + n`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    pub first: u32,
    pub workers: u32,
}

impl Worker {
    /// Connections that it has, and those that wait for it. Given ones that never came are forgotten as it settles.
    #[must_use]
    #[inline(always)]
    pub fn load(&self) -> u64 {
        self.open.saturating_add(self.given.saturating_sub(self.settled))
    }

    /// Whether its loop comes round.
    #[must_use]
    #[inline(always)]
    pub fn is_live(&self, now_ns: u64) -> bool {
        self.busy_since_ns == 0 || now_ns.saturating_sub(self.busy_since_ns) <= STALE_NS
    }
}

/// The least loaded of the live workers that were looked at; of several, each with the same chance.
///
/// From the high bits to the low: load, lot, worker.
#[derive(Clone, Copy, Debug)]
pub struct Choice(u64);

const LOT_BITS: u32 = 16;
const WORKER_BITS: u32 = 8;
/// Loads from here on are taken for equal.
pub const LOAD_MAX: u64 = (1 << (63 - LOT_BITS - WORKER_BITS)) - 1;

impl Choice {
    /// Nobody yet.
    #[must_use]
    #[inline(always)]
    pub const fn new() -> Self {
        Self(u64::MAX)
    }

    /// Looks at one more, and asks for a lot if it is live.
    #[inline(always)]
    pub fn look(&mut self, number: u32, worker: &Worker, now_ns: u64, lot: impl FnOnce() -> u32) {
        if !worker.is_live(now_ns) {
            return;
        }
        let load = worker.load();
        let load = if load > LOAD_MAX { LOAD_MAX } else { load };
        let lot = u64::from(lot() & ((1 << LOT_BITS) - 1));
        let number = u64::from(number & ((1 << WORKER_BITS) - 1));
        let rank = load << (LOT_BITS + WORKER_BITS) | lot << WORKER_BITS | number;
        if rank < self.0 {
            self.0 = rank;
        }
    }

    /// Changes nothing, as `zero` is 0; but to a verifier that does not know it, what was chosen is any number again. It would
    /// else follow each of a loop's outcomes through the rest of it.
    #[inline(always)]
    pub fn forget(&mut self, zero: u64) {
        self.0 ^= zero;
    }

    /// Who it is; `None`: nobody is live, and the kernel's hash decides.
    #[must_use]
    #[inline(always)]
    pub fn made(&self) -> Option<u32> {
        if self.0 == u64::MAX { None } else { Some((self.0 & ((1 << WORKER_BITS) - 1)) as u32) }
    }
}

impl Default for Choice {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
