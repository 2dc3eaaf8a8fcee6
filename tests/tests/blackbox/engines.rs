//! Engines that die, and come back.

use std::time::{Duration, Instant};

use penstock_tests::client::{CHAT, Client, Ended, ask, chat, chat_stream, post};
use penstock_tests::engine::Behaviour;
use penstock_tests::eventually;
use penstock_tests::gateway::Gateway;

use crate::{one_engine, two_engines};

#[tokio::test]
async fn the_death_of_an_engine_cuts_its_streams_and_spares_the_rest() {
    let (mut a, mut b, gateway) = two_engines().await;
    a.behave(Behaviour::Stepped);
    b.behave(Behaviour::Stepped);
    let mut client = Client::connect(gateway.address).await;
    client.send(post(CHAT, chat_stream("qwen"))).await;
    let (_, mut body) = client.head().await;
    client.events(&mut body, 1).await;
    let (dead, alive) = if a.posts().is_empty() { (&mut b, &mut a) } else { (&mut a, &mut b) };
    dead.die().await;
    let mut ended = Ok(Vec::new());
    while ended.is_ok() {
        ended = client.more(&mut body).await;
    }
    assert_ne!(ended, Err(Ended::Whole), "a cut stream must not look whole");
    alive.behave(Behaviour::Normal);
    for _ in 0..20 {
        let answer = ask(gateway.address, post(CHAT, chat("qwen"))).await;
        assert_eq!(answer.content(), format!("I am {}", alive.name));
    }
    dead.behave(Behaviour::Normal);
    dead.restart().await;
    let before = dead.posts().len();
    eventually("the engine to be used again", async || {
        assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
        (dead.posts().len() > before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_lone_engine_that_restarts_serves_again() {
    let (mut engine, gateway) = one_engine().await;
    assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
    engine.die().await;
    for _ in 0..5 {
        assert!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status() >= 502);
    }
    engine.restart().await;
    eventually("the engine to serve again", async || {
        (ask(gateway.address, post(CHAT, chat("qwen"))).await.status() == 200).then_some(())
    })
    .await;
}

async fn ejections(gateway: &Gateway) -> f64 {
    gateway.metric("penstock_endpoint_ejections_total", &[]).await
}

#[tokio::test]
async fn an_engine_that_cuts_its_answers_in_a_row_is_left_alone() {
    for behaviour in [Behaviour::ResetsAfter(0), Behaviour::ResetsAfter(2), Behaviour::cut_length()] {
        let (engine, gateway) = one_engine().await;
        engine.behave(behaviour.clone());
        for count in 1..=3 {
            assert_eq!(ejections(&gateway).await, 0.0, "{behaviour:?}, before cut {count}");
            let answer = ask(gateway.address, post(CHAT, chat_stream("qwen"))).await;
            assert_ne!((answer.status(), answer.ended), (200, Ended::Whole), "{behaviour:?}");
            let logged = async || (gateway.access_log().len() == count).then_some(());
            eventually("the cut answer to be logged", logged).await;
        }
        eventually("the engine to be ejected", async || (ejections(&gateway).await == 1.0).then_some(()))
            .await;
        engine.behave(Behaviour::Normal);
        eventually("the engine to be restored", async || {
            (ask(gateway.address, post(CHAT, chat("qwen"))).await.status() == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_death_of_an_engine_with_many_requests_is_one_incident() {
    let (mut engine, gateway) = one_engine().await;
    engine.behave(Behaviour::Hangs);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(gateway.address).await;
        client.send(post(CHAT, chat("qwen"))).await;
        clients.push(client);
    }
    engine.post(19).await;
    let died = Instant::now();
    engine.die().await;
    for client in &mut clients {
        assert_eq!(client.answer().await.verdict(), (502, Some("engine_reset")));
    }
    assert_eq!(ejections(&gateway).await, 1.0);
    engine.behave(Behaviour::Normal);
    engine.restart().await;
    eventually("the engine to be tried again", async || {
        (ask(gateway.address, post(CHAT, chat("qwen"))).await.status() == 200).then_some(())
    })
    .await;
    let took = died.elapsed();
    assert!(took < Duration::from_secs(4), "the first ejection lasts a second, this one {took:?}");
    assert_eq!(ejections(&gateway).await, 1.0);
}
