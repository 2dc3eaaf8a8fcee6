//! Whoever ends a spliced stream, and however: the others know at once.

use std::time::{Duration, Instant};

use penstock_tests::client::{CHAT, Client, Ended, chat_stream, chunk, post};
use penstock_tests::engine::{Behaviour, Engine, Then};
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests::{self, traffic_policy};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use super::{WORDS, anomalies, begun, may_splice, one_engine, paced, spliced, whole};

/// As in `cancel`.
const AT_ONCE: Duration = Duration::from_millis(100);

async fn slow_engine(more: &str) -> (Engine, Gateway) {
    let engine = paced("qwen-a", Duration::from_millis(50)).await;
    let gateway = spliced(&(manifests::qwen(&[&engine]) + more)).await;
    (engine, gateway)
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_engine() {
    if !may_splice() {
        return;
    }
    for way in ["closes", "resets", "half-closes"] {
        let (engine, gateway) = slow_engine("").await;
        let (mut client, mut body) = begun(&gateway).await;
        client.events(&mut body, 3).await;
        let since = Instant::now();
        let _kept = match way {
            "closes" => {
                drop(client);
                None
            }
            "resets" => {
                client.reset();
                None
            }
            _ => {
                client.stream.shutdown().await.expect("half-closing");
                Some(client)
            }
        };
        let took = engine.left(0).await.1.saturating_duration_since(since);
        assert!(took < AT_ONCE, "{way}: the engine was freed after {took:?}");
        let entry =
            gateway.logged("the stream that was left", |entry| entry["reason"] == "client_gone").await;
        assert!(entry["spliced_events"].as_u64() >= Some(3), "{way}: {entry}");
        assert_eq!(anomalies(&gateway).await, 0.0, "{way}");
    }
}

#[tokio::test]
async fn an_engine_that_dies_cuts_the_stream_and_is_no_anomaly() {
    if !may_splice() {
        return;
    }
    let (mut engine, gateway) = slow_engine("").await;
    let (mut client, mut body) = begun(&gateway).await;
    client.events(&mut body, 3).await;
    engine.die().await;
    let ended = client.rest(&mut body).await;
    assert_ne!(ended, Ended::Whole);
    let entry = gateway.logged("the stream that was cut", |entry| entry["reason"] == "engine_reset").await;
    assert!(entry["spliced_events"].as_u64() >= Some(3), "{entry}");
    assert_eq!(anomalies(&gateway).await, 0.0);
    engine.restart().await;
    let again = penstock_tests::client::ask(gateway.address, post(CHAT, chat_stream("qwen"))).await;
    assert_eq!((again.status(), again.ended), (200, Ended::Whole));
}

#[tokio::test]
async fn an_engine_that_breaks_its_framing_is_found_out_by_the_relay() {
    if !may_splice() {
        return;
    }
    let token = chunk("data: {\"choices\":[{\"delta\":{\"content\":\" token\"}}]}\n\n");
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (bad, reason) in [
        (&b"zz\r\ndata: {}\n\n\r\n"[..], "engine_invalid"),
        (b"a\r\ndata: {}\n\nX\n", "engine_invalid"),
        (b"ffffffffffffffffffff\r\n", "engine_invalid"),
        (b"ff\r\ndata: half", "engine_reset"),
        (b"", "engine_reset"),
    ] {
        let (engine, gateway) = one_engine().await;
        let mut writes = vec![head.to_vec()];
        // Not every write is followed by a pause.
        writes.extend(std::iter::repeat_n(token.clone(), 20));
        writes.push(bad.to_vec());
        engine.behave(Behaviour::Writes(writes, Then::Close));
        let answer = penstock_tests::client::ask(gateway.address, post(CHAT, chat_stream("qwen"))).await;
        assert_ne!(answer.ended, Ended::Whole);
        assert!(answer.text().matches("token").count() <= 20);
        gateway.logged("the answer that was cut", |entry| entry["reason"] == reason).await;
        assert_eq!(anomalies(&gateway).await, 0.0);
    }
}

#[tokio::test]
async fn a_gateway_that_is_killed_ends_the_stream_and_leaves_the_engine_whole() {
    if !may_splice() {
        return;
    }
    let (engine, gateway) = slow_engine("").await;
    let (mut client, mut body) = begun(&gateway).await;
    client.events(&mut body, 3).await;
    gateway.signal(Signal::KILL);
    engine.left(0).await;
    let ended = client.rest(&mut body).await;
    assert_ne!(ended, Ended::Whole);
    let direct = penstock_tests::client::ask(engine.address, post(CHAT, chat_stream("qwen"))).await;
    assert_eq!(direct.ended, Ended::Whole);
}

#[tokio::test]
async fn a_drain_waits_for_a_spliced_stream() {
    if !may_splice() {
        return;
    }
    let (_engine, mut gateway) = slow_engine("").await;
    let (mut client, mut body) = begun(&gateway).await;
    gateway.signal(Signal::TERM);
    client.events(&mut body, WORDS - 5).await;
    client.rest(&mut body).await;
    assert_eq!(whole(&gateway).await["usage"]["output_tokens"], WORDS);
    assert!(gateway.exited().await.success());
}

#[tokio::test]
async fn a_drain_that_is_over_cuts_a_spliced_stream() {
    if !may_splice() {
        return;
    }
    let engine = paced("qwen-a", Duration::from_millis(200)).await;
    let options = ["--kernel", "full", "--drain-timeout", "500ms"];
    let mut gateway = Gateway::start_with(manifests::qwen(&[&engine]), &options).await;
    let (mut client, mut body) = begun(&gateway).await;
    gateway.signal(Signal::TERM);
    let ended = client.rest(&mut body).await;
    assert_ne!(ended, Ended::Whole);
    engine.left(0).await;
    assert!(gateway.exited().await.success());
    gateway.logged("the stream that was cut", |entry| entry["reason"] == "draining").await;
}

#[tokio::test]
async fn a_successor_lets_a_spliced_stream_end() {
    if !may_splice() {
        return;
    }
    let (_engine, mut gateway) = slow_engine("").await;
    let (mut client, mut body) = begun(&gateway).await;
    let successor = gateway.successor(&["--kernel", "full"]).ready().await;
    client.events(&mut body, 5).await;
    let other = penstock_tests::client::ask(gateway.address, post(CHAT, chat_stream("qwen"))).await;
    assert_eq!(other.ended, Ended::Whole);
    assert!(whole(&successor).await["spliced_events"].as_u64() > Some(WORDS as u64 / 2));
    client.rest(&mut body).await;
    let entry = whole(&gateway).await;
    assert!(entry["spliced_events"].as_u64() > Some(WORDS as u64 / 2), "{entry}");
    assert!(gateway.exited().await.success());
}

#[tokio::test]
async fn a_request_timeout_holds_while_the_kernel_carries_the_stream() {
    if !may_splice() {
        return;
    }
    let (engine, gateway) = slow_engine(&traffic_policy("timeout: {http: {requestTimeout: 1s}}")).await;
    let since = Instant::now();
    let answer = penstock_tests::client::ask(gateway.address, post(CHAT, chat_stream("qwen"))).await;
    assert_ne!(answer.ended, Ended::Whole);
    assert!((Duration::from_millis(900)..Duration::from_millis(1800)).contains(&since.elapsed()));
    engine.left(0).await;
    let entry = gateway.logged("the timeout", |entry| entry["reason"] == "request_timeout").await;
    assert_eq!(entry["bytes_out"].as_u64(), Some(answer.body.len() as u64), "{entry}");
    assert!(entry["spliced_events"].as_u64() > Some(5), "{entry}");
}

#[tokio::test]
async fn silence_is_measured_from_the_last_event_that_was_spliced() {
    if !may_splice() {
        return;
    }
    let idle = traffic_policy("timeout: {http: {streamIdleTimeout: 1s}}");
    let engine = Engine::start("qwen-a").await;
    let gateway = spliced(&(manifests::qwen(&[&engine]) + &idle)).await;
    engine.behave(Behaviour::Stepped);
    let mut client = Client::connect(gateway.address).await;
    client.send(post(CHAT, chat_stream("qwen"))).await;
    let (_, mut body) = client.head().await;
    client.events(&mut body, 1).await;
    for _ in 0..3 {
        sleep(Duration::from_millis(700)).await;
        engine.step();
        client.events(&mut body, 1).await;
    }
    let since = Instant::now();
    client.rest(&mut body).await;
    assert!((Duration::from_millis(900)..Duration::from_millis(1900)).contains(&since.elapsed()));
    let entry = gateway.logged("the silence", |entry| entry["reason"] == "engine_slow").await;
    assert_eq!((entry["events"].as_u64(), entry["spliced_events"].as_u64()), (Some(4), Some(3)));
}
