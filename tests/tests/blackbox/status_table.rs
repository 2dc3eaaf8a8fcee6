//! Every row of the status table: the code, the reason word, and the shape of the API that was called.

use std::time::{Duration, Instant};

use penstock_tests::client::{CHAT, Client, Ended, ask, chat, chunk, chunked_head, get, post, post_with};
use penstock_tests::engine::{Behaviour, Engine, Left};
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests::{engines, gateway, model, pool, qwen, route, rule, traffic_policy};
use tokio::time::sleep;

use crate::{one_engine, one_engine_with};

#[tokio::test]
async fn an_error_has_the_shape_of_the_api_that_was_called() {
    let (_engine, gateway) = one_engine().await;
    let openai = ask(gateway.address, post(CHAT, "{}")).await;
    assert_eq!(openai.verdict(), (400, Some("model_missing")));
    assert_eq!(openai.head.field("content-type"), Some("application/json"));
    let error = &openai.json()["error"];
    assert_eq!((&error["code"], &error["type"]), (&"model_missing".into(), &"invalid_request_error".into()));
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()) && error["param"] == "model", "{error}");

    let anthropic = ask(gateway.address, post("/v1/messages", "{}")).await;
    assert_eq!(anthropic.verdict(), (400, Some("model_missing")));
    let json = anthropic.json();
    assert_eq!((&json["type"], &json["error"]["type"]), (&"error".into(), &"invalid_request_error".into()));
    let unknown = ask(gateway.address, post("/v1/messages", chat("none"))).await;
    assert_eq!(unknown.json()["error"]["type"], "not_found_error");
}

#[tokio::test]
async fn r404_where_nothing_routes() {
    let (engine, gateway) = one_engine().await;
    assert_eq!(get(gateway.address, "/nothing").await.verdict(), (404, Some("no_route")));
    let unknown = ask(gateway.address, post(CHAT, chat("gpt-9"))).await;
    assert_eq!(unknown.verdict(), (404, Some("model_not_found")));
    assert!(engine.posts().is_empty());
}

#[tokio::test]
async fn r413_where_a_body_is_over_its_limit() {
    let (engine, gateway) = one_engine_with(&traffic_policy("requestBuffer: {limit: 256Ki}")).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n");
    let told = ask(gateway.address, head + r#"{"model":"qwen","#).await;
    assert_eq!(
        told.verdict(),
        (413, Some("body_too_large")),
        "as soon as the route and so the limit is known"
    );
    assert!(engine.posts().is_empty());

    let mut client = Client::connect(gateway.address).await;
    client.send(chunked_head(CHAT)).await;
    client.send(chunk(r#"{"model":"qwen","messages":""#)).await;
    for _ in 0..40 {
        if client.try_send(chunk("x".repeat(8192))).await.is_err() {
            break;
        }
    }
    assert_eq!(client.answer().await.verdict(), (413, Some("body_too_large")));
    for (at, seen) in engine.posts().iter().enumerate() {
        assert!(!seen.is_complete());
        assert_eq!(engine.left(at).await.0, Left::Reset);
    }
}

#[tokio::test]
async fn r413_by_default_above_64_mib() {
    let (engine, gateway) = one_engine().await;
    let over = (64 << 20) + 1;
    let head = format!("POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: {over}\r\n\r\n");
    let told = ask(gateway.address, head + r#"{"model":"qwen","#).await;
    assert_eq!(told.verdict(), (413, Some("body_too_large")));
    assert!(engine.posts().is_empty());
}

#[tokio::test]
async fn r415_where_a_body_is_encoded() {
    let (engine, gateway) = one_engine().await;
    let encoded = post_with(CHAT, "Content-Encoding: gzip\r\n", b"\x1f\x8b\x08\x00");
    assert_eq!(ask(gateway.address, encoded).await.verdict(), (415, Some("encoding_unsupported")));
    assert!(engine.posts().is_empty());
}

#[tokio::test]
async fn r429_where_a_policy_bounds_what_is_in_flight() {
    let policy = traffic_policy("circuitBreaker: {maxParallelRequests: 1}");
    let (engine, gateway) = one_engine_with(&policy).await;
    engine.behave(Behaviour::Stepped);
    let mut first = Client::connect(gateway.address).await;
    first.send(post(CHAT, r#"{"model":"qwen","stream":true}"#)).await;
    let (_, mut body) = first.head().await;
    let shed = ask(gateway.address, post(CHAT, chat("qwen"))).await;
    assert_eq!(shed.verdict(), (429, Some("saturated")));
    assert!(shed.head.field("retry-after").is_some_and(|s| s.parse::<u32>().is_ok()));
    engine.steps(10);
    first.rest(&mut body).await;
    assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
}

#[tokio::test]
async fn r431_where_a_head_is_too_large() {
    let (engine, gateway) = one_engine().await;
    let big = format!("X-Big: {}\r\n", "x".repeat(200 * 1024));
    let many: String = (0..2000).map(|at| format!("x{at}: 1\r\n")).collect();
    for fields in [big, many] {
        let mut client = Client::connect(gateway.address).await;
        _ = client.try_send(post_with(CHAT, &fields, chat("qwen"))).await;
        assert_eq!(client.answer().await.verdict(), (431, Some("head_too_large")));
    }
    assert!(engine.posts().is_empty());
}

#[tokio::test]
async fn r500_where_a_rule_leads_nowhere() {
    let engine = Engine::start("qwen-a").await;
    let manifests = gateway()
        + &pool("qwen")
        + &engines("qwen", &[&engine])
        + &route("rules", &(rule("gone", &[("no-such-pool", 1)]) + &rule("zero", &[("qwen", 0)])));
    let gateway = Gateway::start(manifests).await;
    for model in ["gone", "zero"] {
        let answer = ask(gateway.address, post(CHAT, chat(model))).await;
        assert_eq!(answer.verdict(), (500, Some("route_invalid")), "{model}");
    }
}

#[tokio::test]
async fn r502_names_what_the_engine_did() {
    let rows = [
        (Behaviour::ResetsBeforeAnswer, "engine_reset"),
        (Behaviour::ClosesBeforeAnswer, "engine_reset"),
        (Behaviour::garbage(), "engine_invalid"),
        (Behaviour::two_framings(), "engine_invalid"),
    ];
    for (behaviour, reason) in rows {
        let (engine, gateway) = one_engine().await;
        engine.behave(behaviour.clone());
        let answer = ask(gateway.address, post(CHAT, chat("qwen"))).await;
        assert_eq!(answer.verdict(), (502, Some(reason)), "{behaviour:?}");
        let entry = gateway.logged("the 502", |entry| entry["status"] == 502).await;
        assert_eq!((&entry["blame"], &entry["reason"]), (&"engine".into(), &reason.into()));
    }
    let (mut engine, gateway) = one_engine().await;
    engine.refuse().await;
    let refused = ask(gateway.address, post(CHAT, chat("qwen"))).await;
    assert_eq!(refused.verdict(), (502, Some("engine_refused")));
}

#[tokio::test]
async fn r503_where_a_pool_is_empty() {
    let gateway = Gateway::start(qwen(&[])).await;
    let answer = ask(gateway.address, post(CHAT, chat("qwen"))).await;
    assert_eq!(answer.verdict(), (503, Some("no_endpoint")));
    let anthropic = ask(gateway.address, post("/v1/messages", chat("qwen"))).await;
    assert_eq!(anthropic.json()["error"]["type"], "overloaded_error");
}

#[tokio::test]
async fn r504_where_an_engine_is_slow() {
    let engine = Engine::start("qwen-a").await;
    engine.behave(Behaviour::Hangs);
    let timed =
        |timeouts: &str, model: &str| rule(model, &[("qwen", 1)]) + &format!("  timeouts: {{{timeouts}}}\n");
    let rules = timed("request: 300ms", "whole") + &timed("request: 30s, backendRequest: 300ms", "attempt");
    let manifests = gateway()
        + &pool("qwen")
        + &model("whole", "qwen", &[])
        + &model("attempt", "qwen", &[])
        + &engines("qwen", &[&engine])
        + &route("timed", &rules);
    let gateway = Gateway::start(manifests).await;
    let whole = ask(gateway.address, post(CHAT, chat("whole"))).await;
    assert_eq!(whole.verdict(), (504, Some("request_timeout")));
    let attempt = ask(gateway.address, post(CHAT, chat("attempt"))).await;
    assert_eq!(attempt.verdict(), (504, Some("engine_slow")));
    for at in 0..engine.posts().len() {
        engine.left(at).await;
    }
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_cut_after_its_idle_time() {
    let (engine, gateway) =
        one_engine_with(&traffic_policy("timeout: {http: {streamIdleTimeout: 500ms}}")).await;
    engine.behave(Behaviour::Stepped);
    let mut client = Client::connect(gateway.address).await;
    client.send(post(CHAT, r#"{"model":"qwen","stream":true}"#)).await;
    let (_, mut body) = client.head().await;
    client.events(&mut body, 1).await;
    let mut ended = Ok(Vec::new());
    while ended.is_ok() {
        ended = client.more(&mut body).await;
    }
    assert_ne!(ended, Err(Ended::Whole), "a cut stream must not look whole");
    let entry = gateway.logged("the cut stream", |entry| entry["reason"] == "engine_slow").await;
    assert_eq!(entry["blame"], "engine");
    engine.left(0).await;
}

#[tokio::test]
async fn a_stream_longer_than_its_attempt_may_take_is_cut() {
    let engine = Engine::start("qwen-a").await;
    engine.behave(Behaviour::Stepped);
    let rules = rule("qwen", &[("qwen", 1)]) + "  timeouts: {backendRequest: 2s}\n";
    let manifests = gateway() + &pool("qwen") + &engines("qwen", &[&engine]) + &route("timed", &rules);
    let gateway = Gateway::start(manifests).await;
    let since = Instant::now();
    let mut client = Client::connect(gateway.address).await;
    client.send(post(CHAT, r#"{"model":"qwen","stream":true}"#)).await;
    let (_, mut body) = client.head().await;
    client.events(&mut body, 1).await;
    // It is not silent: it is slow.
    let mut ended = None;
    while ended.is_none() && since.elapsed() < Duration::from_secs(8) {
        tokio::select! {
            more = client.more(&mut body) => ended = more.err(),
            () = sleep(Duration::from_millis(500)) => engine.step(),
        }
    }
    let took = since.elapsed();
    assert!(ended.is_some_and(|ended| ended != Ended::Whole), "{ended:?} after {took:?}");
    assert!(took > Duration::from_millis(1500) && took < Duration::from_secs(6), "after {took:?}");
    let entry = gateway.logged("the cut stream", |entry| entry["path"] == CHAT).await;
    assert_eq!(entry["blame"], "engine", "{entry}");
    engine.left(0).await;
}
