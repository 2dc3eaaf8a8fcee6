//! Streams that the kernel carries, and what else happens to their gateway, their client and their engine meanwhile.

use std::time::Duration;

use penstock_tests::client::{CHAT, Client, Ended, ask, chat_stream, chunk, post};
use penstock_tests::engine::{Behaviour, Engine, Then};
use penstock_tests::{eventually, manifests};
use rustix::process::Signal;
use tokio::time::sleep;

use super::{EVENTS, WORDS, anomalies, begun, may_splice, one_engine, paced, spliced, whole};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn a_client_that_asks_again_meanwhile_gets_its_answers_one_after_the_other() {
    if !may_splice() {
        return;
    }
    let (engine, gateway) = one_engine().await;
    let direct = ask(engine.address, post(CHAT, chat_stream("qwen"))).await;
    let mut client = Client::connect(gateway.address).await;
    // One behind the other at once, and one more into the middle of the first answer.
    client.send(post(CHAT, chat_stream("qwen")).repeat(2)).await;
    sleep(Duration::from_millis(100)).await;
    client.send(post(CHAT, chat_stream("qwen"))).await;
    for _ in 0..3 {
        let answer = client.answer().await;
        assert_eq!((answer.ended, answer.text()), (Ended::Whole, direct.text()));
    }
    let spliced = gateway.metric("penstock_spliced_events_total", &[]).await;
    assert!(spliced >= EVENTS as f64, "{spliced}");
    assert_eq!(anomalies(&gateway).await, 0.0);
}

#[tokio::test]
async fn a_gateway_that_is_stopped_for_a_while_loses_nothing() {
    if !may_splice() {
        return;
    }
    let engine = paced("qwen-a", Duration::from_millis(100)).await;
    let gateway = spliced(&manifests::qwen(&[&engine])).await;
    let (mut client, mut body) = begun(&gateway).await;
    gateway.signal(Signal::STOP);
    // Its events go on for two seconds, and then wait for it.
    client.events(&mut body, 5).await;
    sleep(Duration::from_millis(2_500)).await;
    gateway.signal(Signal::CONT);
    let ended = client.rest(&mut body).await;
    assert_eq!(ended, Ended::Whole);
    let entry = whole(&gateway).await;
    assert_eq!((entry["events"].as_u64(), &entry["usage"]["output_tokens"]), (Some(EVENTS), &WORDS.into()));
    assert_eq!(gateway.metric("penstock_splice_hand_backs_total", &["stale"]).await, 1.0);
    assert_eq!(anomalies(&gateway).await, 0.0);
}

#[tokio::test]
async fn the_streams_of_an_endpoint_that_a_reload_takes_out_go_on_to_their_end() {
    if !may_splice() {
        return;
    }
    let engine = paced("qwen-a", Duration::from_millis(40)).await;
    let other = Engine::start("qwen-b").await;
    let gateway = spliced(&manifests::qwen(&[&engine])).await;
    let (mut client, mut body) = begun(&gateway).await;
    gateway.rewrite(&manifests::qwen(&[&other]));
    gateway.signal(Signal::HUP);
    eventually("the other engine to answer", async || {
        ask(gateway.address, post(CHAT, chat_stream("qwen"))).await;
        (!other.posts().is_empty()).then_some(())
    })
    .await;
    client.rest(&mut body).await;
    let of_first = |entry: &serde_json::Value| entry["endpoint"] == engine.address.to_string();
    let entry = gateway.logged("the stream", of_first).await;
    assert_eq!((&entry["reason"], entry["events"].as_u64()), (&serde_json::Value::Null, Some(EVENTS)));
    assert!(entry["spliced_events"].as_u64() >= Some(EVENTS - 8), "{entry}");
}

#[tokio::test]
async fn writes_around_the_largest_that_is_spliced_arrive_byte_for_byte() {
    if !may_splice() {
        return;
    }
    let (engine, gateway) = one_engine().await;
    let event = |length: usize| {
        let around = "data: {\"x\":\"\"}\n\n".len();
        format!("data: {{\"x\":\"{}\"}}\n\n", "z".repeat(length - around))
    };
    // A chunk of such an event is eight bytes longer: four digits and two line ends.
    let lengths = [100, 200, 32_759, 300, 32_760, 301, 32_761, 302, 16_384, 65_536, 303, 32_760, 32_760];
    let mut writes = vec![b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_vec(), HEAD.into()];
    writes.extend(lengths.iter().map(|length| chunk(event(*length))));
    writes.push(b"0\r\n\r\n".to_vec());
    let body: String = lengths.iter().map(|length| event(*length)).collect();
    for _ in 0..5 {
        engine.behave(Behaviour::Writes(writes.clone(), Then::Keep));
        let answer = ask(gateway.address, post(CHAT, chat_stream("qwen"))).await;
        assert_eq!(answer.ended, Ended::Whole);
        assert!(answer.text() == body, "a client got other bytes than its engine wrote");
    }
    assert!(gateway.metric("penstock_spliced_events_total", &[]).await > 0.0);
    assert_eq!(anomalies(&gateway).await, 0.0);
}
