use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use http::{HeaderName, HeaderValue};
use regex::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::endpoint::{Address, Endpoint};
use crate::failure::Reason;
use crate::kernel::EndpointCounts;
use crate::ledger::{AccessLog, RefusedConnection, Usage};
use crate::snapshot::{
    ClientPolicy, Criticality, Destination, Filters, HeaderEdit, Hostname, Listener, Match, Model,
    ModelTarget, ObjectName, PathMatch, Pool, Rule, Target, Traffic, ValueMatch,
};

const HOSTILE: &str = "a\"b\\c\nd\re\tf{}é\u{1f600}\u{2028}#,='\\n";

fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "default".into(), name: name.into() }
}

/// One listener, a rule full of secrets, and two pools of one name with the same endpoint.
fn snapshot() -> Snapshot {
    let endpoint = Arc::new(Endpoint::new(Address::Unix(format!("/run/{HOSTILE}").into())));
    std::mem::forget(endpoint.reserve());
    endpoint.observe_ttft(Duration::from_millis(250));
    (0..3).for_each(|_| _ = endpoint.health.failed());
    let model = Model {
        name: "qwen".into(),
        criticality: Criticality::Critical,
        targets: vec![ModelTarget { name: "qwen-v2".into(), weight: 100 }],
        meter: Arc::default(),
    };
    let pool = |kind| {
        Arc::new(Pool {
            name: name(HOSTILE),
            kind,
            endpoints: vec![endpoint.clone()],
            models: BTreeMap::new(),
            meter: Arc::default(),
        })
    };
    let mut first = pool("InferencePool");
    Arc::get_mut(&mut first).unwrap().models = BTreeMap::from([("qwen".into(), Arc::new(model))]);
    let secret = HeaderValue::from_static("secret-key");
    let rule = Arc::new(Rule {
        route: name("route"),
        index: 1,
        filters: Filters {
            request_headers: vec![HeaderEdit::Set(HeaderName::from_static("authorization"), secret)],
            ..Filters::default()
        },
        destinations: vec![
            Destination { weight: 1, filters: Filters::default(), target: Target::Pool(first.clone()) },
            Destination {
                weight: 2,
                filters: Filters::default(),
                target: Target::Invalid("no such pool".into()),
            },
        ],
        traffic: Traffic::default(),
    });
    let header = |name, value: &str| (HeaderName::from_static(name), ValueMatch::Exact(value.into()));
    let matched = Match {
        hostname: Hostname::Suffix(".example.com".into()),
        path: PathMatch::Prefix("".into()),
        method: Some(Method::POST),
        headers: vec![header("x-gateway-model-name", "qwen"), header("x-key", "secret-header")],
        query: vec![("key".into(), ValueMatch::Regex(Regex::new("secret-query").unwrap()))],
        rule,
    };
    let listener = Listener {
        gateway: name("gateway"),
        name: "http".into(),
        addresses: vec![([0, 0, 0, 0], 8080).into()],
        hostname: Hostname::Any,
        client: ClientPolicy::default(),
        matches: vec![matched],
        meter: Arc::default(),
    };
    Snapshot { generation: 7, listeners: vec![Arc::new(listener)], pools: vec![first, pool("Service")] }
}

fn state() -> AdminState {
    let ledger = Ledger::new(AccessLog::off());
    AdminState {
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot())),
        ledger,
        meters: Arc::default(),
        workers: vec![Arc::default(); 2],
        status: Arc::default(),
    }
}

/// Fills every family, each label with hostile values.
fn traffic(state: &AdminState) {
    for (pool, model) in [(HOSTILE, HOSTILE), ("default/pool", ""), ("", "")] {
        let meter = state.meters.meter(pool, model);
        for (index, &reason) in Reason::ALL.iter().enumerate() {
            let mut entry = state.ledger.open(&meter);
            entry.tries = 2;
            entry.usage =
                Some(Usage { input_tokens: Some(3), output_tokens: Some(4), cached_tokens: Some(1) });
            let start = entry.started();
            entry.first_byte(std::time::Instant::now());
            entry.event(1, start);
            entry.event(1, start + Duration::from_millis(index as u64));
            entry.fail(reason);
        }
        for status in 200..300 {
            let mut entry = state.ledger.open(&meter);
            entry.status = status;
            entry.finish();
        }
    }
    std::mem::forget(state.ledger.connection());
    state.ledger.process().connection_refused(RefusedConnection::ProcessFull);
    state.ledger.process().buffered(100);
    state.status.reload_succeeded();
    state.status.reload_failed("line 3: no");
    for endpoint in state.snapshot.load().endpoints() {
        endpoint.counted.publish(EndpointCounts { open: 3, foreign_open: 2, ..EndpointCounts::default() });
    }
    state.status.set_rung("account", "no CAP_NET_ADMIN");
    state.status.set_program("intercept", Ok(()));
    state.status.set_intercepted(3);
}

async fn start(state: AdminState) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, state, std::future::pending::<()>()));
    address
}

/// Head and body of the answer to raw bytes.
async fn exchange(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_owned(), body.to_owned())
}

async fn get(address: SocketAddr, path: &str) -> (String, String) {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await
}

#[tokio::test]
async fn healthz_is_ok_while_the_process_lives() {
    let address = start(state()).await;
    let (head, body) = get(address, "/healthz?probe=1").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(body, "ok\n");
}

#[tokio::test]
async fn readyz_follows_the_phase_and_says_why() {
    let state = state();
    let address = start(state.clone()).await;
    state.status.set_rung("off", "no BTF");
    state.status.reload_failed("gateway.yaml:3: \"spec\" is no map");
    for (phase, code) in [(Phase::Starting, 503), (Phase::Ready, 200), (Phase::Draining, 503)] {
        state.status.set_phase(phase);
        let (head, body) = get(address, "/readyz").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {code} ")), "{head}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&body["ready"], &body["phase"]), (&json!(code == 200), &json!(phase.word())));
        assert_eq!((&body["generation"], &body["kernel"]["reason"]), (&json!(7), &json!("no BTF")));
        assert_eq!(body["last_reload_error"], "gateway.yaml:3: \"spec\" is no map");
    }
    state.status.set_phase(Phase::Ready);
    state.snapshot.store(Arc::default());
    assert!(get(address, "/readyz").await.0.starts_with("HTTP/1.1 503 "));
}

#[tokio::test]
async fn the_snapshot_shows_live_loads_and_no_secret() {
    let address = start(state()).await;
    let (head, body) = get(address, "/snapshot").await;
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(!body.contains("secret"), "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    let listener = &body["listeners"][0];
    assert_eq!(listener["matches"][0]["headers"][0]["exact"], "qwen");
    let rule = listener["matches"][0]["rule"].as_str().unwrap();
    assert_eq!(listener["rules"][rule]["destinations"][1]["invalid"], "no such pool");
    let endpoint = &body["pools"][0]["endpoints"][0];
    assert_eq!((&endpoint["reservations"], &endpoint["ttft_s"]), (&json!(1), &json!(0.25)));
    assert_eq!((&endpoint["load"]["requests"], &endpoint["hot"]), (&json!(1), &json!(false)));
    assert_eq!((&endpoint["hung"], &endpoint["silent_s"]), (&json!(false), &Value::Null));
    assert_eq!(endpoint["load"]["foreign_busy"]["from"], "nobody: the kernel does not count");
    assert_eq!(body["kernel"]["reason"], "not tried yet");
    assert_eq!((&endpoint["ejected"], &endpoint["ejections"]), (&json!(true), &json!(1)));
    assert_eq!(body["pools"][0]["models"][0]["targets"][0]["name"], "qwen-v2");
}

#[tokio::test]
async fn a_rebound_name_does_not_get_the_snapshot() {
    let address = start(state()).await;
    for (host, code) in [
        ("evil.example", 403),
        ("evil.example:9090", 403),
        ("127.0.0.1.evil.example", 403),
        ("10.0.0.1", 403),
        ("localhost@evil.example", 403),
        ("", 403),
        ("localhost:9090", 200),
        ("LOCALHOST", 200),
        ("127.0.0.2", 200),
        ("[::1]:9090", 200),
    ] {
        let (head, _) = exchange(address, &format!("GET /snapshot HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {code} ")), "{host}: {head}");
    }
    let (head, _) = exchange(address, "GET /metrics HTTP/1.1\r\nHost: metrics.internal\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[tokio::test]
async fn head_has_the_head_alone_and_other_methods_and_paths_are_refused() {
    let address = start(state()).await;
    for path in ["/healthz", "/readyz", "/metrics", "/snapshot"] {
        let (head, body) =
            exchange(address, &format!("HEAD {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await;
        assert!(head.contains("content-length: ") && !head.contains("content-length: 0"), "{head}");
        assert_eq!(body, "");
        let post = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 2\r\n\r\nhi");
        let (head, _) = exchange(address, &post).await;
        assert!(head.starts_with("HTTP/1.1 405 ") && head.contains("allow: GET, HEAD"), "{head}");
    }
    for path in ["/", "/metrics/", "//metrics", "/snapshot.json"] {
        assert!(get(address, path).await.0.starts_with("HTTP/1.1 404 "));
    }
}

#[tokio::test]
async fn silent_connections_neither_last_nor_lock_others_out() {
    let address = start(state()).await;
    let begun = std::time::Instant::now();
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        silent.push(stream);
    }
    let (head, _) = get(address, "/healthz").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(begun.elapsed() < CONNECTION_TIME + Duration::from_secs(3));
    for mut stream in silent {
        assert!(matches!(stream.read(&mut [0; 16]).await, Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn metrics_hold_every_family_and_no_series_twice() {
    let state = state();
    traffic(&state);
    let (head, body) = get(start(state).await, "/metrics").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    for family in [
        "requests_total",
        "request_duration_seconds",
        "time_to_first_byte_seconds",
        "inter_token_gap_seconds",
        "request_bytes_total",
        "response_bytes_total",
        "stream_events_total",
        "tokens_total",
        "retries_total",
        "requests_in_flight",
        "endpoint_leases",
        "endpoint_reservations",
        "endpoint_ttft_seconds",
        "endpoint_ejected",
        "endpoint_hung",
        "endpoint_ejections_total",
        "connections",
        "connections_total",
        "connections_refused_total",
        "access_log_dropped_total",
        "config_generation",
        "config_reloads_total",
        "config_last_reload_successful",
        "config_last_reload_success_timestamp_seconds",
        "buffered_bytes",
        "build_info",
        "kernel_rung",
        "kernel_program",
        "intercepted_connects_total",
        "kernel_drift",
        "endpoint_kernel_open",
        "endpoint_kernel_foreign_busy",
        "endpoint_kernel_srtt_seconds",
        "endpoint_kernel_request_bytes_total",
        "endpoint_kernel_believed",
    ] {
        assert!(body.contains(&format!("\n# TYPE penstock_{family} ")), "{family}");
        let sampled = body.lines().any(|line| line.starts_with(&format!("penstock_{family}")));
        assert!(sampled, "{family} has no sample");
    }
    let refused = r#"penstock_requests_total{pool="default/pool",model="",code="502",reason="engine_reset",blame="engine"} 1"#;
    assert!(body.lines().any(|line| line == refused), "{body}");
    assert!(body.contains("code=\"other\""));
    let mut series: Vec<_> =
        body.lines().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect();
    let samples = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), samples);
}

/// Runs where promtool is installed: Debian's `prometheus` package, `cargo xtask test --real`.
#[test]
fn promtool_finds_nothing_to_complain_about() {
    let state = state();
    traffic(&state);
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = spawned else { return eprintln!("skipped: promtool is not installed") };
    let page = metrics::render(&state);
    std::io::Write::write_all(&mut promtool.stdin.take().unwrap(), page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
