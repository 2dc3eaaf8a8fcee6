//! What is counted for the process as a whole.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Ledger;

/// Counters that belong to no pool; shared by all workers.
#[derive(Debug, Default)]
pub struct ProcessMeters {
    in_flight: AtomicU64,
    connections: AtomicU64,
    connections_total: AtomicU64,
    connections_refused: [AtomicU64; RefusedConnection::ALL.len()],
    buffered_bytes: AtomicU64,
}

/// Why a client's connection was closed before anything was read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedConnection {
    /// The listener's connection limit.
    ListenerFull,
    /// The bound of the process.
    ProcessFull,
    /// No file descriptor was left to accept it. It waits in the kernel's queue: each attempt counts.
    NoDescriptor,
}

impl RefusedConnection {
    pub const ALL: [Self; 3] = [Self::ListenerFull, Self::ProcessFull, Self::NoDescriptor];

    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::ListenerFull => "listener_full",
            Self::ProcessFull => "process_full",
            Self::NoDescriptor => "no_descriptor",
        }
    }
}

impl ProcessMeters {
    pub fn connection_refused(&self, why: RefusedConnection) {
        if let Some(counter) = self.connections_refused.get(why as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Takes in request bytes that wait to flow; returns how many wait now.
    pub fn buffered(&self, bytes: u64) -> u64 {
        self.buffered_bytes.fetch_add(bytes, Relaxed) + bytes
    }

    /// Bytes given back: as many as were reported by [`Self::buffered`].
    pub fn unbuffered(&self, bytes: u64) {
        self.buffered_bytes.fetch_sub(bytes, Relaxed);
    }

    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    #[must_use]
    pub fn connections_total(&self) -> u64 {
        self.connections_total.load(Relaxed)
    }

    #[must_use]
    pub fn connections_refused(&self, why: RefusedConnection) -> u64 {
        self.connections_refused.get(why as usize).map_or(0, |counter| counter.load(Relaxed))
    }

    #[must_use]
    pub fn buffered_bytes(&self) -> u64 {
        self.buffered_bytes.load(Relaxed)
    }

    pub(super) fn entry_opened(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(super) fn entry_closed(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }
}

/// Held as long as a client's connection is open.
#[derive(Debug)]
pub struct Connection(Ledger);

impl Connection {
    pub(super) fn open(ledger: Ledger) -> Self {
        ledger.process().connections.fetch_add(1, Relaxed);
        ledger.process().connections_total.fetch_add(1, Relaxed);
        Self(ledger)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.process().connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_while_it_is_held_and_stays_in_the_total() {
        let ledger = Ledger::new(crate::ledger::AccessLog::off());
        let process = ledger.process();
        let connection = ledger.connection();
        drop(ledger.connection());
        assert_eq!((process.connections(), process.connections_total()), (1, 2));
        drop(connection);
        assert_eq!((process.connections(), process.connections_total()), (0, 2));
    }

    #[test]
    fn every_refusal_has_its_own_counter() {
        let process = ProcessMeters::default();
        for (index, why) in RefusedConnection::ALL.into_iter().enumerate() {
            (0..=index).for_each(|_| process.connection_refused(why));
        }
        let counts = RefusedConnection::ALL.map(|why| process.connections_refused(why));
        assert_eq!(counts, [1, 2, 3]);
    }
}
