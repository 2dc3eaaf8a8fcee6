//! The reference document's manifests and its two curl commands.

use penstock_tests::client::{CHAT, Client, Ended, ask, post, post_with};
use penstock_tests::engine::{Behaviour, Engine};
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests;

/// What curl adds by itself.
const CURL: &str = "User-Agent: curl/8.5.0\r\nAccept: */*\r\n";

async fn reference() -> ([Engine; 4], Gateway) {
    let names = ["qwen-a", "qwen-b", "deepseek-a", "deepseek-b"];
    let [a, b, c, d] = names.map(Engine::start);
    let engines = [a.await, b.await, c.await, d.await];
    let endpoints = manifests::engines("qwen", &[&engines[0], &engines[1]])
        + &manifests::engines("deepseek-r1", &[&engines[2], &engines[3]]);
    let gateway = Gateway::start(manifests::ack() + &endpoints).await;
    (engines, gateway)
}

#[tokio::test]
async fn each_of_the_two_models_reaches_its_pool() {
    let (_engines, gateway) = reference().await;
    for (model, names) in [("qwen", ["qwen-a", "qwen-b"]), ("deepseek-r1", ["deepseek-a", "deepseek-b"])] {
        let body = format!(
            "{{\n    \"model\": \"{model}\",\n    \"messages\": [\n      {{\n        \"role\": \"user\",\n        \
             \"content\": \"Who are you?\"\n      }}\n    ]\n  }}"
        );
        for _ in 0..4 {
            let answer = ask(gateway.address, post_with(CHAT, CURL, &body)).await;
            assert_eq!(answer.status(), 200, "{}", answer.text());
            assert!(
                names.map(|name| format!("I am {name}")).contains(&answer.content()),
                "{}",
                answer.text()
            );
            assert_eq!(answer.json()["model"], model);
        }
    }
}

#[tokio::test]
async fn the_engines_of_a_pool_share_its_requests() {
    let (engines, gateway) = reference().await;
    for _ in 0..40 {
        assert_eq!(ask(gateway.address, post(CHAT, r#"{"model":"qwen"}"#)).await.status(), 200);
    }
    let [a, b, c, d] = engines.each_ref().map(|engine| engine.posts().len());
    assert!(a > 0 && b > 0 && a + b == 40, "{a} and {b}");
    assert_eq!(c + d, 0);
}

#[tokio::test]
async fn each_event_of_a_stream_arrives_before_the_next_is_sent() {
    let (engines, gateway) = reference().await;
    engines[0].behave(Behaviour::Stepped);
    engines[1].behave(Behaviour::Stepped);
    let mut client = Client::connect(gateway.address).await;
    client.send(post(CHAT, r#"{"model":"qwen","stream":true}"#)).await;
    let (head, mut body) = client.head().await;
    assert_eq!((head.word(1), head.field("content-type")), ("200", Some("text/event-stream")));
    let sent = || engines.iter().map(|engine| engine.log().read(|state| state.events_sent)).sum::<usize>();
    // One role, three words, the finish, the usage and [DONE].
    for event in 1..=7 {
        assert_eq!(client.events(&mut body, 1).await.len(), 1);
        assert_eq!(sent(), event);
        engines[0].step();
        engines[1].step();
    }
    assert_eq!(client.more(&mut body).await, Err(Ended::Whole));
}
