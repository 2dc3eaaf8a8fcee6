//! The page of `/metrics`: every family that Penstock has, read from the atomics at the moment of the scrape.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::AdminState;
use super::counts;
use super::process::ProcessReading;
use super::text::Kind::{Counter, Gauge, Histogram};
use super::text::{Label, Page};
use crate::endpoint::Endpoint;
use crate::ledger::{
    HistogramReading, Ledger, MeterReading, Outcome, RefusedConnection, SpliceMeters, Unspliced,
};
use crate::snapshot::Snapshot;

pub(super) fn render(state: &AdminState) -> String {
    let mut page = Page::default();
    meters(&mut page, &state.meters.read());
    endpoints(&mut page, &state.snapshot.load());
    traffic(&mut page, &state.ledger);
    splices(&mut page, state.ledger.splices());
    workers(&mut page, &state.workers);
    config(&mut page, state);
    process(&mut page, state.status.read().started);
    page.finish()
}

/// Pool, model, and what was counted for them.
type Reading = (Box<str>, Box<str>, MeterReading);

fn meters(page: &mut Page, readings: &[Reading]) {
    let mut requests = page.family(
        "penstock_requests_total",
        Counter,
        "Requests by the status sent; reason and blame are empty where an answer was passed on whole.",
    );
    for (pool, model, reading) in readings {
        for &(outcome, count) in &reading.outcomes {
            let code = if outcome == Outcome::OTHER { "other".into() } else { outcome.status.to_string() };
            let reason = outcome.reason.map_or("", |reason| reason.word());
            let blame = outcome.reason.map_or("", |reason| reason.blame().word());
            let labels =
                [("pool", &**pool), ("model", model), ("code", &code), ("reason", reason), ("blame", blame)];
            requests.sample(&labels, count);
        }
    }
    histograms(page, readings);
    sums(page, readings);
    let mut tokens = page.family(
        "penstock_tokens_total",
        Counter,
        "Tokens as engines reported them; cached ones are part of the input where the engine counts them so.",
    );
    for (pool, model, reading) in readings {
        let kinds = [
            ("input", reading.input_tokens),
            ("output", reading.output_tokens),
            ("cached", reading.cached_tokens),
        ];
        for (kind, count) in kinds {
            tokens.sample(&[("pool", pool), ("model", model), ("kind", kind)], count);
        }
    }
}

fn histograms(page: &mut Page, readings: &[Reading]) {
    type Pick = fn(&MeterReading) -> &HistogramReading;
    let families: [(_, _, Pick); 3] = [
        (
            "penstock_request_duration_seconds",
            "From the request's head read to the end of its answer.",
            |reading| &reading.duration,
        ),
        (
            "penstock_time_to_first_byte_seconds",
            "From the request's head read to the first byte of the engine's answer.",
            |reading| &reading.first_byte,
        ),
        (
            "penstock_inter_token_gap_seconds",
            "Between the events of a stream; those that came together share the gap before them.",
            |reading| &reading.gap,
        ),
    ];
    for (name, help, pick) in families {
        let mut family = page.family(name, Histogram, help);
        for (pool, model, reading) in readings {
            family.histogram(&[("pool", pool), ("model", model)], pick(reading));
        }
    }
}

fn sums(page: &mut Page, readings: &[Reading]) {
    type Pick = fn(&MeterReading) -> u64;
    let families: [(_, _, Pick); 5] = [
        ("penstock_request_bytes_total", "Bytes of request bodies.", |reading| reading.request_bytes),
        ("penstock_response_bytes_total", "Bytes of response bodies.", |reading| reading.response_bytes),
        ("penstock_stream_events_total", "Server-sent events passed on.", |reading| reading.events),
        (
            "penstock_spliced_events_total",
            "Those of them that went from the engine to the client in the kernel, counted with the request's end.",
            |reading| reading.spliced_events,
        ),
        ("penstock_retries_total", "Tries after the first.", |reading| reading.retries),
    ];
    for (name, help, pick) in families {
        let mut family = page.family(name, Counter, help);
        for (pool, model, reading) in readings {
            family.sample(&[("pool", pool), ("model", model)], pick(reading));
        }
    }
}

fn endpoints(page: &mut Page, snapshot: &Snapshot) {
    // Pools of two kinds may share a name: a scrape must not hold a series twice.
    let mut endpoints: BTreeMap<(String, &str), &Arc<Endpoint>> = BTreeMap::new();
    for pool in &snapshot.pools {
        for endpoint in &pool.endpoints {
            endpoints.insert((pool.name.to_string(), &endpoint.label), endpoint);
        }
    }
    type Pick = fn(&Endpoint) -> Option<f64>;
    let families: [(_, _, _, Pick); 7] = [
        (
            "penstock_endpoint_leases",
            Gauge,
            "Requests that the engine holds whole. An endpoint of two pools shows the same under both.",
            |endpoint| Some(endpoint.leases().into()),
        ),
        (
            "penstock_endpoint_reservations",
            Gauge,
            "Requests promised to the engine whose body is still on its way.",
            |endpoint| Some(endpoint.reservations().into()),
        ),
        (
            "penstock_endpoint_ttft_seconds",
            Gauge,
            "Decayed time to the first byte of its answers, as picking sees it; absent before the first.",
            |endpoint| endpoint.ttft().map(|ttft| ttft.as_secs_f64()),
        ),
        (
            "penstock_endpoint_ejected",
            Gauge,
            "1 while the endpoint is left alone because it failed in a row, or hangs.",
            |endpoint| Some(u8::from(endpoint.health.is_ejected()).into()),
        ),
        (
            "penstock_endpoint_hung",
            Gauge,
            "1 while it is left alone because it is asked and silent and its peers answer.",
            |endpoint| Some(u8::from(endpoint.health.is_hung()).into()),
        ),
        ("penstock_endpoint_ejections_total", Counter, "How often it was ejected.", |endpoint| {
            Some(endpoint.health.ejections() as f64)
        }),
        (
            "penstock_endpoint_splice_anomalies_total",
            Counter,
            "Spliced answers that did not add up; after the first, the endpoint is not spliced any more.",
            |endpoint| Some(endpoint.splice.anomalies().into()),
        ),
    ];
    for (name, kind, help, pick) in families {
        let mut family = page.family(name, kind, help);
        for ((pool, label), endpoint) in &endpoints {
            if let Some(value) = pick(endpoint) {
                family.sample(&[("pool", pool), ("endpoint", label)], value);
            }
        }
    }
    counts::families(page, &endpoints);
}

fn traffic(page: &mut Page, ledger: &Ledger) {
    let process = ledger.process();
    let client: &[Label<'_>] = &[("side", "client")];
    page.family(
        "penstock_requests_in_flight",
        Gauge,
        "Requests whose head was read and that have not ended.",
    )
    .sample(&[], process.in_flight());
    page.family("penstock_connections", Gauge, "Connections open now.").sample(client, process.connections());
    page.family("penstock_connections_total", Counter, "Connections opened.")
        .sample(client, process.connections_total());
    let mut refused = page.family(
        "penstock_connections_refused_total",
        Counter,
        "Client connections closed before anything was read from them.",
    );
    for why in RefusedConnection::ALL {
        refused.sample(&[("reason", why.word())], process.connections_refused(why));
    }
    page.family("penstock_buffered_bytes", Gauge, "Request bytes held until they are routed, or for replay.")
        .sample(&[], process.buffered_bytes());
    page.family(
        "penstock_access_log_dropped_total",
        Counter,
        "Access log lines lost: the queue was full, or writing failed.",
    )
    .sample(&[], ledger.access_log().dropped());
}

fn splices(page: &mut Page, splices: &SpliceMeters) {
    page.family(
        "penstock_splice_arms_total",
        Counter,
        "Times that the kernel was asked to carry a stream on.",
    )
    .sample(&[], splices.arms());
    let help = "Times that a stream came back to the relay: shape (most often the end of an answer), late (a stream \
                without pauses), full (a slow client), budget, ended, or a fault: gone, stale, unequal.";
    let mut hand_backs = page.family("penstock_splice_hand_backs_total", Counter, help);
    for (reason, count) in splices.hand_backs() {
        hand_backs.sample(&[("reason", reason)], count);
    }
    let help = "Streams to HTTP/1.1 clients, in chunks, that the kernel could not carry, and why.";
    let mut unspliced = page.family("penstock_unspliced_answers_total", Counter, help);
    for why in Unspliced::ALL {
        unspliced.sample(&[("reason", why.word())], splices.unspliced_for(why));
    }
}

fn workers(page: &mut Page, workers: &[Arc<AtomicU32>]) {
    let help = "Client connections of each worker: even where they are steered, by chance where not.";
    let mut connections = page.family("penstock_worker_connections", Gauge, help);
    for (number, worker) in workers.iter().enumerate() {
        connections.sample(&[("worker", &number.to_string())], worker.load(Relaxed));
    }
}

fn config(page: &mut Page, state: &AdminState) {
    let status = state.status.read();
    page.family("penstock_config_generation", Gauge, "Counts published snapshots; 0 before the first.")
        .sample(&[], state.snapshot.load().generation);
    let mut reloads = page.family(
        "penstock_config_reloads_total",
        Counter,
        "Times that the manifests were read, the first included.",
    );
    reloads.sample(&[("result", "success")], status.reloads_succeeded);
    reloads.sample(&[("result", "failure")], status.reloads_failed);
    let successful = status.last_reload_success.is_some() && status.last_reload_error.is_none();
    page.family("penstock_config_last_reload_successful", Gauge, "1 unless the last reload was refused.")
        .sample(&[], u8::from(successful));
    page.family(
        "penstock_config_last_reload_success_timestamp_seconds",
        Gauge,
        "When the snapshot in use was published; 0 before the first.",
    )
    .sample(&[], status.last_reload_success.map_or(0.0, unix_seconds));
    page.family("penstock_kernel_rung", Gauge, "1 for the rung of the kernel half that is stood on.")
        .sample(&[("rung", status.rung)], 1);
    let help = "1 for a program of the kernel half beside the rungs that is at work, else 0.";
    let mut programs = page.family("penstock_kernel_program", Gauge, help);
    for (name, works) in &status.programs {
        programs.sample(&[("program", name)], u8::from(works.is_ok()));
    }
    if let Some(connects) = status.intercepted {
        let help = "Connects of this host's processes to virtual addresses that were sent here.";
        page.family("penstock_intercepted_connects_total", Counter, help).sample(&[], connects);
    }
    page.family("penstock_build_info", Gauge, "1; the label says what runs.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
}

/// Under the names that every Prometheus client library uses.
fn process(page: &mut Page, started: SystemTime) {
    let reading = ProcessReading::take();
    if let Some(seconds) = reading.cpu_seconds {
        page.family("process_cpu_seconds_total", Counter, "User and system CPU time.").sample(&[], seconds);
    }
    if let Some(bytes) = reading.resident_bytes {
        page.family("process_resident_memory_bytes", Gauge, "Resident memory.").sample(&[], bytes);
    }
    if let Some(count) = reading.open_descriptors {
        page.family("process_open_fds", Gauge, "Open file descriptors.").sample(&[], count);
    }
    page.family("process_start_time_seconds", Gauge, "Start of the process in Unix time.")
        .sample(&[], unix_seconds(started));
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}
