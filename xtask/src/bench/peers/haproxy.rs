//! HAProxy from Debian, which reads a body it holds whole (`http-buffer-request`) with its own `json_query`. Its buffers are
//! made to fit the largest body: a larger one than its buffer, it would route without having seen the model.

use std::fs::OpenOptions;
use std::process::Command;

use anyhow::Result;

use super::super::ask::Pool;
use super::{Packages, Peer, Site, version_said};

const PROGRAM: &str = "haproxy";
/// For heads, and what is reserved for rewriting.
const BESIDE_THE_BODY: usize = 16 << 10;

pub(super) fn peer() -> Peer {
    Peer {
        name: "haproxy".to_owned(),
        about: "routes by the model in the body: http-buffer-request, json_query",
        packages: Packages::Debian(&["haproxy"]),
        splices: false,
        version: Box::new(|| version_said(Command::new(PROGRAM).arg("-v"))),
        command: Box::new(command),
    }
}

fn command(site: &Site) -> Result<Option<Command>> {
    let [a, b] = Pool::BOTH;
    let config = format!(
        "global
    nbthread 1
    tune.bufsize {bufsize}
    log stdout format raw local0

defaults
    mode http
    log global
    option httplog
    option http-buffer-request
    # Or it holds events back, 0.1 s and more.
    option http-no-delay
    http-reuse always
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout http-request 1h
    timeout http-keep-alive 1h

frontend clients
    bind {listen} backlog 8192
    http-request set-var(txn.model) req.body,json_query('$.model')
    use_backend pool-b if {{ var(txn.model) -m str {model_b} }}
    use_backend pool-a if {{ var(txn.model) -m str {model_a} }}
    default_backend no-pool

backend no-pool
    http-request return status 404

backend pool-a
    server engine {engine_a}

backend pool-b
    server engine {engine_b}
",
        bufsize = site.largest_body + BESIDE_THE_BODY,
        listen = site.listen,
        model_a = a.model(),
        model_b = b.model(),
        engine_a = site.engine(a),
        engine_b = site.engine(b),
    );
    let config = site.write("haproxy.cfg", &config)?;
    let mut command = Command::new(PROGRAM);
    command.arg("-db").arg("-f").arg(config);
    command.stdout(OpenOptions::new().create(true).append(true).open(site.access_log())?);
    Ok(Some(command))
}
