//! What goes to another endpoint, what must not, and which endpoints are left alone.

use std::time::Duration;

use penstock_tests::client::{CHAT, Client, Ended, ask, chat, chat_stream, post};
use penstock_tests::engine::{Behaviour, Engine};
use penstock_tests::eventually;
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests::{qwen, traffic_policy};

use crate::{one_engine, two_engines};

#[tokio::test]
async fn a_refused_connect_goes_to_the_other_endpoint() {
    let (mut a, b, gateway) = two_engines().await;
    a.refuse().await;
    for _ in 0..30 {
        let answer = ask(gateway.address, post(CHAT, chat("qwen"))).await;
        assert_eq!((answer.status(), answer.content().as_str()), (200, "I am qwen-b"));
    }
    assert_eq!(b.posts().len(), 30);
}

#[tokio::test]
async fn a_reset_before_the_answer_is_not_tried_again() {
    let (a, b, gateway) = two_engines().await;
    a.behave(Behaviour::ResetsBeforeAnswer);
    b.behave(Behaviour::ResetsBeforeAnswer);
    let answer = ask(gateway.address, post(CHAT, chat("qwen"))).await;
    assert_eq!(answer.verdict(), (502, Some("engine_reset")));
    assert_eq!(a.posts().len() + b.posts().len(), 1, "an engine may already have done the work");
}

#[tokio::test]
async fn a_policy_may_ask_for_retries_after_a_reset_and_on_a_status() {
    let rows = [
        ("retry: {numRetries: 2, retryOn: {triggers: [reset]}}", Behaviour::ResetsBeforeAnswer),
        (
            "retry: {numRetries: 2, retryOn: {triggers: [retriable-status-codes], httpStatusCodes: [503]}}",
            Behaviour::Status(503),
        ),
    ];
    for (policy, behaviour) in rows {
        let (a, b) = (Engine::start("qwen-a").await, Engine::start("qwen-b").await);
        let gateway = Gateway::start(qwen(&[&a, &b]) + &traffic_policy(policy)).await;
        a.behave(behaviour.clone());
        for _ in 0..20 {
            let answer = ask(gateway.address, post(CHAT, chat("qwen"))).await;
            assert_eq!((answer.status(), answer.content().as_str()), (200, "I am qwen-b"), "{behaviour:?}");
        }
        assert!(!a.posts().is_empty(), "{behaviour:?}: it was tried");
        let body = &a.posts()[0].body;
        assert!(b.posts().iter().any(|seen| seen.body == *body), "{behaviour:?}: replayed to the byte");
    }
}

#[tokio::test]
async fn without_a_policy_an_engines_error_is_its_answer() {
    let (engine, gateway) = one_engine().await;
    engine.behave(Behaviour::Status(503));
    let answer = ask(gateway.address, post(CHAT, chat("qwen"))).await;
    assert_eq!((answer.status(), answer.reason()), (503, None));
    assert!(answer.text().contains("status 503 of qwen-a"));
    assert_eq!(engine.posts().len(), 1);
}

#[tokio::test]
async fn an_engine_that_closes_kept_connections_is_never_a_clients_error() {
    let (a, b, gateway) = two_engines().await;
    a.behave(Behaviour::ClosesKept);
    b.behave(Behaviour::ClosesKept);
    let mut workers = Vec::new();
    for _ in 0..8 {
        let address = gateway.address;
        workers.push(tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            for round in 0..25 {
                // Plain answers between the streams: those connections are kept, and closed under us later.
                let body = if round % 5 == 4 { chat("qwen") } else { chat_stream("qwen") };
                client.send(post(CHAT, body)).await;
                let answer = client.answer().await;
                assert_eq!((answer.status(), answer.ended), (200, Ended::Whole), "{}", answer.text());
            }
        }));
    }
    for worker in workers {
        worker.await.expect("200 answers");
    }
    assert_eq!(a.posts().len() + b.posts().len(), 200);
}

#[tokio::test]
async fn a_kept_connection_that_died_while_idle_is_replaced() {
    let (mut engine, gateway) = one_engine().await;
    for _ in 0..10 {
        assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
        // Every open connection is reset; the next request must not be the one to find out.
        engine.die().await;
        engine.restart().await;
    }
    assert_eq!(engine.posts().len(), 10);
}

#[tokio::test]
async fn connections_to_engines_are_kept() {
    let (engine, gateway) = one_engine().await;
    let mut client = Client::connect(gateway.address).await;
    for _ in 0..20 {
        client.send(post(CHAT, chat("qwen"))).await;
        assert_eq!(client.answer().await.status(), 200);
    }
    let connections = engine.log().read(|state| state.connections.len());
    assert!(connections < 10, "{connections} connections for 20 requests of one client");
}

#[tokio::test]
async fn an_endpoint_that_fails_in_a_row_is_left_alone_and_comes_back() {
    let (mut a, b, gateway) = two_engines().await;
    a.behave(Behaviour::ResetsBeforeAnswer);
    let mut errors = 0;
    for _ in 0..60 {
        let status = ask(gateway.address, post(CHAT, chat("qwen"))).await.status();
        errors += usize::from(status != 200);
    }
    assert!((1..=10).contains(&errors), "{errors} of 60 requests met the bad endpoint");
    let snapshot = gateway.admin("/snapshot").await.text();
    assert!(snapshot.contains("ejected"), "{snapshot}");
    a.behave(Behaviour::Normal);
    a.restart().await;
    let before = a.posts().len();
    eventually("the endpoint to be restored", async || {
        assert!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status() == 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let ejected = gateway.metric("penstock_endpoint_ejected", &[]).await;
        (a.posts().len() > before && ejected == 0.0).then_some(())
    })
    .await;
    assert!(b.posts().len() > 40);
}

#[tokio::test]
async fn when_every_endpoint_refuses_the_client_is_told_so() {
    let (mut a, mut b, gateway) = two_engines().await;
    a.refuse().await;
    b.refuse().await;
    for _ in 0..10 {
        let answer = ask(gateway.address, post(CHAT, chat("qwen"))).await;
        // Once both are left alone there is nobody to ask.
        let verdict = answer.verdict();
        assert!(matches!(verdict, (502, Some("engine_refused")) | (503, Some("no_endpoint"))), "{verdict:?}");
    }
}

#[tokio::test]
async fn an_engine_that_dies_at_work_on_a_kept_connection_had_the_request() {
    let (a, b, gateway) = two_engines().await;
    let mut client = Client::connect(gateway.address).await;
    eventually("a kept connection to each engine", async || {
        client.send(post(CHAT, chat("qwen"))).await;
        assert_eq!(client.answer().await.status(), 200);
        (!a.posts().is_empty() && !b.posts().is_empty()).then_some(())
    })
    .await;
    let posts = || [a.posts(), b.posts()];
    let before = posts();
    for engine in [&a, &b] {
        engine.behave(Behaviour::ResetsAtWork(Duration::from_millis(1500)));
    }
    client.send(post(CHAT, chat("qwen"))).await;
    assert_eq!(client.answer().await.verdict(), (502, Some("engine_reset")));
    let after = posts();
    let new: Vec<(usize, bool)> = before
        .iter()
        .zip(&after)
        .flat_map(|(before, after)| after[before.len()..].iter().map(move |seen| (before, seen)))
        .map(|(before, seen)| (seen.connection, before.iter().any(|old| old.connection == seen.connection)))
        .collect();
    assert!(matches!(new[..], [(_, true)]), "one more POST, on a connection used before, not {new:?}");
}

#[tokio::test]
async fn an_engine_that_closes_a_kept_connection_at_the_next_request_is_never_a_clients_error() {
    let (engine, gateway) = one_engine().await;
    engine.behave(Behaviour::ClosesReused);
    let mut client = Client::connect(gateway.address).await;
    for _ in 0..20 {
        client.send(post(CHAT, chat("qwen"))).await;
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.ended), (200, Ended::Whole), "{}", answer.text());
    }
    assert_eq!(gateway.metric("penstock_endpoint_ejections_total", &[]).await, 0.0);
}
