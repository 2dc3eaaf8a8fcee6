//! Route early, commit late: a long body flows on as soon as its model is known, and an engine has a complete
//! request only once the whole body was found clean.

use std::time::{Duration, Instant};

use penstock_tests::client::{CHAT, Client, ask, chunk, chunked_head, post};
use penstock_tests::engine::{Engine, Left};
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests::{client_policy, engines, gateway, model, pool, qwen};
use tokio::time::sleep;

use crate::{one_engine, one_engine_with};

const MIB: usize = 1 << 20;

/// A chat body of about `size` bytes whose model comes first; `end` closes it.
fn long_body(size: usize, end: &str) -> Vec<u8> {
    let text = "all work and no play makes jack a dull boy. ".repeat(size / 44);
    format!(r#"{{"model":"qwen","messages":[{{"role":"user","content":"{text}"}}]{end}"#).into_bytes()
}

fn head(length: usize) -> String {
    format!(
        "POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn an_engine_sees_the_first_bytes_of_a_long_body_before_the_client_has_sent_the_last() {
    let (engine, gateway) = one_engine().await;
    let body = long_body(8 * MIB, "}");
    let mut client = Client::connect(gateway.address).await;
    client.send(head(body.len())).await;
    client.send(&body[..MIB]).await;
    engine.body_began(0).await;
    assert!(!engine.posts()[0].is_complete());
    client.send(&body[MIB..]).await;
    let sent = Instant::now();
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.content().as_str()), (200, "I am qwen-a"));
    let seen = engine.post(0).await;
    assert!(seen.first_body_at.is_some_and(|at| at < sent));
    assert!(seen.body == body, "{} bytes instead of {}", seen.body.len(), body.len());
    assert_eq!(seen.head.field("content-length"), Some(body.len().to_string().as_str()));
}

#[tokio::test]
async fn a_long_body_is_rewritten_too() {
    let engine = Engine::start("qwen-a").await;
    let manifests = gateway()
        + &pool("qwen")
        + &model("qwen", "qwen", &[("a-longer-name", 1)])
        + &engines("qwen", &[&engine]);
    let gateway = Gateway::start(manifests).await;
    let body = long_body(3 * MIB, "}");
    assert_eq!(ask(gateway.address, post(CHAT, &body)).await.status(), 200);
    let expected = String::from_utf8_lossy(&body).replacen("\"qwen\"", "\"a-longer-name\"", 1);
    let seen = engine.post(0).await;
    assert!(seen.body == expected.as_bytes());
    assert_eq!(seen.head.field("content-length"), Some(expected.len().to_string().as_str()));
}

#[tokio::test]
async fn a_small_body_reaches_no_engine_before_it_is_whole() {
    let (engine, gateway) = one_engine().await;
    let body = long_body(32 * 1024, "}");
    let mut client = Client::connect(gateway.address).await;
    client.send(head(body.len())).await;
    client.send(&body[..body.len() - 1]).await;
    sleep(Duration::from_millis(400)).await;
    assert!(engine.posts().is_empty());
    client.send(&body[body.len() - 1..]).await;
    assert_eq!(client.answer().await.status(), 200);
    assert!(engine.post(0).await.body == body);
}

#[tokio::test]
async fn a_late_second_model_resets_the_engine_before_it_has_a_complete_request() {
    for end in [r#","model":"deepseek"}"#, r#","model":"qwen"}"#, r#","MODEL":1}"#, r#","m\u006fdel":null}"#]
    {
        late_surprise(end, "model_ambiguous").await;
    }
}

#[tokio::test]
async fn a_long_body_that_is_not_json_resets_the_engine() {
    for end in ["", "}}", "} x", ",}", r#","a" 1}"#] {
        late_surprise(end, "body_invalid").await;
    }
}

async fn late_surprise(end: &str, reason: &str) {
    let (engine, gateway) = one_engine().await;
    for chunked in [false, true] {
        let body = long_body(8 * MIB, end);
        let mut client = Client::connect(gateway.address).await;
        if chunked {
            client.send(chunked_head(CHAT)).await;
            for part in body.chunks(MIB / 2) {
                client.send(chunk(part)).await;
            }
            client.send("0\r\n\r\n").await;
        } else {
            client.send(head(body.len())).await;
            client.send(&body).await;
        }
        let answer = client.answer().await;
        assert_eq!(answer.verdict(), (400, Some(reason)), "{end:?}, chunked {chunked}");
    }
    for (at, seen) in engine.posts().iter().enumerate() {
        assert!(seen.first_body_at.is_some() && !seen.is_complete(), "{end:?}");
        assert_eq!(engine.left(at).await.0, Left::Reset, "{end:?}");
    }
    assert_eq!(engine.posts().len(), 2, "{end:?}: each was routed early");
}

#[tokio::test]
async fn a_model_at_the_end_of_a_long_body_routes_within_the_buffer_limit() {
    let (engine, gateway) = one_engine().await;
    let body = format!(r#"{{"messages":"{}","model":"qwen"}}"#, "x".repeat(2 * MIB));
    assert_eq!(ask(gateway.address, post(CHAT, &body)).await.status(), 200);
    assert!(engine.post(0).await.body == body.as_bytes());
}

#[tokio::test]
async fn a_model_beyond_the_buffer_limit_is_too_late() {
    let (engine, gateway) = one_engine_with(&client_policy("connection: {bufferLimit: 128Ki}")).await;
    let late = format!(r#"{{"messages":"{}","model":"qwen"}}"#, "x".repeat(300 * 1024));
    let mut client = Client::connect(gateway.address).await;
    // The answer may come before all is sent.
    _ = client.try_send(post(CHAT, &late)).await;
    assert_eq!(client.answer().await.verdict(), (413, Some("model_too_late")));
    assert!(engine.posts().is_empty());
    // The limit is for what is held while the model is unknown, not for the body.
    let early = long_body(300 * 1024, "}");
    assert_eq!(ask(gateway.address, post(CHAT, early)).await.status(), 200);
}

#[tokio::test]
async fn a_chunked_body_ends_at_the_engine_only_when_it_was_clean() {
    let (engine, gateway) = one_engine().await;
    let body = long_body(MIB, "}");
    let mut client = Client::connect(gateway.address).await;
    client.send(chunked_head(CHAT)).await;
    client.send(chunk(&body)).await;
    engine.body_began(0).await;
    sleep(Duration::from_millis(200)).await;
    assert!(!engine.posts()[0].is_complete(), "the client has not said that this is all");
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 200);
    assert!(engine.post(0).await.body == body);
}

#[tokio::test]
async fn an_early_route_holds_no_more_than_what_is_in_flight() {
    let engine = Engine::start("qwen-a").await;
    let gateway = Gateway::start(qwen(&[&engine])).await;
    let body = long_body(48 * MIB, "}");
    let before = gateway.resident_bytes();
    let mut client = Client::connect(gateway.address).await;
    client.send(head(body.len())).await;
    client.send(&body[..body.len() - 10]).await;
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 16 * MIB as u64, "{grown} bytes more for a body of 48 MiB");
    client.send(&body[body.len() - 10..]).await;
    assert_eq!(client.answer().await.status(), 200);
}
