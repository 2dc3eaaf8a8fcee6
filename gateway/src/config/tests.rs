//! From YAML to snapshot and report.

mod ack;
mod endpoints;
mod gateways;
mod hostile;
mod models;
mod objects;
mod policies;
mod precedence;
mod routes;

use std::sync::Arc;

use super::*;
use crate::ledger::Meter;
use crate::snapshot::{Listener, Match, Pool, Target};

fn texts(texts: &[(&str, &str)]) -> Loaded {
    let text = |(name, text): &(&str, &str)| Text { name: (*name).into(), text: (*text).to_owned() };
    Loaded { texts: texts.iter().map(text).collect(), fingerprint: Fingerprint::default() }
}

/// Parses and builds one text.
fn built(yaml: &str) -> (Snapshot, Report) {
    built_with(yaml, &Names::default())
}

fn built_with(yaml: &str, names: &Names) -> (Snapshot, Report) {
    let config = parse(&texts(&[("test.yaml", yaml)]));
    let mut meter = |_: &str, _: &str| Arc::new(Meter::default());
    build(&config, names, &mut Registry::default(), &mut meter, 1)
}

/// Builds what must be without errors.
fn good(yaml: &str) -> Snapshot {
    let (snapshot, report) = built(yaml);
    assert!(report.ok(), "{}", crate::check::render(&report));
    snapshot
}

/// The errors, as they are shown.
fn errors(yaml: &str) -> Vec<String> {
    shown(yaml, Severity::Error)
}

fn warnings(yaml: &str) -> Vec<String> {
    shown(yaml, Severity::Warning)
}

fn shown(yaml: &str, severity: Severity) -> Vec<String> {
    let (_, report) = built(yaml);
    let diagnostics = report.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity);
    diagnostics.map(ToString::to_string).collect()
}

/// Exactly one error, which holds all of these.
#[track_caller]
fn one_error(yaml: &str, parts: &[&str]) {
    let errors = errors(yaml);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    for part in parts {
        assert!(errors[0].contains(part), "{part:?} is not in {:?}", errors[0]);
    }
}

/// The condition of an object as `Kind=Status Reason`.
fn condition(report: &Report, object: &str, about: &str, kind: &str) -> String {
    let found = report.objects.iter().filter(|o| format!("{} {}", o.kind, o.name) == object);
    let found = found.flat_map(|o| &o.conditions).find(|c| c.about == about && c.kind == kind);
    found.map_or_else(|| "none".into(), |c| format!("{} {}", c.status, c.reason))
}

fn listener<'s>(snapshot: &'s Snapshot, name: &str) -> &'s Listener {
    snapshot.listeners.iter().find(|listener| &*listener.name == name).expect("no such listener")
}

fn pool<'s>(snapshot: &'s Snapshot, name: &str) -> &'s Pool {
    snapshot.pools.iter().find(|pool| &*pool.name.name == name).expect("no such pool")
}

fn addresses(pool: &Pool) -> Vec<String> {
    pool.endpoints.iter().map(|endpoint| endpoint.label.to_string()).collect()
}

/// Where a match leads: pool names, or `!` for an invalid share.
fn targets(made: &Match) -> Vec<String> {
    let target = |target: &Target| match target {
        Target::Pool(pool) => pool.name.name.to_string(),
        Target::Invalid(_) => "!".into(),
    };
    made.rule.destinations.iter().map(|destination| target(&destination.target)).collect()
}

/// A class, a Gateway `gw` with the listener `web`, and two pools `a` and `b` with an endpoint each.
const BASE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: class}
spec: {controllerName: penstock.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: class
  listeners: [{name: web, port: 8080, protocol: HTTP}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: a}
spec: {selector: {matchLabels: {app: a}}, targetPorts: [{number: 8000}]}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: b}
spec: {selector: {matchLabels: {app: b}}, targetPorts: [{number: 8000}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: a, labels: {app: a}}
spec: {endpoints: [{ip: {address: 127.0.0.1, port: 9001}}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: b, labels: {app: b}}
spec: {endpoints: [{ip: {address: 127.0.0.1, port: 9002}}]}
---
";

/// `BASE` and more.
fn with_base(yaml: &str) -> String {
    format!("{BASE}{yaml}")
}

/// `BASE` and a route `r` to `gw` with these rules, indented by two.
fn with_rules(rules: &str) -> String {
    with_base(&route("r", rules))
}

fn route(name: &str, rules: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: gw}}]
  rules:
{rules}
---
"
    )
}

const TO_A: &str = "{group: inference.networking.k8s.io, kind: InferencePool, name: a}";
const TO_B: &str = "{group: inference.networking.k8s.io, kind: InferencePool, name: b}";
