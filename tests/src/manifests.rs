//! Kubernetes manifests as text, for gateways of one test each.
//!
//! `$PORT` stands for the listener's port: [`crate::gateway`] picks a free one.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use crate::engine::Engine;

/// The manifests of the reference document, as they lie in `examples/ack`, but for the port and the address.
///
/// # Panics
/// When they are not there.
#[must_use]
pub fn ack() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ack");
    let mut text = String::new();
    for name in ["inference-gateway.yaml", "inference-pool.yaml", "inference-route.yaml"] {
        let path = folder.join(name);
        let file = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.push_str(&file);
        text.push_str("\n---\n");
    }
    let spec = "  gatewayClassName: inference-gateway\n";
    let address = format!("{spec}  addresses:\n  - type: IPAddress\n    value: 127.0.0.1\n");
    assert!(text.contains(spec) && text.contains("port: 8080"), "examples/ack has changed");
    text.replace(spec, &address).replace("port: 8080", "port: $PORT")
}

/// A GatewayClass, and one Gateway with one listener `web` on the loopback.
#[must_use]
pub fn gateway() -> String {
    "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: penstock}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: penstock
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: web, protocol: HTTP, port: $PORT}]
---
"
    .to_owned()
}

/// [`gateway`] on other addresses than 127.0.0.1 alone.
#[must_use]
pub fn gateway_at(addresses: &[&str]) -> String {
    let items: Vec<String> =
        addresses.iter().map(|address| format!("{{type: IPAddress, value: \"{address}\"}}")).collect();
    gateway().replace("{type: IPAddress, value: 127.0.0.1}", &items.join(", "))
}

/// An InferencePool that selects `app: NAME`.
#[must_use]
pub fn pool(name: &str) -> String {
    format!(
        "apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  targetPortNumber: 8000
  extensionRef: {{name: picker}}
---
"
    )
}

/// An InferenceModel; `targets` of (name, weight) may be empty.
#[must_use]
pub fn model(name: &str, pool: &str, targets: &[(&str, u32)]) -> String {
    // Names of models hold dots and slashes, names of objects do not.
    let object: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let mut text = format!(
        "apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {{name: {}}}
spec:
  modelName: {name:?}
  criticality: Critical
  poolRef: {{name: {pool}}}
",
        object.to_lowercase()
    );
    if !targets.is_empty() {
        text.push_str("  targetModels:\n");
    }
    for (target, weight) in targets {
        _ = writeln!(text, "  - {{name: {target:?}, weight: {weight}}}");
    }
    text + "---\n"
}

/// A Backend with the label `app: NAME` for each address.
#[must_use]
pub fn backends(app: &str, addresses: &[SocketAddr]) -> String {
    let mut text = String::new();
    for (at, address) in addresses.iter().enumerate() {
        _ = writeln!(
            text,
            "apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: {app}-{at}, labels: {{app: {app}}}}}
spec: {{endpoints: [{{ip: {{address: {}, port: {}}}}}]}}
---",
            address.ip(),
            address.port()
        );
    }
    text
}

/// A Backend with the label `app: NAME` and one endpoint of any kind, as YAML between braces.
#[must_use]
pub fn backend(app: &str, endpoint: &str) -> String {
    format!(
        "apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: {app}, labels: {{app: {app}}}}}
spec: {{endpoints: [{endpoint}]}}
---
"
    )
}

/// [`backends`] for engines.
#[must_use]
pub fn engines(app: &str, engines: &[&Engine]) -> String {
    let addresses: Vec<SocketAddr> = engines.iter().map(|engine| engine.address).collect();
    backends(app, &addresses)
}

/// An HTTPRoute on the whole Gateway; `rules` is the YAML list under `rules:`.
#[must_use]
pub fn route(name: &str, rules: &str) -> String {
    let mut text = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: gw}}]
  rules:
"
    );
    for line in rules.trim_end().lines() {
        _ = writeln!(text, "  {line}");
    }
    text + "---\n"
}

/// A rule for one model name that sends to pools by weight.
#[must_use]
pub fn rule(model: &str, pools: &[(&str, u32)]) -> String {
    let mut text = format!("- matches: [{{headers: [{{name: X-Gateway-Model-Name, value: {model:?}}}]}}]\n");
    text.push_str("  backendRefs:\n");
    for (pool, weight) in pools {
        _ = writeln!(
            text,
            "  - {{group: inference.networking.x-k8s.io, kind: InferencePool, name: {pool}, weight: {weight}}}"
        );
    }
    text
}

/// A ClientTrafficPolicy on the Gateway; `spec` is YAML of one or more lines.
#[must_use]
pub fn client_policy(spec: &str) -> String {
    policy("ClientTrafficPolicy", spec)
}

/// A BackendTrafficPolicy on the Gateway.
#[must_use]
pub fn traffic_policy(spec: &str) -> String {
    policy("BackendTrafficPolicy", spec)
}

fn policy(kind: &str, spec: &str) -> String {
    let mut text = format!(
        "apiVersion: gateway.envoyproxy.io/v1alpha1
kind: {kind}
metadata: {{name: policy}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: gw}}]
"
    );
    for line in spec.trim_end().lines() {
        _ = writeln!(text, "  {line}");
    }
    text + "---\n"
}

/// One pool `qwen` that serves the model `qwen`, found through its InferenceModel alone.
#[must_use]
pub fn qwen(list: &[&Engine]) -> String {
    gateway() + &pool("qwen") + &model("qwen", "qwen", &[]) + &engines("qwen", list)
}
