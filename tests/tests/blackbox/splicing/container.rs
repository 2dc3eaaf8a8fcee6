//! Engines in another network namespace of this host, over a cable: as in a container.

use std::time::Duration;

use penstock_tests::client::{CHAT, Client, Ended, ask, chat_stream, post};
use penstock_tests::engine::{Engine, Persona};
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests;
use penstock_tests::network::Network;

use super::{EVENTS, WORDS, anomalies, begun, may_splice, spliced};

async fn contained(pace: Duration) -> (Network, Engine, Gateway) {
    let (network, ip) = Network::container();
    let words = (0..WORDS).map(|n| format!(" word{n}")).collect();
    let persona = Persona { words, pace, ..Persona::named("contained") };
    let engine = network.inside(Engine::start_at((ip, 0).into(), persona)).await.expect("a free port");
    let gateway = spliced(&manifests::qwen(&[&engine])).await;
    (network, engine, gateway)
}

#[tokio::test]
async fn its_streams_are_spliced_byte_for_byte_and_its_connections_kept() {
    if !may_splice() {
        return;
    }
    let (_network, engine, gateway) = contained(Duration::from_millis(5)).await;
    let direct = ask(engine.address, post(CHAT, chat_stream("qwen"))).await;
    let mut client = Client::connect(gateway.address).await;
    for _ in 0..4 {
        client.send(post(CHAT, chat_stream("qwen"))).await;
        let answer = client.answer().await;
        assert_eq!((answer.ended, answer.text()), (Ended::Whole, direct.text()));
    }
    let mut connections: Vec<_> = engine.posts().iter().skip(1).map(|post| post.connection).collect();
    connections.dedup();
    assert_eq!((engine.posts().len(), connections.len()), (5, 1));
    let spliced = gateway.metric("penstock_spliced_events_total", &[]).await;
    assert!(spliced >= 4.0 * (EVENTS - 5) as f64, "{spliced}");
    assert_eq!(gateway.metric("penstock_unspliced_answers_total", &[]).await, 0.0);
    assert_eq!(anomalies(&gateway).await, 0.0);
}

#[tokio::test]
async fn its_death_cuts_the_stream_and_its_next_life_is_spliced() {
    if !may_splice() {
        return;
    }
    let (network, mut engine, gateway) = contained(Duration::from_millis(20)).await;
    let (mut client, mut body) = begun(&gateway).await;
    client.events(&mut body, 10).await;
    network.inside(engine.die()).await;
    let ended = client.rest(&mut body).await;
    assert_ne!(ended, Ended::Whole);
    let entry = gateway.logged("the stream that was cut", |entry| entry["reason"] == "engine_reset").await;
    assert!(entry["spliced_events"].as_u64() >= Some(3), "{entry}");
    network.inside(engine.restart()).await;
    let again = ask(gateway.address, post(CHAT, chat_stream("qwen"))).await;
    assert_eq!((again.status(), again.ended), (200, Ended::Whole));
    let entry = gateway.logged("the whole stream", |entry| entry["reason"].is_null()).await;
    assert!(entry["spliced_events"].as_u64() >= Some(EVENTS - 5), "{entry}");
    assert_eq!(anomalies(&gateway).await, 0.0);
}
