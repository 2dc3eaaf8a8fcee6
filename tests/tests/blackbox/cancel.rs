//! A client that goes away frees its engine at once.

use std::time::{Duration, Instant};

use penstock_tests::client::{CHAT, Client, chat, chat_stream, chunk, chunked_head, post};
use penstock_tests::engine::{Behaviour, Engine};
use penstock_tests::eventually;
use penstock_tests::gateway::Gateway;
use tokio::io::AsyncWriteExt;

use crate::one_engine;

/// Ten times what the design promises, and as much again for a busy machine.
const AT_ONCE: Duration = Duration::from_millis(100);

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    Closes,
    Resets,
    HalfCloses,
}

const WAYS: [Leaving; 3] = [Leaving::Closes, Leaving::Resets, Leaving::HalfCloses];

/// Leaves, and says what must be kept for the connection to stay as it is.
async fn leave(mut client: Client, way: Leaving) -> Option<Client> {
    match way {
        Leaving::Closes => None,
        Leaving::Resets => {
            client.reset();
            None
        }
        Leaving::HalfCloses => {
            client.stream.shutdown().await.expect("half-closing");
            Some(client)
        }
    }
}

async fn engine_is_left(engine: &Engine, connection: usize, since: Instant, way: Leaving) {
    let (_, at) = engine.left(connection).await;
    let took = at.saturating_duration_since(since);
    assert!(took < AT_ONCE, "{way:?}: the engine was freed after {took:?}");
}

async fn is_logged_as_gone(gateway: &Gateway) {
    let entry = gateway.logged("the client that left", |entry| entry["reason"] == "client_gone").await;
    assert_eq!((&entry["status"], &entry["blame"]), (&499.into(), &"client".into()));
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_byte_frees_its_engine() {
    for way in WAYS {
        let (engine, gateway) = one_engine().await;
        engine.behave(Behaviour::Hangs);
        let mut client = Client::connect(gateway.address).await;
        client.send(post(CHAT, chat("qwen"))).await;
        engine.post(0).await;
        let since = Instant::now();
        let _kept = leave(client, way).await;
        engine_is_left(&engine, 0, since, way).await;
        is_logged_as_gone(&gateway).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_frees_its_engine() {
    let long = Behaviour::Repeats(chunk("data: 1\n\n").into(), usize::MAX);
    let streams = [(Behaviour::Stepped, 1), (long, 30)];
    for ((stream, events), way) in streams.iter().flat_map(|stream| WAYS.map(|way| (stream, way))) {
        let (engine, gateway) = one_engine().await;
        engine.behave(stream.clone());
        let mut client = Client::connect(gateway.address).await;
        client.send(post(CHAT, chat_stream("qwen"))).await;
        let (_, mut body) = client.head().await;
        client.events(&mut body, *events).await;
        let since = Instant::now();
        let _kept = leave(client, way).await;
        engine_is_left(&engine, 0, since, way).await;
        gateway.logged("the stream that was left", |entry| entry["reason"] == "client_gone").await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_inside_its_body_frees_its_engine() {
    let (engine, gateway) = one_engine().await;
    let mut client = Client::connect(gateway.address).await;
    client.send(chunked_head(CHAT)).await;
    let long = format!(r#"{{"model":"qwen","messages":"{}"#, "x".repeat(1 << 20));
    client.send(chunk(long)).await;
    engine.body_began(0).await;
    let since = Instant::now();
    drop(client);
    engine_is_left(&engine, 0, since, Leaving::Closes).await;
    assert!(!engine.posts()[0].is_complete());
}

#[tokio::test]
async fn a_thousand_cancels_leave_nothing_behind() {
    let (engine, gateway) = one_engine().await;
    engine.behave(Behaviour::Hangs);
    let before = gateway.open_files();
    for round in 0..10 {
        let mut clients = Vec::new();
        for _ in 0..100 {
            let mut client = Client::connect(gateway.address).await;
            client.send(post(CHAT, chat("qwen"))).await;
            clients.push(client);
        }
        engine.post(round * 100 + 99).await;
        drop(clients);
        let all_left = |s: &penstock_tests::engine::State| {
            (s.posts().filter(|seen| s.left(seen).is_some()).count() == (round + 1) * 100).then_some(())
        };
        engine.log().until("all engine connections to be left", all_left).await;
    }
    // A few kept connections and probes may come and go; a leak would be hundreds.
    eventually("the sockets to be closed", async || (gateway.open_files() <= before + 10).then_some(()))
        .await;
}
