//! What the kernel counts at each endpoint, for `/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::text::Kind::{self, Counter, Gauge};
use super::text::{Page, seconds};
use crate::endpoint::{Endpoint, Standing};
use crate::kernel::EndpointCounts;

type Family = (&'static str, Kind, &'static str, fn(&EndpointCounts) -> f64);

const FAMILIES: [Family; 12] = [
    ("penstock_endpoint_kernel_open", Gauge, "Connections to the engine, ours included.", |counts| {
        counts.open.into()
    }),
    (
        "penstock_endpoint_kernel_foreign_open",
        Gauge,
        "Connections of other processes, hosts and gateways.",
        |counts| counts.foreign_open.into(),
    ),
    (
        "penstock_endpoint_kernel_foreign_busy",
        Gauge,
        "Those of them that wait for an answer or move bytes: the foreign part of the load.",
        |counts| counts.foreign_busy.into(),
    ),
    ("penstock_endpoint_kernel_opened_total", Counter, "Connections opened.", |counts| {
        counts.opened_total as f64
    }),
    ("penstock_endpoint_kernel_closed_total", Counter, "Connections closed.", |counts| {
        counts.closed_total as f64
    }),
    (
        "penstock_endpoint_kernel_failed_total",
        Counter,
        "Connects from this host that were refused or never answered.",
        |counts| counts.failed_total as f64,
    ),
    (
        "penstock_endpoint_kernel_reset_total",
        Counter,
        "Connections ended by a reset or a timeout.",
        |counts| counts.reset_total as f64,
    ),
    (
        "penstock_endpoint_kernel_srtt_seconds",
        Gauge,
        "Mean smoothed round-trip time of the open connections; 0 without any.",
        |counts| seconds(counts.srtt_us.into()),
    ),
    ("penstock_endpoint_kernel_retransmits_total", Counter, "Segments sent again.", |counts| {
        counts.retransmits_total as f64
    }),
    (
        "penstock_endpoint_kernel_request_bytes_total",
        Counter,
        "Bytes toward the engine; SYN and FIN count as one.",
        |counts| counts.request_bytes_total as f64,
    ),
    (
        "penstock_endpoint_kernel_answer_bytes_total",
        Counter,
        "Bytes from the engine; SYN and FIN count as one.",
        |counts| counts.answer_bytes_total as f64,
    ),
    (
        "penstock_kernel_drift",
        Gauge,
        "Connections counted that cannot be found, or, below 0, found that are not counted.",
        |counts| counts.drift.into(),
    ),
];

/// Without samples where the kernel has said nothing for two seconds.
pub(super) fn families(page: &mut Page, endpoints: &BTreeMap<(String, &str), &Arc<Endpoint>>) {
    let read = |endpoint: &Arc<Endpoint>| endpoint.counted.read();
    let read: Vec<_> =
        endpoints.iter().filter_map(|(labels, endpoint)| Some((labels, read(endpoint)?))).collect();
    for (name, kind, help, pick) in FAMILIES {
        let mut family = page.family(name, kind, help);
        for ((pool, label), (counts, _)) in &read {
            family.sample(&[("pool", pool), ("endpoint", label)], pick(counts));
        }
    }
    let mut believed = page.family(
        "penstock_endpoint_kernel_believed",
        Gauge,
        "0 while the counts drift or are old, and foreign load is taken for none.",
    );
    for ((pool, label), endpoint) in endpoints {
        let standing = endpoint.counted.standing();
        if standing != Standing::Uncounted {
            let is_believed = u8::from(standing == Standing::Believed);
            believed.sample(&[("pool", pool), ("endpoint", label)], is_believed);
        }
    }
}
