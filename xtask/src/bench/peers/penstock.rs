//! Penstock, as `cargo xtask bench` builds it. Without the kernel's programs: they would count the connections of its peers
//! as well; `cargo xtask bench bypass` measures what they cost.

use std::process::Command;

use anyhow::Result;

use super::super::ask::Pool;
use super::super::penstock;
use super::{Packages, Peer, Site, version_said};

pub(crate) const PEER: Peer = Peer {
    name: "penstock",
    about: "routes by the model in the body",
    packages: Packages::Ours,
    version: || version_said(Command::new(penstock()).arg("--version")),
    command,
};

fn command(site: &Site) -> Result<Option<Command>> {
    let pools = Pool::BOTH.map(|pool| (pool.name(), pool.model(), vec![site.engine(pool)]));
    let manifests = site.write("manifests.yaml", &manifests(site.listen.port(), &pools))?;
    let mut command = Command::new(penstock());
    command.arg("run").arg("-f").arg(manifests).arg("--access-log").arg(site.access_log());
    command.args(["--admin", "127.0.0.1:0", "--workers", "1", "--kernel", "off"]);
    Ok(Some(command))
}

/// A gateway with pools of endpoints.
pub(crate) fn manifests(port: u16, pools: &[(&str, &str, Vec<std::net::SocketAddr>)]) -> String {
    let mut text = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: bench}}
spec: {{controllerName: gateway.envoyproxy.io/gatewayclass-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: bench}}
spec:
  gatewayClassName: bench
  listeners:
  - {{name: http, protocol: HTTP, port: {port}}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {{name: bench}}
spec:
  connection: {{bufferLimit: 32Mi}}
  targetRefs:
  - {{group: gateway.networking.k8s.io, kind: Gateway, name: bench}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: bench}}
spec:
  parentRefs:
  - {{name: bench}}
  rules:
"
    );
    for (name, model, _) in pools {
        text += &format!(
            "  - matches:
    - headers:
      - {{type: Exact, name: X-Gateway-Model-Name, value: {model}}}
    backendRefs:
    - {{group: inference.networking.x-k8s.io, kind: InferencePool, name: pool-{name}}}
"
        );
    }
    for (name, model, endpoints) in pools {
        text += &format!(
            "---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {{name: pool-{name}}}
spec:
  selector: {{app: pool-{name}}}
  targetPortNumber: 8000
  extensionRef: {{name: none}}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {{name: {model}}}
spec:
  modelName: {model}
  criticality: Critical
  poolRef: {{name: pool-{name}}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata:
  name: pool-{name}
  labels: {{app: pool-{name}}}
spec:
  endpoints:
"
        );
        for endpoint in endpoints {
            text += &format!("  - ip: {{address: {}, port: {}}}\n", endpoint.ip(), endpoint.port());
        }
    }
    text
}
