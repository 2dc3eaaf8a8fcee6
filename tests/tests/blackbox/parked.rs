//! Connections that were answered once and have been silent since: the gateway keeps next to nothing of them, and serves
//! them as before.

use std::time::{Duration, Instant};

use penstock_tests::client::{CHAT, Client, chat, post};
use penstock_tests::eventually;
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests::{self, client_policy, gateway_at, qwen};
use rustix::process::Signal;
use tokio::time::sleep;

use crate::{one_engine, one_engine_with};

const MODELS: &str = "GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n";
/// A connection is parked after a second.
const SILENCE: Duration = Duration::from_millis(1300);

async fn parked(gateway: &Gateway) -> Client {
    let mut client = Client::connect(gateway.address).await;
    client.send(post(CHAT, chat("qwen"))).await;
    assert_eq!(client.answer().await.status(), 200);
    sleep(SILENCE).await;
    client
}

#[tokio::test]
async fn the_next_requests_are_served_however_they_come() {
    let (_engine, gateway) = one_engine().await;
    let mut client = parked(&gateway).await;
    let pipelined = [post(CHAT, chat("qwen")), MODELS.into(), post(CHAT, chat("qwen"))].concat();
    client.send(pipelined).await;
    for _ in 0..3 {
        assert_eq!(client.answer().await.status(), 200);
    }
    sleep(SILENCE).await;
    client.send_bytewise(post(CHAT, chat("qwen"))).await;
    assert_eq!(client.answer().await.status(), 200);
    sleep(SILENCE).await;
    let long = chat("qwen").replacen('{', &format!("{{\"padding\":\"{}\",", "x".repeat(3 << 20)), 1);
    client.send(post(CHAT, long)).await;
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let (_engine, gateway) = one_engine().await;
    let (left, reset) = tokio::join!(parked(&gateway), parked(&gateway));
    assert_eq!(gateway.metric("penstock_connections", &["client"]).await, 2.0);
    drop(left);
    reset.reset();
    eventually("no connection to be left", async || {
        (gateway.metric("penstock_connections", &["client"]).await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn heads_are_as_strict_and_as_quick_as_before() {
    let (_engine, gateway) =
        one_engine_with(&client_policy("timeout: {http: {requestHeadersReceivedTimeout: 300ms}}")).await;
    let (mut slow, mut invalid) = tokio::join!(parked(&gateway), parked(&gateway));
    slow.send("POST /v1/cha").await;
    assert_eq!(slow.answer().await.verdict(), (408, Some("head_slow")));
    invalid.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    assert_eq!(invalid.answer().await.verdict(), (400, Some("head_invalid")));
}

#[tokio::test]
async fn the_idle_time_goes_on() {
    let (_engine, gateway) = one_engine_with(&client_policy("timeout: {http: {idleTimeout: 2s}}")).await;
    let since = Instant::now();
    let mut client = parked(&gateway).await;
    assert!(client.closed().await.1.is_empty());
    assert!(since.elapsed() >= Duration::from_secs(2), "{:?}", since.elapsed());
}

#[tokio::test]
async fn it_counts_against_the_limit_of_connections() {
    let (_engine, gateway) =
        one_engine_with(&client_policy("connection: {connectionLimit: {value: 1}}")).await;
    let mut client = parked(&gateway).await;
    assert!(Client::connect(gateway.address).await.closed().await.1.is_empty());
    assert_eq!(gateway.metric("penstock_connections_refused_total", &["listener_full"]).await, 1.0);
    client.send(MODELS).await;
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn a_drain_closes_it_at_once() {
    let (_engine, mut gateway) = one_engine().await;
    let mut client = parked(&gateway).await;
    let since = Instant::now();
    gateway.signal(Signal::TERM);
    assert!(client.closed().await.1.is_empty());
    assert_eq!(gateway.exited().await.code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_reload_that_takes_its_address_away_closes_it() {
    let (engine, gateway) = one_engine().await;
    let mut client = parked(&gateway).await;
    gateway.rewrite(&qwen(&[&engine]).replace(&manifests::gateway(), &gateway_at(&["::1"])));
    assert!(client.closed().await.1.is_empty());
}

#[tokio::test]
async fn a_successor_lets_it_ask_once_more_and_says_goodbye_with_the_answer() {
    let (_engine, old) = one_engine().await;
    let mut client = parked(&old).await;
    let _new = old.successor(&[]).ready().await;
    old.says("a successor serves").await;
    client.send(post(CHAT, chat("qwen"))).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.head.field("connection")), (200, Some("close")));
    assert!(client.closed().await.1.is_empty());
}

#[tokio::test]
async fn many_that_asked_at_once_leave_little_behind() {
    const CLIENTS: u64 = 400;
    let gateway = Gateway::start_with(qwen(&[]), &["--workers", "1"]).await;
    let before = gateway.resident_bytes();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(gateway.address).await);
    }
    for client in &mut clients {
        client.send(MODELS).await;
    }
    for client in &mut clients {
        assert_eq!(client.answer().await.status(), 200);
    }
    eventually("no more than 10 KiB for each", async || {
        let each = gateway.resident_bytes().saturating_sub(before) / CLIENTS;
        (each < 10 << 10).then_some(())
    })
    .await;
    for client in &mut clients {
        client.send(MODELS).await;
        assert_eq!(client.answer().await.status(), 200);
    }
}
