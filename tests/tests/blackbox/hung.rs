//! Engines that hang: asked and silent while their peers answer.

use std::time::Duration;

use penstock_tests::client::{CHAT, Client, ask, chat, post};
use penstock_tests::engine::{Behaviour, Engine, Then};
use penstock_tests::eventually;
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Clients that ask at the same time, so that the load alone would not keep them from the hung engine.
const AT_ONCE: usize = 24;

async fn send(gateway: &Gateway) -> Client {
    let mut client = Client::connect(gateway.address).await;
    client.send(post(CHAT, chat("qwen"))).await;
    client
}

/// Asks until the engine that holds its requests has one; one at a time, since a peer at work is as likely to be
/// passed over as the engine that holds.
async fn until_held(gateway: &Gateway, held: &Engine) -> Client {
    held.behave(Behaviour::Held);
    let index = held.posts().len();
    loop {
        let mut client = send(gateway).await;
        tokio::select! {
            answer = client.answer() => assert_eq!(answer.status(), 200),
            _ = held.post(index) => return client,
        }
    }
}

/// Requests at once, all of them answered.
async fn wave(gateway: &Gateway) {
    let wave = (0..AT_ONCE).map(|_| tokio::spawn(ask(gateway.address, post(CHAT, chat("qwen")))));
    for answer in wave.collect::<Vec<JoinHandle<_>>>() {
        assert_eq!(answer.await.expect("a client").status(), 200);
    }
}

async fn hung(gateway: &Gateway, engine: &Engine) -> f64 {
    gateway.metric("penstock_endpoint_hung", &[&engine.address.to_string()]).await
}

/// Keeps its peer answering until the engine is seen to hang.
async fn until_hung(gateway: &Gateway, engine: &Engine) {
    eventually("the engine to be taken for hung", async || {
        _ = send(gateway).await.answer().await;
        (hung(gateway, engine).await == 1.0).then_some(())
    })
    .await;
}

async fn two_engines() -> (Engine, Engine, Gateway) {
    let (hangs, flows) = (Engine::start("qwen-a").await, Engine::start("qwen-b").await);
    let gateway = Gateway::start(manifests::qwen(&[&hangs, &flows])).await;
    // Long enough for requests of a wave to meet.
    flows.behave(Behaviour::Slow(Duration::from_millis(30)));
    (hangs, flows, gateway)
}

#[tokio::test]
async fn an_engine_that_hangs_is_left_alone_until_its_bytes_flow() {
    let (hangs, flows, gateway) = two_engines().await;
    let mut waiting = until_held(&gateway, &hangs).await;
    until_hung(&gateway, &hangs).await;

    let (held, before) = (hangs.posts().len(), flows.posts().len());
    for _ in 0..4 {
        wave(&gateway).await;
    }
    assert_eq!((hangs.posts().len(), flows.posts().len()), (held, before + 4 * AT_ONCE));
    let dump = gateway.admin("/snapshot").await.json();
    let endpoints = dump["pools"][0]["endpoints"].as_array().expect("endpoints");
    let shown = endpoints.iter().find(|each| each["address"] == hangs.address.to_string());
    let shown = shown.expect("the hung engine");
    assert_eq!((&shown["hung"], &shown["ejected"]), (&true.into(), &true.into()), "{shown}");
    assert!(shown["silent_s"].as_f64().is_some_and(|silent| silent >= 5.0), "{shown}");

    hangs.behave(Behaviour::Slow(Duration::from_millis(30)));
    hangs.steps(held);
    assert_eq!(waiting.answer().await.status(), 200, "what waited is answered all the same");
    eventually("the engine to be restored", async || (hung(&gateway, &hangs).await == 0.0).then_some(()))
        .await;
    wave(&gateway).await;
    assert!(hangs.posts().len() > held + AT_ONCE / 4);
    let said = gateway.said();
    assert_eq!(said.matches("silent while its peers answer").count(), 1, "{said}");
    assert_eq!(said.matches("is restored").count(), 1, "{said}");
}

#[tokio::test]
async fn the_heads_of_a_server_that_outlives_its_model_deceive_nobody() {
    let (hangs, flows, gateway) = two_engines().await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    hangs.behave(Behaviour::raw(head, Then::Keep));
    let mut waiting = Vec::new();
    eventually("the engine to be taken for hung", async || {
        waiting.push(send(&gateway).await);
        sleep(Duration::from_millis(100)).await;
        (hung(&gateway, &hangs).await == 1.0).then_some(())
    })
    .await;
    let (held, before) = (hangs.posts().len(), flows.posts().len());
    wave(&gateway).await;
    assert_eq!((hangs.posts().len(), flows.posts().len()), (held, before + AT_ONCE));
}

#[tokio::test]
async fn one_request_at_a_time_tries_a_hung_engine_that_nobody_waits_for() {
    let (hangs, _flows, gateway) = two_engines().await;
    let waiting = until_held(&gateway, &hangs).await;
    until_hung(&gateway, &hangs).await;
    let held = hangs.posts().len();
    waiting.reset();
    hangs.left(held - 1).await;

    let mut tries = Vec::new();
    eventually("a request to try it", async || {
        tries.push(send(&gateway).await);
        (hangs.posts().len() > held).then_some(())
    })
    .await;
    for _ in 0..4 {
        wave(&gateway).await;
    }
    // Longer than the ejection.
    sleep(Duration::from_millis(2_500)).await;
    wave(&gateway).await;
    assert_eq!(hangs.posts().len(), held + 1);

    hangs.behave(Behaviour::Normal);
    // Those that were given up wait for their steps too, unless the engine has noticed.
    hangs.steps(held + 1);
    for mut client in tries {
        assert_eq!(client.answer().await.status(), 200);
    }
    assert_eq!(hung(&gateway, &hangs).await, 0.0);
}

#[tokio::test]
async fn a_pool_of_slow_prefills_is_not_taken_for_hung() {
    let (one, other, gateway) = two_engines().await;
    for engine in [&one, &other] {
        engine.behave(Behaviour::Slow(Duration::from_secs(6)));
    }
    let ask = async || {
        let mut client = send(&gateway).await;
        client.answer_within(Duration::from_secs(10), "POST").await.status()
    };
    // The second waits for five seconds while the first is answered.
    let later = async || {
        sleep(Duration::from_secs(4)).await;
        ask().await
    };
    assert_eq!(tokio::join!(ask(), later()), (200, 200));
    assert_eq!((one.posts().len(), other.posts().len()), (1, 1));
    assert!(!gateway.said().contains("silent"), "{}", gateway.said());
}
