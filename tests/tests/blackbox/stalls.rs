//! Senders that stop: whatever they hold is given back, and they are told.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use penstock_tests::client::{Answer, CHAT, Client, chunk, chunked_head, get};
use penstock_tests::engine::{Engine, Left};
use penstock_tests::eventually;
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests::{self, client_policy, gateway_at, qwen};
use tokio::time::sleep;

use crate::{one_engine, one_engine_with};

/// A head or the first window may take 10 s; later progress is asked for every 10 s.
const PATIENCE: Duration = Duration::from_secs(25);

async fn stall(mut client: Client, bytes: Vec<u8>) -> Answer {
    client.send(bytes).await;
    client.answer_within(PATIENCE, "POST").await
}

#[tokio::test]
async fn a_request_that_stalls_at_any_stage_is_408() {
    let (engine, gateway) = one_engine().await;
    let long = format!(r#"{{"model":"qwen","messages":"{}"#, "x".repeat(1 << 20));
    let head = format!("POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n");
    let body_head = format!("{head}Content-Length: 8000000\r\n\r\n");
    let chunk_head = chunked_head(CHAT);
    let stages: Vec<(&str, &str, Vec<u8>)> = vec![
        ("inside the request line", "head_slow", b"POST /v1/ch".to_vec()),
        ("inside a field", "head_slow", head.clone().into_bytes()),
        ("before the body", "body_slow", body_head.clone().into_bytes()),
        ("before the model", "body_slow", format!("{body_head}{{\"messages\":\"xx").into_bytes()),
        ("behind the model", "body_slow", format!("{body_head}{{\"model\":\"qwen\",\"a\":").into_bytes()),
        ("inside a long body", "body_slow", format!("{body_head}{long}").into_bytes()),
        ("before a chunk", "body_slow", chunk_head.clone().into_bytes()),
        ("inside a chunk size", "body_slow", format!("{chunk_head}1").into_bytes()),
        ("inside a chunk", "body_slow", format!("{chunk_head}ff\r\n{{\"model\":\"qwen\"").into_bytes()),
        (
            "before the last chunk",
            "body_slow",
            [chunk_head.as_bytes(), &chunk("{\"model\":\"qwen\"}")].concat(),
        ),
        ("inside the trailers", "body_slow", format!("{chunk_head}2\r\n{{}}\r\n0\r\nX-Sum: ").into_bytes()),
    ];
    let mut stalled = Vec::new();
    for (stage, reason, bytes) in stages {
        let client = Client::connect(gateway.address).await;
        stalled.push((stage, reason, tokio::spawn(stall(client, bytes))));
    }
    for (stage, reason, answer) in stalled {
        let answer = answer.await.unwrap_or_else(|error| panic!("stalled {stage}: {error}"));
        assert_eq!(answer.verdict(), (408, Some(reason)), "stalled {stage}");
    }
    // Those whose model was known were on their way to an engine, which never had a complete request.
    let posts = engine.posts();
    assert!(!posts.is_empty());
    for (at, seen) in posts.iter().enumerate() {
        assert!(!seen.is_complete());
        assert_eq!(engine.left(at).await.0, Left::Reset);
    }
}

#[tokio::test]
async fn a_trickle_is_not_progress() {
    let (_engine, gateway) = one_engine().await;
    let mut client = Client::connect(gateway.address).await;
    let long = format!(r#"{{"model":"qwen","messages":"{}"#, "x".repeat(100_000));
    client.send(format!("POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n{long}")).await;
    for _ in 0..40 {
        if client.try_send("x").await.is_err() {
            break;
        }
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(client.answer_within(PATIENCE, "POST").await.verdict(), (408, Some("body_slow")));
}

#[tokio::test]
async fn a_policy_may_ask_for_the_head_or_the_whole_request_sooner() {
    let policy = "timeout: {http: {requestHeadersReceivedTimeout: 500ms, requestReceivedTimeout: 1500ms}}";
    let (_engine, gateway) = one_engine_with(&client_policy(policy)).await;
    let head = stall(Client::connect(gateway.address).await, b"POST / HTTP/1.1\r\n".to_vec());
    let long = format!("POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{{");
    let body = stall(Client::connect(gateway.address).await, long.into_bytes());
    let both = tokio::time::timeout(Duration::from_secs(8), async { tokio::join!(head, body) }).await;
    let (head, body) = both.expect("sooner than without the policy");
    assert_eq!(head.verdict(), (408, Some("head_slow")));
    assert_eq!(body.verdict(), (408, Some("body_slow")));
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word_when_its_policy_says_so() {
    let (_engine, gateway) = one_engine_with(&client_policy("timeout: {http: {idleTimeout: 1s}}")).await;
    let mut client = Client::connect(gateway.address).await;
    client.send("GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 200);
    let (_, bytes) = client.closed().await;
    assert_eq!(String::from_utf8_lossy(&bytes), "");
}

#[tokio::test]
async fn connections_beyond_the_policys_limit_are_closed_and_counted() {
    let (_engine, gateway) =
        one_engine_with(&client_policy("connection: {connectionLimit: {value: 2}}")).await;
    let list = "GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(gateway.address).await;
        client.send(list).await;
        assert_eq!(client.answer().await.status(), 200);
        held.push(client);
    }
    let mut third = Client::connect(gateway.address).await;
    assert!(third.closed().await.1.is_empty());
    assert_eq!(gateway.metric("penstock_connections_refused_total", &["listener_full"]).await, 1.0);
    drop(held);
    eventually("room for another", async || {
        (gateway.metric("penstock_connections", &["client"]).await == 0.0).then_some(())
    })
    .await;
    assert_eq!(get(gateway.address, "/v1/models").await.status(), 200);
}

#[tokio::test]
async fn a_listeners_connection_limit_holds_over_its_addresses_and_all_workers() {
    let engine = Engine::start("qwen-a").await;
    let manifests = qwen(&[&engine]).replace(&manifests::gateway(), &gateway_at(&["127.0.0.1", "::1"]))
        + &client_policy("connection: {connectionLimit: {value: 6}}");
    let gateway = Gateway::start(manifests).await;
    let port = gateway.address.port();
    let addresses: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    let mut asked = Vec::new();
    for at in 0..40 {
        asked.push(tokio::spawn(async move {
            let mut client = Client::connect(addresses[at % 2]).await;
            // Those that are refused may be reset while they send.
            _ = client.try_send("GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.is_answered().await.then_some(client)
        }));
    }
    let mut served = Vec::new();
    for client in asked {
        served.extend(client.await.expect("a client"));
    }
    assert_eq!(served.len(), 6, "of 40 over two addresses and two workers");
    assert_eq!(gateway.metric("penstock_connections_refused_total", &["listener_full"]).await, 34.0);
    drop(served);
    eventually("room for another", async || {
        (gateway.metric("penstock_connections", &["client"]).await == 0.0).then_some(())
    })
    .await;
    for address in addresses {
        assert_eq!(get(address, "/v1/models").await.status(), 200);
    }
}
