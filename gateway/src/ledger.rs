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
mod splices;
mod timestamp;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

pub use access::AccessLog;
pub use entry::{Entry, Usage};
pub use histogram::HistogramReading;
pub use meter::{Meter, MeterReading};
pub use meters::Meters;
pub use outcomes::Outcome;
pub use process::{Connection, ProcessMeters, RefusedConnection};
pub use splices::{SpliceMeters, Unspliced};

/// Opens entries; one per process, cloned into every worker.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Books>);

#[derive(Debug)]
struct Books {
    process: ProcessMeters,
    splices: SpliceMeters,
    access_log: AccessLog,
}

impl Ledger {
    #[must_use]
    pub fn new(access_log: AccessLog) -> Self {
        Self(Arc::new(Books {
            process: ProcessMeters::default(),
            splices: SpliceMeters::default(),
            access_log,
        }))
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
    pub fn splices(&self) -> &SpliceMeters {
        &self.0.splices
    }

    #[must_use]
    pub fn access_log(&self) -> &AccessLog {
        &self.0.access_log
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::failure::Reason;

    #[test]
    fn each_closed_entry_is_one_line_of_the_log_and_one_request_of_its_meter() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.log");
        let ledger = Ledger::new(AccessLog::open(access::Destination::File(file.clone())).unwrap());
        let meter = Arc::<Meter>::default();
        let mut entry = ledger.open(&meter);
        entry.path = "/v1/chat/completions".repeat(1_000).into();
        entry.fail(Reason::NoEndpoint);
        drop(entry);
        drop(ledger.open(&meter));
        assert!(ledger.access_log().shutdown(Duration::from_secs(10)));

        let log = std::fs::read_to_string(file).unwrap();
        let lines: Vec<serde_json::Value> =
            log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let reasons: Vec<_> = lines.iter().map(|line| &line["reason"]).collect();
        assert_eq!(reasons, ["no_endpoint", "client_gone"]);
        assert!(lines[0]["path"].as_str().unwrap().len() < 3_000);
        assert_eq!(lines[0]["time"].as_str().unwrap().len(), "2026-11-22T13:20:00.000000Z".len());
        assert_eq!(meter.read().outcomes.iter().map(|&(_, count)| count).sum::<u64>(), 2);
    }
}
