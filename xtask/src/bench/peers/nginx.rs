//! nginx from Debian. Plain, it never looks into a body: it routes by a header that the load sends for it alone, and
//! passes bodies on as they come. It is the mark for what looking costs.

use std::process::Command;

use anyhow::Result;

use super::super::ask::{POOL_HEADER, Pool};
use super::{Packages, Peer, Site, version_said};

const PROGRAM: &str = "nginx";
/// Its default of 16 KiB halves the throughput of large bodies; more than this fits no core's second cache.
const PASSED_AT_ONCE: &str = "256k";

pub(super) fn peer() -> Peer {
    Peer {
        name: "nginx".to_owned(),
        about: "does not look into bodies: routes by a header, passes bodies on unbuffered",
        packages: Packages::Debian(&["nginx-light"]),
        splices: false,
        version: Box::new(version),
        command: Box::new(|site| {
            let header = POOL_HEADER.replace('-', "_");
            let http = format!("map $http_{header} $pool {{ default pool_{}; b pool_b; }}", Pool::A.name());
            start(
                site,
                "",
                &http,
                &format!("proxy_request_buffering off; client_body_buffer_size {PASSED_AT_ONCE};"),
            )
        }),
    }
}

pub(super) fn version() -> Option<String> {
    version_said(Command::new(PROGRAM).arg("-v"))
}

/// nginx with something of one's own in its main, http and location blocks; the location's sets `$pool`.
pub(super) fn start(site: &Site, main: &str, http: &str, location: &str) -> Result<Option<Command>> {
    let folder = site.folder.display();
    let config = format!(
        "{main}
daemon off;
# One process, so that killing it leaves no worker behind.
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
worker_rlimit_nofile 65536;
events {{ worker_connections 20000; }}
http {{
    access_log {access_log};
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 64m;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    proxy_buffering off;
    proxy_read_timeout 1h;
    {http}
    upstream pool_a {{ server {engine_a} max_fails=0; keepalive 2000; keepalive_requests 1000000000; }}
    upstream pool_b {{ server {engine_b} max_fails=0; keepalive 2000; keepalive_requests 1000000000; }}
    server {{
        listen {listen} backlog=8192;
        location / {{
            {location}
            proxy_pass http://$pool;
        }}
    }}
}}
",
        access_log = site.access_log().display(),
        engine_a = site.engine(Pool::A),
        engine_b = site.engine(Pool::B),
        listen = site.listen,
    );
    let config = site.write("nginx.conf", &config)?;
    let mut command = Command::new(PROGRAM);
    command.arg("-c").arg(config).arg("-p").arg(&site.folder);
    Ok(Some(command))
}
