//! What operators ask over HTTP on an address of its own: health, metrics and the snapshot.
//!
//! Runs on the control runtime; reads what the workers count and never holds them up. It has no authentication
//! and listens on loopback unless told otherwise, so nothing it says is a secret.

mod counts;
mod dump;
mod metrics;
mod process;
mod status;
mod text;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use status::{Phase, Status};

use crate::ledger::{Ledger, Meters};
use crate::snapshot::Snapshot;

/// Connections served at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// For a request's head: a connection that says nothing must not keep a probe waiting.
const HEAD_TIME: Duration = Duration::from_secs(1);
/// A connection carries one request and lasts no longer than this, however slowly it is written or read.
const CONNECTION_TIME: Duration = Duration::from_secs(5);
/// Wait before accepting again after an error: they are about descriptors and memory, and do not end at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Everything that the admin address shows.
#[derive(Clone, Debug)]
pub struct AdminState {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub ledger: Ledger,
    pub meters: Arc<Meters>,
    /// Connections of clients that each worker serves.
    pub workers: Vec<Arc<AtomicU32>>,
    pub status: Arc<Status>,
}

/// Serves until `stop` is ready, and then what it has accepted by then.
pub async fn serve(listener: TcpListener, state: AdminState, stop: impl Future) {
    let state = Arc::new(state);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        // The semaphore is never closed, so this is always a permit.
        let permit = room.clone().acquire_owned().await;
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stop => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let state = state.clone();
                connections.spawn(async move {
                    let _permit = permit;
                    // Whatever goes wrong on it is the client's affair; there is nobody else to tell.
                    let _ = timeout(CONNECTION_TIME, connection(stream, state)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin: cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, state: Arc<AdminState>) -> io::Result<()> {
    let on_loopback = stream.local_addr()?.ip().to_canonical().is_loopback();
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(&state, &request, on_loopback);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    let served = builder.serve_connection(TokioIo::new(stream), service).await;
    served.map_err(io::Error::other)
}

fn answer<B>(state: &AdminState, request: &Request<B>, on_loopback: bool) -> Response<Full<Bytes>> {
    if !matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics" | "/snapshot") {
        return respond(StatusCode::NOT_FOUND, TEXT, "there are /healthz, /readyz, /metrics and /snapshot\n");
    }
    // hyper leaves the body of an answer to HEAD away.
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" => respond(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => ready(state),
        "/metrics" => respond(StatusCode::OK, text::CONTENT_TYPE, metrics::render(state)),
        _ if on_loopback && !names_loopback(request) => respond(
            StatusCode::FORBIDDEN,
            TEXT,
            "the Host of a request to a loopback address must be that address or localhost: a web page may have \
             sent this one by DNS rebinding\n",
        ),
        _ => respond_json(StatusCode::OK, &dump::snapshot(&state.snapshot.load(), &state.status.read())),
    }
}

fn ready(state: &AdminState) -> Response<Full<Bytes>> {
    let status = state.status.read();
    let generation = state.snapshot.load().generation;
    let ready = status.phase == Phase::Ready && generation > 0;
    let word = |works: &Result<(), String>| {
        works.as_ref().map_or_else(|why| format!("off: {why}"), |()| "on".into())
    };
    let programs: BTreeMap<_, _> = status.programs.iter().map(|(name, works)| (*name, word(works))).collect();
    let body = json!({
        "ready": ready,
        "phase": status.phase.word(),
        "generation": generation,
        "draining": status.phase == Phase::Draining,
        "kernel": { "rung": status.rung, "reason": status.rung_reason, "programs": programs },
        "last_reload_error": status.last_reload_error,
    });
    respond_json(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

/// Whether a request names the machine it runs on, as every honest client of a loopback address does.
fn names_loopback<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    authority.is_some_and(|authority| {
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    })
}

fn respond_json(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    respond(status, JSON, format!("{body:#}\n"))
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
