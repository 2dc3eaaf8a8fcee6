//! One request's entry: fields that the request path fills, marks of time, and the closing.

use std::mem;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Method;

use super::gaps::Gaps;
use super::{Ledger, Meter};
use crate::failure::Reason;
use crate::kernel::splice::{self, Spliced};
use crate::snapshot::{Pool, Rule};

/// Bytes kept of what a client chose freely, so that a full queue of log lines stays small.
const PATH_MAX: usize = 2_048;
const REQUEST_ID_MAX: usize = 256;

/// What is known of a request; each field is written by the step that learns it.
#[derive(Debug)]
pub struct Record {
    pub request_id: Box<str>,
    pub client: Option<SocketAddr>,
    /// `HTTP/1.1` and the like.
    pub protocol: &'static str,
    /// `None`: the head was refused before it was read.
    pub method: Option<Method>,
    /// Without the query: it may hold secrets.
    pub path: Box<str>,
    /// As the client named it.
    pub model: Option<Box<str>>,
    /// What the engine was asked for, where a manifest rewrites it.
    pub target_model: Option<Box<str>>,
    pub route: Option<Arc<Rule>>,
    pub pool: Option<Arc<Pool>>,
    /// Label of the endpoint tried last.
    pub endpoint: Option<Arc<str>>,
    /// Endpoints that the request was sent to, or meant to be.
    pub tries: u32,
    /// What the client was sent; 0 until a response head goes out.
    pub status: u16,
    /// Why Penstock refused the request or cut its answer; `None`: an answer passed on whole.
    pub reason: Option<Reason>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the response's body.
    pub bytes_out: u64,
    pub streaming: bool,
    pub events: u64,
    /// Those of them that went to the client without passing the relay.
    pub spliced_events: u64,
    pub usage: Option<Usage>,
    pub(super) opened: SystemTime,
    pub(super) ttft: Option<Duration>,
    pub(super) duration: Duration,
}

/// Tokens as the engine reported them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    /// Input tokens that the engine found in its prefix cache.
    pub cached_tokens: Option<u64>,
}

/// A request's record while it is open; dereferences to it, so that `entry.status = 200` is all a step does.
///
/// Dropping it closes it. An entry dropped without [`Self::finish`] or [`Self::fail`] is one whose client went
/// away: hyper drops the work for a client that is gone without another word.
#[derive(Debug)]
pub struct Entry {
    record: Record,
    ledger: Ledger,
    meter: Arc<Meter>,
    started: Instant,
    gaps: Gaps,
    whole: bool,
}

impl Entry {
    pub(super) fn open(ledger: Ledger, meter: Arc<Meter>, started: Instant, opened: SystemTime) -> Self {
        ledger.process().entry_opened();
        let gaps = Gaps::new(started);
        Self { record: Record::new(opened), ledger, meter, started, gaps, whole: false }
    }

    /// When the head was read.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Where the request counts from now on; only the last one counts it.
    pub fn set_meter(&mut self, meter: &Arc<Meter>) {
        if !Arc::ptr_eq(&self.meter, meter) {
            self.meter = meter.clone();
        }
    }

    /// The first byte of the engine's answer goes out, read at `now`. Time to first byte runs from [`Self::started`], so
    /// it holds the upload of the request, queueing and retries: what the client waited.
    pub fn first_byte(&mut self, now: Instant) {
        let waited = now.duration_since(self.started);
        self.record.ttft.get_or_insert(waited);
    }

    /// `events` of a stream passed with one read at `now`.
    pub fn event(&mut self, events: u64, now: Instant) {
        self.record.events += events;
        if self.gaps.record(events, now) {
            self.report_gaps(now);
        }
    }

    fn report_gaps(&mut self, now: Instant) {
        self.meter.add_gaps(&self.gaps);
        self.gaps.clear(now);
    }

    /// Events of a stream went to the client without passing the relay.
    pub fn spliced(&mut self, spliced: &Spliced) {
        self.record.events += spliced.events;
        self.record.spliced_events += spliced.events;
        self.record.bytes_out += spliced.bytes.saturating_sub(spliced.framing);
        if self.gaps.merge(&spliced.gaps, spliced.gap_sum_us, splice::instant_of(spliced.last_ns)) {
            self.report_gaps(Instant::now());
        }
    }

    /// When the last event of a stream passed; `None` before the first.
    #[must_use]
    pub fn last_event(&self) -> Option<Instant> {
        self.gaps.last()
    }

    /// The request ends by this reason. The first one stands: what follows from it (a client that leaves after a
    /// 502) is not the cause. Sets the status unless one was already sent. Not for a try that is followed by
    /// another.
    pub fn fail(&mut self, reason: Reason) {
        let reason = *self.record.reason.get_or_insert(reason);
        if self.record.status == 0 {
            self.record.status = reason.status().as_u16();
        }
    }

    /// The last byte of the answer was handed to the client's connection.
    pub fn finish(&mut self) {
        self.whole = true;
    }
}

impl Deref for Entry {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

impl DerefMut for Entry {
    fn deref_mut(&mut self) -> &mut Record {
        &mut self.record
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.whole && self.record.reason.is_none() {
            self.fail(Reason::ClientGone);
        }
        self.record.duration = self.started.elapsed();
        self.meter.close(&self.record);
        self.meter.add_gaps(&self.gaps);
        self.ledger.access_log().write(|| {
            let mut record = mem::replace(&mut self.record, Record::new(SystemTime::UNIX_EPOCH));
            clip(&mut record.path, PATH_MAX);
            clip(&mut record.request_id, REQUEST_ID_MAX);
            record
        });
        self.ledger.process().entry_closed();
    }
}

impl Record {
    pub(super) fn new(opened: SystemTime) -> Self {
        Self {
            request_id: Box::default(),
            client: None,
            protocol: "",
            method: None,
            path: Box::default(),
            model: None,
            target_model: None,
            route: None,
            pool: None,
            endpoint: None,
            tries: 0,
            status: 0,
            reason: None,
            bytes_in: 0,
            bytes_out: 0,
            streaming: false,
            events: 0,
            spliced_events: 0,
            usage: None,
            opened,
            ttft: None,
            duration: Duration::ZERO,
        }
    }
}

fn clip(text: &mut Box<str>, max: usize) {
    if text.len() > max {
        *text = text.get(..text.floor_char_boundary(max)).unwrap_or_default().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{AccessLog, Outcome};

    fn open() -> (Ledger, Arc<Meter>, Entry) {
        let ledger = Ledger::new(AccessLog::off());
        let meter = Arc::new(Meter::default());
        let entry = ledger.open(&meter);
        (ledger, meter, entry)
    }

    fn outcome(meter: &Meter) -> (u16, Option<Reason>) {
        let outcomes = meter.read().outcomes;
        let [(Outcome { status, reason }, 1)] = outcomes[..] else { panic!("{outcomes:?}") };
        (status, reason)
    }

    #[test]
    fn an_answer_passed_on_whole_has_a_status_and_no_reason() {
        let (ledger, meter, mut entry) = open();
        entry.status = 404;
        entry.tries = 3;
        entry.bytes_in = 10;
        entry.bytes_out = 20;
        entry.usage = Some(Usage { input_tokens: Some(7), output_tokens: None, cached_tokens: Some(2) });
        entry.finish();
        assert_eq!(ledger.in_flight(), 1);
        drop(entry);
        assert_eq!(ledger.in_flight(), 0);
        assert_eq!(outcome(&meter), (404, None));
        let reading = meter.read();
        assert_eq!((reading.request_bytes, reading.response_bytes, reading.retries), (10, 20, 2));
        assert_eq!((reading.input_tokens, reading.output_tokens, reading.cached_tokens), (7, 0, 2));
        assert_eq!(reading.first_byte.counts.iter().sum::<u64>(), 0);
        assert_eq!(reading.duration.counts.iter().sum::<u64>(), 1);
    }

    #[test]
    fn an_entry_dropped_without_a_word_is_a_client_that_left() {
        let (_, meter, entry) = open();
        drop(entry);
        assert_eq!(outcome(&meter), (499, Some(Reason::ClientGone)));
    }

    #[test]
    fn a_client_that_leaves_in_mid_stream_keeps_the_status_it_was_sent() {
        let (_, meter, mut entry) = open();
        entry.status = 200;
        entry.first_byte(Instant::now());
        drop(entry);
        assert_eq!(outcome(&meter), (200, Some(Reason::ClientGone)));
        assert_eq!(meter.read().first_byte.counts.iter().sum::<u64>(), 1);
    }

    #[test]
    fn the_first_failure_is_the_cause() {
        let (_, meter, mut entry) = open();
        entry.fail(Reason::EngineReset);
        entry.fail(Reason::ClientGone);
        drop(entry);
        assert_eq!(outcome(&meter), (502, Some(Reason::EngineReset)));
    }

    #[test]
    fn only_the_last_meter_counts_the_request() {
        let (ledger, listener, mut entry) = open();
        let model = Arc::new(Meter::default());
        entry.set_meter(&model);
        entry.fail(Reason::Saturated);
        drop(entry);
        assert!(listener.read().outcomes.is_empty());
        assert_eq!(outcome(&model), (429, Some(Reason::Saturated)));
        assert_eq!(ledger.in_flight(), 0);
    }

    #[test]
    fn events_of_one_read_share_the_gap_before_them() {
        let (_, meter, mut entry) = open();
        let start = entry.started();
        entry.event(2, start);
        entry.event(1, start + Duration::from_millis(4));
        entry.event(0, start + Duration::from_millis(5));
        entry.event(4, start + Duration::from_millis(8));
        drop(entry);
        let reading = meter.read();
        assert_eq!(reading.events, 7);
        assert_eq!(reading.gap.sum_us, 8_000);
        // Four gaps of 1 ms, and one of 4 ms.
        assert_eq!(reading.gap.counts[..4], [4, 0, 1, 0]);
    }

    #[test]
    fn spliced_events_count_like_all_others_and_the_next_gap_begins_behind_them() {
        let (_, meter, mut entry) = open();
        assert_eq!(entry.last_event(), None);
        entry.event(1, entry.started());
        let mut gaps = [0; splice::GAP_BUCKETS];
        (gaps[1], gaps[3]) = (2, 1);
        let spliced = Spliced {
            bytes: 300,
            framing: 21,
            events: 3,
            last_ns: splice::now_ns(),
            gaps,
            gap_sum_us: 9_000,
            ..Spliced::default()
        };
        entry.spliced(&spliced);
        let last = entry.last_event().unwrap();
        entry.event(1, last + Duration::from_millis(1));
        drop(entry);
        let reading = meter.read();
        assert_eq!((reading.events, reading.spliced_events, reading.response_bytes), (5, 3, 279));
        assert_eq!((reading.gap.sum_us, &reading.gap.counts[..4]), (10_000, &[1, 2, 0, 1][..]));
    }

    #[test]
    fn the_gaps_of_a_long_stream_show_before_its_end_and_count_once() {
        let (_, meter, mut entry) = open();
        let start = entry.started();
        entry.event(1, start);
        entry.event(1, start + Duration::from_millis(600));
        assert_eq!(meter.read().gap.sum_us, 0);
        entry.event(1, start + Duration::from_millis(1_200));
        assert_eq!(meter.read().gap.sum_us, 1_200_000);
        drop(entry);
        assert_eq!(meter.read().gap.counts.iter().sum::<u64>(), 2);
    }

    #[test]
    fn long_texts_are_clipped_between_characters() {
        let mut text: Box<str> = "aéé".into();
        clip(&mut text, 4);
        assert_eq!(&*text, "aé");
    }
}
