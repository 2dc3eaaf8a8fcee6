//! What the load saw in its window.

use std::cell::Cell;
use std::collections::BTreeMap;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Kinds of errors that are kept apart; the rest is counted as one.
const ERROR_KINDS: usize = 8;
/// Errors that begin alike in so many letters are of a kind: the first of them is shown.
const KIND_LETTERS: usize = 40;
const SHOWN_LETTERS: usize = 200;

/// Longer times count as this long.
const LONGEST_NS: u64 = 600_000_000_000;

/// Times in nanoseconds, to three digits.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) events: u64,
    pub(super) connections: u64,
    /// Connections that are open, whenever they began.
    pub(super) open: u64,
    /// Of bodies, as they are written.
    pub(super) bytes: u64,
    /// From a request's begin (when it was due, in an open loop) to its answer's end.
    pub(super) latency: Histogram<u64>,
    /// From a request's begin to the answer's first byte.
    pub(super) first_byte: Histogram<u64>,
    /// From the client's last byte to the engine having all of the body.
    pub(super) lag: Histogram<u64>,
    /// From an engine's write to the client's read of an event.
    pub(super) event: Histogram<u64>,
    errors: BTreeMap<String, u64>,
}

/// A histogram, told by its points; microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    pub(crate) events: u64,
    /// Begun in the window.
    pub(crate) connections: u64,
    /// Open at its end.
    pub(crate) open: u64,
    pub(crate) bytes: u64,
    pub(crate) latency: Spread,
    pub(crate) first_byte: Spread,
    pub(crate) lag: Spread,
    pub(crate) event: Spread,
    /// What went wrong, in the warm-up as well, and how often.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn new() -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_NS, 3);
        Ok(Self {
            requests: 0,
            events: 0,
            connections: 0,
            open: 0,
            bytes: 0,
            latency: histogram()?,
            first_byte: histogram()?,
            lag: histogram()?,
            event: histogram()?,
            errors: BTreeMap::new(),
        })
    }

    /// Errors count at any time: a peer that fails in the warm-up is not well either. But what the end of the load cuts
    /// short is none.
    pub(super) fn fail(&mut self, error: &str, counts: bool) {
        if !counts {
            return;
        }
        let kind: String = error.chars().take(KIND_LETTERS).collect();
        if let Some((_, count)) = self.errors.iter_mut().find(|(known, _)| known.starts_with(&kind)) {
            *count += 1;
        } else if self.errors.len() < ERROR_KINDS {
            let shown =
                error.chars().take(SHOWN_LETTERS).map(|letter| if letter < ' ' { ' ' } else { letter });
            self.errors.insert(shown.collect(), 1);
        } else {
            *self.errors.entry("other".to_owned()).or_default() += 1;
        }
    }

    pub(super) fn add(&mut self, other: &Self) -> Result<()> {
        self.requests += other.requests;
        self.events += other.events;
        self.connections += other.connections;
        self.open += other.open;
        self.bytes += other.bytes;
        self.latency.add(&other.latency)?;
        self.first_byte.add(&other.first_byte)?;
        self.lag.add(&other.lag)?;
        self.event.add(&other.event)?;
        for (error, count) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
        Ok(())
    }

    pub(super) fn report(&self, window_ns: u64) -> Report {
        Report {
            seconds: window_ns as f64 / 1e9,
            requests: self.requests,
            events: self.events,
            connections: self.connections,
            open: self.open,
            bytes: self.bytes,
            latency: spread(&self.latency),
            first_byte: spread(&self.first_byte),
            lag: spread(&self.lag),
            event: spread(&self.event),
            errors: self.errors.clone(),
        }
    }
}

fn spread(histogram: &Histogram<u64>) -> Spread {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    let max = histogram.max() as f64 / 1e3;
    Spread { count: histogram.len(), p50: at(0.5), p99: at(0.99), p999: at(0.999), max }
}

/// Since when a connection waits for an answer: one that is never answered leaves no other trace.
#[derive(Debug, Default)]
pub(super) struct Watch(Cell<u64>);

impl Watch {
    pub(super) fn asked(&self, now_ns: u64) {
        self.0.set(now_ns);
    }

    pub(super) fn answered(&self) {
        self.0.set(0);
    }

    pub(super) fn waits_since_before(&self, from_ns: u64) -> bool {
        (1..from_ns).contains(&self.0.get())
    }
}
