//! Engines that die, and come back.

use penstock_tests::client::{CHAT, Client, Ended, ask, chat, chat_stream, post};
use penstock_tests::engine::Behaviour;
use penstock_tests::eventually;

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
