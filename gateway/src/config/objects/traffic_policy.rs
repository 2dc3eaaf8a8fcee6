//! BackendTrafficPolicy: timeouts, retries and limits toward engines.

mod retry;

use super::target::{TargetKind, Targets};
use super::{Kind, Spec};
use crate::config::fields::Fields;
use crate::config::traffic::TrafficPatch;

#[derive(Debug)]
pub(crate) struct BackendTrafficPolicy {
    pub(crate) targets: Targets,
    /// `mergeType` is set: what this policy leaves open comes from the Gateway's.
    pub(crate) merges: bool,
    pub(crate) patch: TrafficPatch,
}

impl Spec for BackendTrafficPolicy {
    fn read(top: &Fields<'_>, _: Kind) -> Option<Self> {
        let spec = top.require("spec")?.fields()?;
        let targets = Targets::read(&spec, &[TargetKind::Gateway, TargetKind::HttpRoute]);
        let merges = spec.get("mergeType").and_then(|field| {
            field.choice(&[("StrategicMerge", true), ("JSONMerge", true), ("Replace", false)])
        });
        spec.unsupported(&["rateLimit", "faultInjection", "admissionControl", "bandwidthLimit"]);
        spec.unsupported(&["responseOverride", "proxyProtocol", "httpUpgrade"]);
        load_balancer(&spec);
        health_check(&spec);
        spec.no_effect(&["connection", "http2", "tcpKeepalive", "dns"], "Penstock's own settings hold");
        spec.no_effect(&["useClientProtocol"], "engines are spoken to over HTTP/1.1");
        spec.no_effect(&["compression", "compressor"], "answers are never re-encoded");
        spec.no_effect(&["telemetry"], "metrics and logs are the gateway's own");
        let mut patch = TrafficPatch {
            retry: spec.fields("retry").map(|fields| retry::read(&fields)),
            max_parallel_requests: max_parallel_requests(&spec),
            ..TrafficPatch::default()
        };
        timeouts(&spec, &mut patch);
        if let Some(buffer) = spec.fields("requestBuffer") {
            patch.body_limit = buffer.require("limit").and_then(|field| field.quantity(u64::MAX));
        }
        Some(Self { targets, merges: merges.unwrap_or_default(), patch })
    }
}

fn timeouts(spec: &Fields<'_>, patch: &mut TrafficPatch) {
    let Some(timeout) = spec.fields("timeout") else { return };
    if let Some(tcp) = timeout.fields("tcp") {
        patch.connect_timeout = tcp.duration("connectTimeout");
    }
    let Some(http) = timeout.fields("http") else { return };
    patch.request_timeout = http.duration("requestTimeout");
    patch.stream_idle_timeout = http.duration("streamIdleTimeout");
    http.no_effect(
        &["connectionIdleTimeout", "maxConnectionDuration"],
        "engines close at 5 s, we before them",
    );
    http.no_effect(&["maxStreamDuration"], "requestTimeout bounds the whole exchange");
}

fn load_balancer(spec: &Fields<'_>) {
    let Some(balancer) = spec.fields("loadBalancer") else { return };
    let Some(kind) = balancer.require("type") else { return };
    match kind.string() {
        Some("LeastRequest" | "Random" | "RoundRobin") => kind.info("answered by the built-in picker"),
        Some(other) => kind.unsupported(format!("{other} is not supported; leave loadBalancer out")),
        None => {}
    }
    balancer.unsupported(&["consistentHash", "endpointOverride", "zoneAware"]);
    balancer.no_effect(&["slowStart"], "the picker goes by live load");
}

fn health_check(spec: &Fields<'_>) {
    let Some(check) = spec.fields("healthCheck") else { return };
    check.unsupported(&["active"]);
    check.no_effect(&["passive", "panicThreshold"], "the built-in ejection of failing endpoints holds");
}

/// Envoy Gateway's default of 1,024 is not copied: that many long streams in parallel are an ordinary day of an
/// inference gateway. Absent and 0 both mean no bound by policy; endpoints bound themselves by load.
fn max_parallel_requests(spec: &Fields<'_>) -> Option<u32> {
    let breaker = spec.fields("circuitBreaker")?;
    let others = ["maxConnections", "maxPendingRequests", "maxParallelRetries", "maxRequestsPerConnection"];
    breaker.no_effect(&others, "only maxParallelRequests is counted");
    breaker.no_effect(&["perEndpoint", "retryBudget"], "only maxParallelRequests is counted");
    let value = breaker.get("maxParallelRequests")?.integer(0..=i64::from(u32::MAX))?;
    u32::try_from(value).ok()
}

/// Statuses as retry lists write them.
fn statuses(fields: &Fields<'_>, key: &str) -> Vec<u16> {
    let items = fields.items(key, 64);
    items.iter().filter_map(|item| item.integer(100..=599)).filter_map(|n| u16::try_from(n).ok()).collect()
}
