//! What those who run Penstock see: metrics, the access log, health and the snapshot.

use std::collections::HashMap;

use penstock_tests::client::{CHAT, ask, chat, chat_stream, post, post_with};
use penstock_tests::engine::{Behaviour, Engine};
use penstock_tests::eventually;
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests::{engines, gateway, model, pool};

use crate::one_engine;

#[tokio::test]
async fn the_access_log_tells_the_story_of_a_request() {
    let engine = Engine::start("qwen-a").await;
    let manifests =
        gateway() + &pool("qwen") + &model("chat", "qwen", &[("qwen-2", 1)]) + &engines("qwen", &[&engine]);
    let gateway = Gateway::start(manifests).await;
    let request = post_with(CHAT, "X-Request-Id: story-1\r\n", chat_stream("chat"));
    let answer = ask(gateway.address, request).await;
    assert_eq!(answer.status(), 200);
    let entry = gateway.logged("the request", |entry| entry["request_id"] == "story-1").await;
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    assert_eq!((text("method").as_str(), text("path").as_str()), ("POST", CHAT), "{entry}");
    assert_eq!((text("model").as_str(), text("target_model").as_str()), ("chat", "qwen-2"), "{entry}");
    assert!(text("pool").contains("qwen"), "{entry}");
    assert_eq!(text("endpoint"), engine.address.to_string());
    assert!(text("client").starts_with("127.0.0.1"), "{entry}");
    assert!(text("time").contains('T'), "{entry}");
    assert_eq!(
        (&entry["status"], &entry["tries"], &entry["streaming"]),
        (&200.into(), &1.into(), &true.into())
    );
    assert_eq!(entry["bytes_in"], chat_stream("chat").len(), "{entry}");
    assert_eq!(entry["bytes_out"], answer.body.len(), "{entry}");
    let (ttft, duration) = (entry["ttft_s"].as_f64(), entry["duration_s"].as_f64());
    assert!(ttft.is_some_and(|t| t > 0.0) && ttft <= duration, "{entry}");
    // Six events with content, and [DONE].
    assert!(entry["events"].as_u64().is_some_and(|n| (6..=7).contains(&n)), "{entry}");
    assert_eq!(entry["usage"]["output_tokens"], 3, "{entry}");
    assert_eq!(entry["usage"]["input_tokens"], 7, "{entry}");
}

#[tokio::test]
async fn each_request_has_one_line_also_when_it_is_refused() {
    let (_engine, gateway) = one_engine().await;
    for body in [chat("qwen"), "{}".to_owned(), chat("none")] {
        ask(gateway.address, post(CHAT, body)).await;
    }
    ask(gateway.address, "BAD\r\n\r\n").await;
    for reason in ["model_missing", "model_not_found", "head_invalid"] {
        let entry = gateway.logged(reason, |entry| entry["reason"] == reason).await;
        assert_eq!(entry["blame"], "client", "{entry}");
    }
    gateway.logged("the good one", |entry| entry["status"] == 200).await;
    assert_eq!(gateway.access_log().len(), 4, "{:#?}", gateway.access_log());
}

#[tokio::test]
async fn usage_is_read_from_whole_answers_too() {
    let (_engine, gateway) = one_engine().await;
    ask(gateway.address, post(CHAT, chat("qwen"))).await;
    let entry = gateway.logged("the request", |entry| entry["status"] == 200).await;
    assert_eq!(entry["usage"]["output_tokens"], 3, "{entry}");
    assert_eq!(entry["streaming"], false, "{entry}");
}

#[tokio::test]
async fn metrics_count_requests_by_pool_model_and_outcome() {
    let (engine, gateway) = one_engine().await;
    for _ in 0..5 {
        ask(gateway.address, post(CHAT, chat("qwen"))).await;
    }
    ask(gateway.address, post(CHAT, "{}")).await;
    engine.behave(Behaviour::ResetsBeforeAnswer);
    ask(gateway.address, post(CHAT, chat("qwen"))).await;
    let name = "penstock_requests_total";
    penstock_tests::eventually("seven requests to be counted", async || {
        (gateway.metric(name, &[]).await >= 7.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric(name, &["model=\"qwen\"", "code=\"200\""]).await as u32, 5);
    assert_eq!(gateway.metric(name, &["reason=\"model_missing\"", "blame=\"client\""]).await as u32, 1);
    assert_eq!(gateway.metric(name, &["reason=\"engine_reset\"", "blame=\"engine\""]).await as u32, 1);
}

#[tokio::test]
async fn names_that_clients_make_up_do_not_become_labels() {
    let (_engine, gateway) = one_engine().await;
    for at in 0..200 {
        ask(gateway.address, post(CHAT, chat(&format!("made-up-{at}")))).await;
    }
    let text = gateway.admin("/metrics").await.text();
    assert!(!text.contains("made-up-"), "unbounded labels");
    assert!(text.len() < 200_000, "{} bytes", text.len());
}

#[tokio::test]
async fn metrics_are_in_the_text_format() {
    let (_engine, gateway) = one_engine().await;
    ask(gateway.address, post(CHAT, chat_stream("qwen"))).await;
    let answer = gateway.admin("/metrics").await;
    let kind = answer.head.field("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain") || kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = answer.text();
    let mut types = HashMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is declared twice");
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap_or_default();
        assert!(name.starts_with("penstock_") || name.starts_with("process_"), "{line}");
        let family = ["_bucket", "_sum", "_count", "_total"].iter().find_map(|end| name.strip_suffix(end));
        assert!(types.contains_key(name) || family.is_some_and(|f| types.contains_key(f)), "{line}: no TYPE");
    }
    assert!(types.len() > 5);
}

#[tokio::test]
async fn health_readiness_and_the_snapshot_are_on_the_admin_port() {
    let (engine, gateway) = one_engine().await;
    assert_eq!(gateway.admin("/healthz").await.status(), 200);
    assert_eq!(gateway.admin("/readyz").await.status(), 200);
    assert_eq!(gateway.admin("/nothing").await.status(), 404);
    engine.behave(Behaviour::Hangs);
    let mut client = penstock_tests::client::Client::connect(gateway.address).await;
    client.send(post(CHAT, chat("qwen"))).await;
    engine.post(0).await;
    let snapshot = gateway.admin("/snapshot").await.json().to_string();
    for part in [engine.address.to_string(), "qwen".to_owned(), "generation".to_owned()] {
        assert!(snapshot.contains(&part), "no {part} in {snapshot}");
    }
    // The engine has the request a moment before the gateway knows that it has.
    eventually("the live load", async || {
        let snapshot = gateway.admin("/snapshot").await.json().to_string();
        snapshot.contains("\"leases\":1").then_some(())
    })
    .await;
}
