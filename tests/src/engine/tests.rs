//! The fake engine is believed by every other test: it is held to what it says here.

use super::*;
use crate::client::{CHAT, Client, Ended, ask, chat, chat_stream, get, post};

#[tokio::test]
async fn it_names_itself_and_keeps_what_it_was_sent() {
    let engine = Engine::start("qwen-a").await;
    let answer = ask(engine.address, post(CHAT, chat("qwen"))).await;
    assert_eq!((answer.status(), answer.content().as_str()), (200, "I am qwen-a"));
    let seen = engine.post(0).await;
    assert_eq!(seen.body, chat("qwen").as_bytes());
    assert_eq!(seen.head.field("host"), Some("penstock.test"));
    assert_eq!(get(engine.address, "/v1/models").await.json()["data"][0]["id"], "qwen");
}

#[tokio::test]
async fn a_stepped_stream_waits_for_each_step() {
    let engine = Engine::start("qwen-a").await;
    engine.behave(Behaviour::Stepped);
    let mut client = Client::connect(engine.address).await;
    client.send(post(CHAT, chat_stream("qwen"))).await;
    let (head, mut body) = client.head().await;
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    assert_eq!(client.events(&mut body, 1).await.len(), 1);
    assert_eq!(engine.log().read(|state| state.events_sent), 1);
    engine.steps(100);
    let rest = client.events(&mut body, 6).await;
    assert_eq!(rest.last().map(String::as_str), Some("data: [DONE]"));
    assert_eq!(client.more(&mut body).await, Err(Ended::Whole));
}

#[tokio::test]
async fn it_refuses_two_framings_and_tells() {
    let mut engine = Engine::start("qwen-a").await;
    engine.allow_violations();
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(ask(engine.address, request).await.status(), 400);
    assert_eq!(engine.log().read(|state| state.violations.len()), 1);
    assert!(engine.posts().is_empty());
}

#[tokio::test]
async fn it_misbehaves_as_told() {
    let mut engine = Engine::start("qwen-a").await;
    let ended = async |behaviour: Behaviour, body: String| {
        engine.behave(behaviour);
        let mut client = Client::connect(engine.address).await;
        client.send(post(CHAT, body)).await;
        client.closed().await
    };
    assert_eq!(ended(Behaviour::ResetsBeforeAnswer, chat("qwen")).await, (Ended::Reset, Vec::new()));
    assert_eq!(ended(Behaviour::ResetsAtAccept, chat("qwen")).await.0, Ended::Reset);
    assert_eq!(ended(Behaviour::ClosesBeforeAnswer, chat("qwen")).await, (Ended::Cut, Vec::new()));
    let (how, bytes) = ended(Behaviour::ResetsAfter(2), chat_stream("qwen")).await;
    assert_eq!((how, String::from_utf8_lossy(&bytes).matches("data: ").count()), (Ended::Reset, 2));
    let (how, bytes) = ended(Behaviour::ClosesKept, chat_stream("qwen")).await;
    assert!(how == Ended::Cut && bytes.ends_with(b"0\r\n\r\n"));
    assert!(ended(Behaviour::garbage(), chat("qwen")).await.1.starts_with(b"SSH"));

    engine.behave(Behaviour::Big(3 << 20));
    assert_eq!(ask(engine.address, post(CHAT, chat("qwen"))).await.body, pattern(3 << 20));
    engine.behave(Behaviour::AnswersEarly(413));
    let early = ask(engine.address, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n").await;
    assert_eq!((early.status(), early.text().as_str()), (413, "early"));

    engine.behave(Behaviour::Hangs);
    let before = engine.posts().len();
    let mut hung = Client::connect(engine.address).await;
    hung.send(post(CHAT, chat("qwen"))).await;
    engine.post(before).await;
    engine.die().await;
    assert_eq!(hung.closed().await.0, Ended::Reset);
    assert!(TcpStream::connect(engine.address).await.is_err());
    engine.restart().await;
    engine.behave(Behaviour::Normal);
    assert_eq!(ask(engine.address, post(CHAT, chat("qwen"))).await.status(), 200);
}

#[tokio::test]
async fn it_tells_how_a_client_left() {
    let engine = Engine::start("qwen-a").await;
    engine.behave(Behaviour::Hangs);
    for (connection, how) in [(0, Left::Fin), (1, Left::Reset)] {
        let mut client = Client::connect(engine.address).await;
        client.send(post(CHAT, chat("qwen"))).await;
        engine.post(connection).await;
        if how == Left::Reset {
            client.reset()
        } else {
            drop(client)
        }
        assert_eq!(engine.left(connection).await.0, how);
    }
}
