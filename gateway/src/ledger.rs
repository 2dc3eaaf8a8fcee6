//! What became of each request: one [`Entry`], opened when a head is read and closed once, on drop. Closing it
//! feeds the [`Meter`] of its pool and model, and the access log.
//!
//! The request path assigns plain fields and touches no lock. What it counts is shared atomics, each written once
//! per request (gaps between tokens: at most once a second per stream), so that meters need no padding against
//! false sharing.

mod access;
mod entry;
mod gaps;
mod histogram;
mod line;
mod meter;
mod meters;
mod outcomes;
mod process;
mod timestamp;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

pub use access::{AccessLog, Destination};
pub use entry::{Entry, Record, Usage};
pub use histogram::HistogramReading;
pub use meter::{Meter, MeterReading};
pub use meters::Meters;
pub use outcomes::Outcome;
pub use process::{Connection, ProcessMeters, RefusedConnection};

/// Opens entries; one per process, cloned into every worker.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Books>);

#[derive(Debug)]
struct Books {
    process: ProcessMeters,
    access_log: AccessLog,
}

impl Ledger {
    #[must_use]
    pub fn new(access_log: AccessLog) -> Self {
        Self(Arc::new(Books { process: ProcessMeters::default(), access_log }))
    }

    /// Opens the entry of a request whose head has just been read. `meter` is where it counts until
    /// [`Entry::set_meter`] names a better one: the listener's.
    #[must_use]
    pub fn open(&self, meter: &Arc<Meter>) -> Entry {
        Entry::open(self.clone(), meter.clone(), Instant::now(), SystemTime::now())
    }

    /// Counts a client's connection until the guard is dropped.
    #[must_use]
    pub fn connection(&self) -> Connection {
        Connection::open(self.clone())
    }

    /// Entries open now.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.process().in_flight()
    }

    #[must_use]
    pub fn process(&self) -> &ProcessMeters {
        &self.0.process
    }

    #[must_use]
    pub fn access_log(&self) -> &AccessLog {
        &self.0.access_log
    }
}
