//! Streams that go from engine to client in the kernel: the client gets what the engine wrote, and nothing is lost of what
//! the gateway counts. Needs root, and says so without.

mod anomaly;
mod container;
mod ends;
mod fuzz;
mod hostile;
mod readers;

use std::time::Duration;

use penstock_tests::client::{CHAT, Client, chat_stream, post};
use penstock_tests::engine::{Engine, Persona};
use penstock_tests::gateway::{Gateway, may_load};
use penstock_tests::manifests;
use penstock_tests::wire::Body;
use serde_json::Value;

/// Tokens of an answer, and what stands beside them: the role, the stop, the usage. `[DONE]` is no event.
const WORDS: usize = 40;
const EVENTS: u64 = WORDS as u64 + 3;

/// Whether there can be splicing here; says so where not.
fn may_splice() -> bool {
    let may = may_load();
    if !may {
        eprintln!("NOT RUN: not (whole) root, and this test loads eBPF programs");
    }
    may
}

/// An engine that takes its time between tokens.
async fn paced(name: &str, pace: Duration) -> Engine {
    let words = (0..WORDS).map(|n| format!(" word{n}")).collect();
    let persona = Persona { words, pace, ..Persona::named(name) };
    Engine::start_at(([127, 0, 0, 1], 0).into(), persona).await.expect("a free port")
}

async fn spliced(manifests: &str) -> Gateway {
    Gateway::start_with(manifests, &["--kernel", "full"]).await
}

async fn one_engine() -> (Engine, Gateway) {
    let engine = paced("qwen-a", Duration::from_millis(5)).await;
    let gateway = spliced(&manifests::qwen(&[&engine])).await;
    (engine, gateway)
}

/// A client in the middle of a stream that the kernel carries by now.
async fn begun(gateway: &Gateway) -> (Client, Body) {
    let mut client = Client::connect(gateway.address).await;
    client.send(post(CHAT, chat_stream("qwen"))).await;
    let (_, mut body) = client.head().await;
    client.events(&mut body, 5).await;
    (client, body)
}

/// The access log's line of a whole answer.
async fn whole(gateway: &Gateway) -> Value {
    gateway.logged("a whole answer", |entry| entry["status"] == 200 && entry["reason"].is_null()).await
}

async fn anomalies(gateway: &Gateway) -> f64 {
    gateway.metric("penstock_endpoint_splice_anomalies_total", &[]).await
}

#[tokio::test]
async fn a_paced_stream_is_spliced_and_counted_as_if_it_were_not() {
    if !may_splice() {
        return;
    }
    let (engine, gateway) = one_engine().await;
    let direct = penstock_tests::client::ask(engine.address, post(CHAT, chat_stream("qwen"))).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(post(CHAT, chat_stream("qwen"))).await;
    let answer = client.answer().await;
    assert_eq!(answer.text(), direct.text());

    let entry = whole(&gateway).await;
    assert_eq!(
        (entry["events"].as_u64(), entry["bytes_out"].as_u64()),
        (Some(EVENTS), Some(answer.body.len() as u64))
    );
    assert_eq!(entry["usage"]["input_tokens"], 7);
    assert_eq!(entry["usage"]["output_tokens"], WORDS);
    assert!(entry["ttft_s"].as_f64().is_some_and(|ttft| ttft > 0.0), "{entry}");
    let spliced = entry["spliced_events"].as_u64().unwrap_or_default();
    assert!(spliced >= EVENTS - 5, "{spliced} of {EVENTS} events were spliced");
    assert_eq!(gateway.metric("penstock_spliced_events_total", &[]).await, spliced as f64);
    assert_eq!(gateway.metric("penstock_stream_events_total", &[]).await, EVENTS as f64);
    assert_eq!(gateway.metric("penstock_inter_token_gap_seconds_count", &[]).await, (EVENTS - 1) as f64);
    let gaps = gateway.metric("penstock_inter_token_gap_seconds_sum", &[]).await;
    assert!(gaps > 0.004 * EVENTS as f64, "{gaps}");
    assert!(gateway.metric("penstock_splice_arms_total", &[]).await >= 1.0);
    assert!(gateway.metric("penstock_splice_hand_backs_total", &["shape"]).await >= 1.0);
    assert_eq!(anomalies(&gateway).await, 0.0);
}

#[tokio::test]
async fn connections_are_kept_on_both_sides_of_a_splice() {
    if !may_splice() {
        return;
    }
    let (engine, gateway) = one_engine().await;
    let mut client = Client::connect(gateway.address).await;
    let mut texts = Vec::new();
    for _ in 0..4 {
        client.send(post(CHAT, chat_stream("qwen"))).await;
        texts.push(client.answer().await.text());
    }
    assert!(texts.windows(2).all(|two| two[0] == two[1]));
    let mut connections: Vec<_> = engine.posts().iter().map(|post| post.connection).collect();
    connections.dedup();
    assert_eq!((engine.posts().len(), connections.len()), (4, 1));
    let spliced = gateway.metric("penstock_spliced_events_total", &[]).await;
    assert!(spliced >= 4.0 * (EVENTS - 5) as f64, "{spliced}");
}

#[tokio::test]
async fn anthropics_streams_keep_both_parts_of_their_usage() {
    if !may_splice() {
        return;
    }
    let (_engine, gateway) = one_engine().await;
    let mut client = Client::connect(gateway.address).await;
    client.send(post("/v1/messages", chat_stream("qwen"))).await;
    assert!(client.answer().await.text().contains("message_stop"));
    let entry = whole(&gateway).await;
    assert_eq!(
        (&entry["usage"]["input_tokens"], &entry["usage"]["output_tokens"]),
        (&7.into(), &WORDS.into())
    );
    assert!(entry["spliced_events"].as_u64() >= Some(WORDS as u64 - 5), "{entry}");
}

#[tokio::test]
async fn a_route_may_say_that_nothing_is_spliced() {
    if !may_splice() {
        return;
    }
    let engine = paced("qwen-a", Duration::from_millis(2)).await;
    let off = manifests::route("off", &manifests::rule("qwen", &[("qwen", 1)]))
        .replace("{name: off}", "{name: off, annotations: {penstock.dev/splice: \"off\", other.dev/x: y}}");
    let gateway = spliced(&(manifests::qwen(&[&engine]) + &off)).await;
    let answer = penstock_tests::client::ask(gateway.address, post(CHAT, chat_stream("qwen"))).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(whole(&gateway).await["spliced_events"], 0);
    assert_eq!(gateway.metric("penstock_unspliced_answers_total", &["\"off\""]).await, 1.0);
    let dump = gateway.admin("/snapshot").await.text();
    assert!(dump.contains("\"splice\": \"off\""), "{dump}");
}

#[tokio::test]
async fn clients_that_speak_no_chunks_are_relayed() {
    if !may_splice() {
        return;
    }
    let (_engine, gateway) = one_engine().await;
    let old = post(CHAT, chat_stream("qwen"));
    let old = String::from_utf8(old).expect("text").replace("HTTP/1.1", "HTTP/1.0");
    let mut client = Client::connect(gateway.address).await;
    client.send(old).await;
    assert!(client.answer().await.text().ends_with("[DONE]\n\n"));
    let entry = whole(&gateway).await;
    assert_eq!((entry["events"].as_u64(), entry["spliced_events"].as_u64()), (Some(EVENTS), Some(0)));
}

#[tokio::test]
async fn the_rung_and_its_reason_are_told() {
    if !may_splice() {
        return;
    }
    let (_engine, gateway) = one_engine().await;
    assert!(gateway.said().contains("the self-test of splice passed"), "{}", gateway.said());
    let ready = gateway.admin("/readyz").await.json();
    assert_eq!(
        (&ready["kernel"]["rung"], &ready["kernel"]["programs"]["splice"]),
        (&"full".into(), &"on".into())
    );
    assert_eq!(gateway.metric("penstock_kernel_rung", &["full"]).await, 1.0);
    assert_eq!(gateway.metric("penstock_kernel_program", &["splice"]).await, 1.0);
}
