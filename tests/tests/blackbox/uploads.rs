//! Request bodies on their way to an engine: refused meanwhile, slow, and cut into the smallest pieces.

use std::time::{Duration, Instant};

use penstock_tests::client::{Answer, CHAT, Client, ask, chat, chunk, chunked_head, post};
use penstock_tests::engine::Behaviour;
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests::traffic_policy;

use crate::{one_engine, one_engine_with};

const MIB: usize = 1 << 20;
const KIB: usize = 1 << 10;

fn long_body(size: usize) -> String {
    format!(r#"{{"model":"qwen","messages":"{}"}}"#, "x".repeat(size))
}

async fn ejections(gateway: &Gateway) -> f64 {
    gateway.metric("penstock_endpoint_ejections_total", &[]).await
}

#[tokio::test]
async fn an_early_413_reaches_the_client_also_when_the_engine_does_not_wait_for_it() {
    let (engine, gateway) = one_engine().await;
    engine.behave(Behaviour::AnswersEarlyAndLeaves(413));
    let request = post(CHAT, long_body(3 * MIB));
    for round in 0..50 {
        let mut client = Client::connect(gateway.address).await;
        client.send_until_answered(&request).await;
        let answer = client.answer().await;
        let got = (answer.status(), answer.reason(), answer.text());
        assert_eq!(got, (413, None, "early".to_owned()), "round {round}");
    }
    assert_eq!(ejections(&gateway).await, 0.0, "it answered every time");
    engine.behave(Behaviour::Normal);
    assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
}

/// Four uploads of 400 KB at 100 KB a second, side by side: more than it takes to eject an endpoint.
async fn slow_uploads(gateway: &Gateway) -> Vec<Answer> {
    let mut uploads = Vec::new();
    for _ in 0..4 {
        let address = gateway.address;
        uploads.push(tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            client.send_slowly(post(CHAT, long_body(400_000)), 100_000).await;
            client.answer().await
        }));
    }
    let mut answers = Vec::new();
    for upload in uploads {
        answers.push(upload.await.expect("an answer"));
    }
    answers
}

#[tokio::test]
async fn limits_on_engines_do_not_run_while_a_slow_client_sends() {
    for policy in ["timeout: {http: {streamIdleTimeout: 1s}}", "retry: {perRetry: {timeout: 1s}}"] {
        let (engine, gateway) = one_engine_with(&traffic_policy(policy)).await;
        for answer in slow_uploads(&gateway).await {
            assert_eq!((answer.status(), answer.reason()), (200, None), "{policy}: {}", answer.text());
        }
        assert_eq!(ejections(&gateway).await, 0.0, "{policy}");
        assert_eq!(engine.posts().len(), 4, "{policy}");
    }
}

#[tokio::test]
async fn a_request_timeout_that_ends_a_slow_upload_is_the_clients_fault() {
    let (_engine, gateway) = one_engine_with(&traffic_policy("timeout: {http: {requestTimeout: 2s}}")).await;
    for answer in slow_uploads(&gateway).await {
        assert_eq!(answer.verdict(), (408, Some("body_slow")));
    }
    let entry = gateway.logged("a slow upload", |entry| entry["status"] == 408).await;
    assert_eq!(entry["blame"], "client", "{entry}");
    assert_eq!(ejections(&gateway).await, 0.0);
    assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
}

#[tokio::test]
async fn a_first_window_that_takes_ten_seconds_is_too_slow() {
    let (engine, gateway) = one_engine().await;
    let mut client = Client::connect(gateway.address).await;
    let since = Instant::now();
    client.send_slowly(post(CHAT, long_body(60 * KIB)), 2 * KIB).await;
    assert_eq!(client.answer().await.verdict(), (408, Some("body_slow")));
    let took = since.elapsed();
    assert!(took > Duration::from_secs(8) && took < Duration::from_secs(16), "after {took:?}");
    assert!(engine.posts().is_empty(), "a body below the first window holds no engine");
}

#[tokio::test]
async fn chunks_of_one_byte_cost_no_more_memory_than_their_bytes() {
    let (engine, gateway) = one_engine().await;
    let (begin, end) = (r#"{"messages":""#, r#"","model":"qwen"}"#);
    let body = [begin, &"x".repeat(MIB), end].concat();
    let bytewise = "1\r\nx\r\n".repeat(MIB);
    let wire = [chunk(begin), bytewise.into_bytes(), chunk(end), b"0\r\n\r\n".to_vec()].concat();
    ask(gateway.address, post(CHAT, chat("qwen"))).await;
    let before = gateway.most_resident_bytes();
    let mut client = Client::connect(gateway.address).await;
    client.send(chunked_head(CHAT)).await;
    for part in wire.chunks(MIB) {
        client.send(part).await;
    }
    let answer = client.answer_within(Duration::from_secs(30), "POST").await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(engine.post(1).await.body == body.as_bytes());
    let grown = gateway.most_resident_bytes() - before;
    assert!(grown < 20 * MIB as u64, "{grown} bytes more for 1 MiB");
}
