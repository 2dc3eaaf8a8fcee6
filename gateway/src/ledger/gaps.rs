//! The gaps between the events of one stream, gathered without atomics.

use std::time::{Duration, Instant};

use super::histogram::{GAP_BOUNDS_US, GAP_BUCKETS, bucket, micros};

/// A long stream shows in its meter this often, not only at its end.
const REPORT_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Gaps {
    pub(super) counts: [u32; GAP_BUCKETS],
    pub(super) sum_us: u64,
    last: Option<Instant>,
    report_at: Instant,
}

impl Gaps {
    pub(super) fn new(now: Instant) -> Self {
        Self { counts: [0; GAP_BUCKETS], sum_us: 0, last: None, report_at: now + REPORT_EVERY }
    }

    /// Takes in `events` that came with one read. They share the gap before them evenly: whoever waited for them
    /// waited once, and count and sum stay true. What comes first has no gap. True when it is time to report.
    pub(super) fn record(&mut self, events: u64, now: Instant) -> bool {
        let Ok(events @ 1..) = u32::try_from(events) else { return false };
        if let Some(last) = self.last.replace(now) {
            let gap_us = micros(now.duration_since(last));
            let each = bucket(&GAP_BOUNDS_US, gap_us / u64::from(events));
            if let Some(count) = self.counts.get_mut(each) {
                *count = count.saturating_add(events);
                self.sum_us = self.sum_us.saturating_add(gap_us);
            }
        }
        now >= self.report_at
    }

    /// Takes in gaps that were gathered elsewhere, up to the event at `last`. True when it is time to report.
    pub(super) fn merge(&mut self, counts: &[u32; GAP_BUCKETS], sum_us: u64, last: Instant) -> bool {
        for (count, more) in self.counts.iter_mut().zip(counts) {
            *count = count.saturating_add(*more);
        }
        self.sum_us = self.sum_us.saturating_add(sum_us);
        self.last = Some(last);
        Instant::now() >= self.report_at
    }

    /// When the last event passed.
    pub(super) fn last(&self) -> Option<Instant> {
        self.last
    }

    /// Forgets what has been reported.
    pub(super) fn clear(&mut self, now: Instant) {
        self.counts = [0; GAP_BUCKETS];
        self.sum_us = 0;
        self.report_at = now + REPORT_EVERY;
    }
}
