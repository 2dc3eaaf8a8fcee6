//! A client's socket with two authors: what cannot be, and is found out all the same.

use std::io::Write;

use penstock_tests::client::{CHAT, Client, Ended, ask, chat_stream, chunk, post};
use penstock_tests::engine::{Behaviour, Engine};
use penstock_tests::manifests;

use super::{anomalies, may_splice, spliced};

#[tokio::test]
async fn an_answer_that_does_not_add_up_is_cut_and_the_last_that_was_spliced() {
    if !may_splice() {
        return;
    }
    let engine = Engine::start("qwen-a").await;
    let gateway = spliced(&manifests::qwen(&[&engine])).await;
    engine.behave(Behaviour::Stepped);
    let mut client = Client::connect(gateway.address).await;
    client.send(post(CHAT, chat_stream("qwen"))).await;
    let (_, mut body) = client.head().await;
    client.events(&mut body, 1).await;
    // Armed by now, and with the next one spliced.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    engine.step();
    client.events(&mut body, 1).await;

    let peer = client.stream.local_addr().expect("connected");
    gateway.socket_to(peer).write_all(&chunk(": from nowhere\n\n")).expect("writing");
    engine.step();
    let ended = client.rest(&mut body).await;
    assert_ne!(ended, Ended::Whole);
    let entry = gateway.logged("the broken splice", |entry| entry["reason"] == "splice_broken").await;
    assert_eq!((&entry["blame"], entry["spliced_events"].as_u64()), (&"gateway".into(), Some(1)));
    gateway.says("does not add up").await;
    assert_eq!(anomalies(&gateway).await, 1.0);

    engine.behave(Behaviour::Normal);
    let arms = gateway.metric("penstock_splice_arms_total", &[]).await;
    let answer = ask(gateway.address, post(CHAT, chat_stream("qwen"))).await;
    assert_eq!((answer.status(), answer.ended), (200, Ended::Whole));
    assert_eq!(gateway.metric("penstock_unspliced_answers_total", &["anomaly"]).await, 1.0);
    assert_eq!(gateway.metric("penstock_splice_arms_total", &[]).await, arms);
}
