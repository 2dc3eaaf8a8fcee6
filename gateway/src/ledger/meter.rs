//! What is counted per pool and model.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::entry::Record;
use super::gaps::Gaps;
use super::histogram::{
    DURATION_BOUNDS_US, FIRST_BYTE_BOUNDS_US, GAP_BOUNDS_US, Histogram, HistogramReading,
};
use super::outcomes::{Outcome, Outcomes};

/// Counts the requests of one pool and model. The snapshot holds it where a request finds it without a lookup;
/// [`Meters`](super::Meters) gives it its labels.
#[derive(Debug)]
pub struct Meter {
    outcomes: Outcomes,
    duration: Histogram,
    first_byte: Histogram,
    gap: Histogram,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    events: AtomicU64,
    spliced_events: AtomicU64,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    retries: AtomicU64,
}

/// A meter's state at one moment.
#[derive(Clone, Debug)]
pub struct MeterReading {
    pub outcomes: Vec<(Outcome, u64)>,
    pub duration: HistogramReading,
    pub first_byte: HistogramReading,
    pub gap: HistogramReading,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub events: u64,
    pub spliced_events: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cached_tokens: u64,
    pub retries: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            outcomes: Outcomes::default(),
            duration: Histogram::new(&DURATION_BOUNDS_US),
            first_byte: Histogram::new(&FIRST_BYTE_BOUNDS_US),
            gap: Histogram::new(&GAP_BOUNDS_US),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            events: AtomicU64::new(0),
            spliced_events: AtomicU64::new(0),
            input_tokens: AtomicU64::new(0),
            output_tokens: AtomicU64::new(0),
            cached_tokens: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        }
    }
}

impl Meter {
    /// Takes in a closed request; its gaps come through [`Self::add_gaps`].
    pub(super) fn close(&self, record: &Record) {
        self.outcomes.count(Outcome { status: record.status, reason: record.reason });
        self.duration.observe(record.duration);
        if let Some(ttft) = record.ttft {
            self.first_byte.observe(ttft);
        }
        let usage = record.usage.unwrap_or_default();
        let sums = [
            (&self.request_bytes, record.bytes_in),
            (&self.response_bytes, record.bytes_out),
            (&self.events, record.events),
            (&self.spliced_events, record.spliced_events),
            (&self.input_tokens, usage.input_tokens.unwrap_or(0)),
            (&self.output_tokens, usage.output_tokens.unwrap_or(0)),
            (&self.cached_tokens, usage.cached_tokens.unwrap_or(0)),
            (&self.retries, u64::from(record.tries.saturating_sub(1))),
        ];
        for (counter, amount) in sums {
            // A shared cache line is not worth taking for nothing.
            if amount > 0 {
                counter.fetch_add(amount, Relaxed);
            }
        }
    }

    pub(super) fn add_gaps(&self, gaps: &Gaps) {
        self.gap.merge(&gaps.counts, gaps.sum_us);
    }

    #[must_use]
    pub fn read(&self) -> MeterReading {
        MeterReading {
            outcomes: self.outcomes.read(),
            duration: self.duration.read(),
            first_byte: self.first_byte.read(),
            gap: self.gap.read(),
            request_bytes: self.request_bytes.load(Relaxed),
            response_bytes: self.response_bytes.load(Relaxed),
            events: self.events.load(Relaxed),
            spliced_events: self.spliced_events.load(Relaxed),
            input_tokens: self.input_tokens.load(Relaxed),
            output_tokens: self.output_tokens.load(Relaxed),
            cached_tokens: self.cached_tokens.load(Relaxed),
            retries: self.retries.load(Relaxed),
        }
    }
}
