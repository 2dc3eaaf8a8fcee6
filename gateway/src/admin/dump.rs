//! The snapshot as JSON, with the live load of its endpoints.
//!
//! Values of headers and of queries are left away, in matches as in filters: users keep keys there.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::status::StatusReading;
use crate::endpoint::{Endpoint, Standing};
use crate::inspect::MODEL_HEADER;
use crate::pick::is_hot;
use crate::snapshot::{
    Destination, Filters, HeaderEdit, Hostname, Listener, Match, PathMatch, Pool, Rule, Snapshot, Target,
    ValueMatch,
};

pub(super) fn snapshot(snapshot: &Snapshot, status: &StatusReading) -> Value {
    json!({
        "generation": snapshot.generation,
        "kernel": { "rung": status.rung, "reason": status.rung_reason },
        "listeners": list(&snapshot.listeners, |each| listener(each)),
        "pools": list(&snapshot.pools, |each| pool(each)),
    })
}

fn list<T>(items: &[T], show: impl FnMut(&T) -> Value) -> Value {
    items.iter().map(show).collect()
}

fn listener(listener: &Listener) -> Value {
    // A rule with many matches is shown once, where they refer to it.
    let rules: Map<_, _> =
        listener.matches.iter().map(|each| (rule_name(&each.rule), rule(&each.rule))).collect();
    json!({
        "gateway": listener.gateway.to_string(),
        "name": *listener.name,
        "addresses": list(&listener.addresses, |address| address.to_string().into()),
        "hostname": hostname(&listener.hostname),
        "client": {
            "buffer_limit_bytes": listener.client.buffer_limit,
            "max_connections": listener.client.max_connections,
        },
        "matches": list(&listener.matches, match_),
        "rules": rules,
    })
}

fn hostname(hostname: &Hostname) -> Value {
    match hostname {
        Hostname::Any => "*".into(),
        Hostname::Exact(name) => (**name).into(),
        Hostname::Suffix(suffix) => format!("*{suffix}").into(),
    }
}

fn match_(each: &Match) -> Value {
    let path = match &each.path {
        PathMatch::Exact(path) => json!({ "exact": **path }),
        PathMatch::Prefix(prefix) if prefix.is_empty() => json!({ "prefix": "/" }),
        PathMatch::Prefix(prefix) => json!({ "prefix": **prefix }),
        PathMatch::Regex(regex) => json!({ "regex": regex.as_str() }),
    };
    json!({
        "hostname": hostname(&each.hostname),
        "path": path,
        "method": each.method.as_ref().map(http::Method::as_str),
        "headers": list(&each.headers, |(name, value)| named(name.as_str(), value)),
        "query": list(&each.query, |(name, value)| named(name, value)),
        "rule": rule_name(&each.rule),
    })
}

/// The model is what most routes match on, and no secret.
fn named(name: &str, value: &ValueMatch) -> Value {
    match value {
        ValueMatch::Exact(value) if name == MODEL_HEADER => {
            json!({ "name": name, "exact": **value })
        }
        ValueMatch::Exact(_) => json!({ "name": name, "type": "exact" }),
        ValueMatch::Regex(_) => json!({ "name": name, "type": "regex" }),
    }
}

fn rule_name(rule: &Rule) -> String {
    format!("{}#{}", rule.route, rule.index)
}

fn rule(rule: &Rule) -> Value {
    let traffic = &rule.traffic;
    json!({
        "filters": filters(&rule.filters),
        "destinations": list(&rule.destinations, destination),
        "traffic": {
            "body_limit_bytes": traffic.body_limit,
            "connect_timeout_s": traffic.connect_timeout.as_secs_f64(),
            "request_timeout_s": traffic.request_timeout.map(|timeout| timeout.as_secs_f64()),
            "attempt_timeout_s": traffic.attempt_timeout.map(|timeout| timeout.as_secs_f64()),
            "stream_idle_timeout_s": traffic.stream_idle_timeout.as_secs_f64(),
            "retry_attempts": traffic.retry.attempts,
            "max_parallel_requests": traffic.max_parallel_requests,
            "splice": if traffic.splice { "auto" } else { "off" },
        },
    })
}

fn filters(filters: &Filters) -> Value {
    let edits = |edits: &[HeaderEdit]| {
        list(edits, |edit| match edit {
            HeaderEdit::Set(name, _) => json!({ "set": name.as_str() }),
            HeaderEdit::Add(name, _) => json!({ "add": name.as_str() }),
            HeaderEdit::Remove(name) => json!({ "remove": name.as_str() }),
        })
    };
    json!({
        "request_headers": edits(&filters.request_headers),
        "response_headers": edits(&filters.response_headers),
        "rewrites_url": filters.rewrite.is_some(),
        "redirects": filters.redirect.as_ref().map(|redirect| redirect.status),
    })
}

fn destination(destination: &Destination) -> Value {
    let mut shown = json!({ "weight": destination.weight, "filters": filters(&destination.filters) });
    match &destination.target {
        Target::Pool(pool) => shown["pool"] = pool.name.to_string().into(),
        Target::Invalid(why) => shown["invalid"] = (**why).into(),
    }
    shown
}

fn pool(pool: &Pool) -> Value {
    let models: Vec<_> = pool.models.values().collect();
    json!({
        "name": pool.name.to_string(),
        "kind": pool.kind,
        "models": list(&models, |model| json!({
            "name": *model.name,
            "criticality": format!("{:?}", model.criticality),
            "targets": list(&model.targets, |target| json!({ "name": *target.name, "weight": target.weight })),
        })),
        "endpoints": list(&pool.endpoints, |each| endpoint(each, pool)),
    })
}

/// Each term of what picking takes for the load, and who says so.
fn load(endpoint: &Endpoint) -> Value {
    let counts = endpoint.counted.read().map(|(counts, _)| counts);
    let from = match endpoint.counted.standing() {
        Standing::Believed => "kernel",
        Standing::Drifting => "nobody: the kernel's counts drift",
        Standing::Stale => "nobody: the kernel's counts are old",
        Standing::Uncounted => "nobody: the kernel does not count",
    };
    json!({
        "requests": endpoint.load(),
        "leases": { "requests": endpoint.leases(), "from": "gateway" },
        "reservations": { "requests": endpoint.reservations(), "from": "gateway" },
        "foreign_busy": {
            "requests": endpoint.counted.foreign_busy(),
            "from": from,
            "counted": counts.map(|counts| counts.foreign_busy),
            "drift": counts.map(|counts| counts.drift),
        },
        "foreign_open": counts.map(|counts| counts.foreign_open),
        "request_age_s": counts.and_then(|counts| counts.request_age).map(|age| age.as_secs_f64()),
        "stream_age_s": counts.and_then(|counts| counts.stream_age).map(|age| age.as_secs_f64()),
        "answer_age_s": counts.and_then(|counts| counts.answer_age).map(|age| age.as_secs_f64()),
    })
}

fn endpoint(endpoint: &Arc<Endpoint>, pool: &Pool) -> Value {
    json!({
        "address": *endpoint.label,
        "leases": endpoint.leases(),
        "reservations": endpoint.reservations(),
        "load": load(endpoint),
        "ttft_s": endpoint.ttft().map(|ttft| ttft.as_secs_f64()),
        "hot": is_hot(endpoint, &pool.endpoints),
        "hung": endpoint.health.is_hung(),
        "silent_s": endpoint.silent().map(|silent| silent.as_secs_f64()),
        "ejected": endpoint.health.is_ejected(),
        "ejections": endpoint.health.ejections(),
        "splice_anomalies": endpoint.splice.anomalies(),
    })
}
