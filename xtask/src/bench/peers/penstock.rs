//! Penstock, as `cargo xtask bench` builds it, or another build of it: without the kernel's programs, and on the rung
//! `full`, where the kernel counts connections and passes events from the engine's socket to the client's.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use rustix::process::geteuid;
use serde::Deserialize;

use super::super::ask::Pool;
use super::super::penstock;
use super::{Packages, Peer, Site, version_said};

/// Programs are pinned in a file system of their own: another gateway of this host shares none of it, and nothing
/// stays behind whatever happens.
const OWN_PINS: &str = "mount -t bpf none /sys/fs/bpf && exec \"$0\" \"$@\"";

/// A build of Penstock, and what its user may set.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) program: PathBuf,
    pub(crate) workers: usize,
    /// For `--kernel`.
    pub(crate) kernel: &'static str,
}

pub(crate) fn peer() -> Peer {
    gateway("penstock".to_owned(), Gateway { program: penstock(), workers: 1, kernel: "off" })
}

/// The same build, on the highest rung of its kernel half.
pub(super) fn full() -> Peer {
    let version =
        || if geteuid().is_root() { version_said(Command::new(penstock()).arg("--version")) } else { None };
    Peer {
        about: "the same on the rung full: the kernel counts connections and splices events",
        version: Box::new(version),
        ..gateway("penstock-full".to_owned(), Gateway { program: penstock(), workers: 1, kernel: "full" })
    }
}

/// Another build, to be compared with this one.
pub(super) fn other(name: &str, program: &Path) -> Result<Peer> {
    ensure!(program.is_file(), "{} is no file: a peer {name:?} names a built penstock", program.display());
    // A name without a slash would be looked up in PATH.
    let program = std::path::absolute(program)?;
    Ok(gateway(name.to_owned(), Gateway { program, workers: 1, kernel: "off" }))
}

pub(crate) fn gateway(name: String, gateway: Gateway) -> Peer {
    let program = gateway.program.clone();
    Peer {
        name,
        about: "routes by the model in the body",
        packages: Packages::Ours,
        splices: gateway.kernel == "full",
        version: Box::new(move || version_said(Command::new(&program).arg("--version"))),
        command: Box::new(move |site| command(site, &gateway)),
    }
}

fn command(site: &Site, gateway: &Gateway) -> Result<Option<Command>> {
    let pools = Pool::BOTH.map(|pool| (pool.name(), pool.model(), vec![site.engine(pool)]));
    let manifests = site.write("manifests.yaml", &manifests(site.listen.port(), &pools))?;
    let mut command = match gateway.kernel {
        "account" | "full" => with_own_pins(&gateway.program),
        _ => Command::new(&gateway.program),
    };
    command.arg("run").arg("-f").arg(manifests).arg("--access-log").arg(site.access_log());
    command.args(["--admin", "127.0.0.1:0", "--workers", &gateway.workers.to_string()]);
    command.args(["--kernel", gateway.kernel]);
    Ok(Some(command))
}

pub(crate) fn with_own_pins(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", OWN_PINS]).arg(program);
    command
}

/// Of all events of an access log, how many were spliced; none where it has no events.
pub(crate) fn spliced(access_log: &Path) -> Result<Option<f64>> {
    #[derive(Deserialize)]
    struct Answer {
        events: u64,
        spliced_events: u64,
    }
    let (mut events, mut spliced) = (0, 0);
    for line in BufReader::new(File::open(access_log)?).lines() {
        let answer: Answer = serde_json::from_str(&line?)?;
        events += answer.events;
        spliced += answer.spliced_events;
    }
    Ok((events > 0).then(|| spliced as f64 / events as f64))
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
