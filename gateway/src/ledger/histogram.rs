//! Histograms of durations with fixed bounds: atomics to write, plain numbers to read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds in µs of [`Meter`](super::Meter)'s `duration`: OpenTelemetry's for
/// `gen_ai.server.request.duration` (10 ms doubling to 82 s), with room below for refusals and small models, and
/// above for long generations up to the default request timeout of an hour.
pub(super) static DURATION_BOUNDS_US: [u64; 18] = [
    1_000,
    5_000,
    10_000,
    20_000,
    40_000,
    80_000,
    160_000,
    320_000,
    640_000,
    1_280_000,
    2_560_000,
    5_120_000,
    10_240_000,
    20_480_000,
    40_960_000,
    81_920_000,
    600_000_000,
    3_600_000_000,
];

/// OpenTelemetry's bounds for `gen_ai.server.time_to_first_token`, with room above for a queue or a long prefill.
pub(super) static FIRST_BYTE_BOUNDS_US: [u64; 19] = [
    1_000,
    5_000,
    10_000,
    20_000,
    40_000,
    60_000,
    80_000,
    100_000,
    250_000,
    500_000,
    750_000,
    1_000_000,
    2_500_000,
    5_000_000,
    7_500_000,
    10_000_000,
    30_000_000,
    120_000_000,
    600_000_000,
];

/// Bounds of the inter-token gap. A small model on a fast GPU makes a token in a millisecond, a reader's patience
/// ends at a tenth of a second, a stalled stream shows above a second: OpenTelemetry's bounds for
/// `gen_ai.server.time_per_output_token` thinned out, with three more below and one above. The kernel half counts gaps
/// by the same ones.
pub(super) use crate::kernel::splice::{GAP_BOUNDS_US, GAP_BUCKETS};

/// The bucket of a value: the first whose bound is not below it.
pub(super) fn bucket(bounds_us: &[u64], value_us: u64) -> usize {
    bounds_us.partition_point(|&bound| bound < value_us)
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
pub(super) struct Histogram {
    bounds_us: &'static [u64],
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

/// A histogram's state at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramReading {
    /// Upper bounds in µs, of all buckets but the last (`+Inf`).
    pub bounds_us: &'static [u64],
    /// Per bucket, not cumulative.
    pub counts: Vec<u64>,
    pub sum_us: u64,
}

impl Histogram {
    pub(super) fn new(bounds_us: &'static [u64]) -> Self {
        let counts = (0..=bounds_us.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds_us, counts, sum_us: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, value: Duration) {
        let value_us = micros(value);
        if let Some(counter) = self.counts.get(bucket(self.bounds_us, value_us)) {
            counter.fetch_add(1, Relaxed);
            self.sum_us.fetch_add(value_us, Relaxed);
        }
    }

    /// Adds values counted elsewhere by the same bounds.
    pub(super) fn merge(&self, counts: &[u32], sum_us: u64) {
        for (counter, &count) in self.counts.iter().zip(counts) {
            if count > 0 {
                counter.fetch_add(u64::from(count), Relaxed);
            }
        }
        self.sum_us.fetch_add(sum_us, Relaxed);
    }

    pub(super) fn read(&self) -> HistogramReading {
        HistogramReading {
            bounds_us: self.bounds_us,
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum_us: self.sum_us.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise() {
        for bounds in [&DURATION_BOUNDS_US[..], &FIRST_BYTE_BOUNDS_US, &GAP_BOUNDS_US] {
            assert!(bounds.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn a_value_on_a_bound_belongs_to_it_and_one_above_to_the_next() {
        let histogram = Histogram::new(&GAP_BOUNDS_US);
        histogram.observe(Duration::from_micros(1_000));
        histogram.observe(Duration::from_micros(1_001));
        histogram.observe(Duration::MAX);
        let counts = histogram.read().counts;
        assert_eq!((counts[0], counts[1], counts[GAP_BUCKETS - 1]), (1, 1, 1));
        assert_eq!(counts.iter().sum::<u64>(), 3);
    }
}
