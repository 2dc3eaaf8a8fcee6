//! HTTP/2 with prior knowledge, on the same port.

use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, SendStream};
use http::{Method, Request};
use penstock_tests::client::{CHAT, ask, chat, chat_stream, post};
use penstock_tests::engine::{Behaviour, Engine, Left, State};
use penstock_tests::gateway::Gateway;
use penstock_tests::h2c::{H2, more, post as h2_post, whole};
use penstock_tests::within;
use tokio::time::sleep;

use crate::{one_engine, two_engines};

#[tokio::test]
async fn a_request_is_routed_and_reaches_the_engine_as_http_1_1() {
    let (engine, gateway) = one_engine().await;
    let client = H2::connect(gateway.address).await;
    let answer = client.ask(h2_post(CHAT), &chat("qwen")).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert!(answer.text().contains("I am qwen-a"));
    let seen = engine.post(0).await;
    assert_eq!(seen.body, chat("qwen").as_bytes());
    assert_eq!(seen.head.field("host"), Some("penstock.test"));
    assert_eq!(seen.head.all("x-gateway-model-name"), ["qwen"]);
    let refused = client.ask(h2_post(CHAT), "{}").await.expect("a refusal");
    assert_eq!((refused.status(), refused.reason()), (400, Some("model_missing")));
    // The same port still speaks HTTP/1.1.
    assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
}

#[tokio::test]
async fn events_of_a_stream_arrive_one_by_one() {
    let (engine, gateway) = one_engine().await;
    engine.behave(Behaviour::Stepped);
    let client = H2::connect(gateway.address).await;
    let (response, mut send) = client.open(h2_post(CHAT), false).await.expect("a stream");
    send.send_data(Bytes::from(chat_stream("qwen")), true).expect("sending");
    let mut body = within("the head", response).await.expect("an answer").into_body();
    for event in 1..=7 {
        let bytes = more(&mut body).await.expect("an event").expect("before the end");
        assert!(bytes.starts_with(b"data: "));
        assert_eq!(engine.log().read(|state| state.events_sent), event);
        engine.step();
    }
    assert!(more(&mut body).await.expect("the end").is_none_or(|bytes| bytes.is_empty()));
}

#[tokio::test]
async fn a_hundred_streams_share_a_connection() {
    let (a, b, gateway) = two_engines().await;
    let client = H2::connect(gateway.address).await;
    let mut answers = Vec::new();
    for _ in 0..100 {
        let (response, mut send) = client.open(h2_post(CHAT), false).await.expect("a stream");
        send.send_data(Bytes::from(chat_stream("qwen")), true).expect("sending");
        answers.push(tokio::spawn(whole(response)));
    }
    for answer in answers {
        let answer = answer.await.expect("a task").expect("an answer");
        assert_eq!(answer.status(), 200);
        assert!(answer.text().ends_with("data: [DONE]\n\n"));
    }
    assert_eq!(a.posts().len() + b.posts().len(), 100);
}

#[tokio::test]
async fn a_long_body_flows_early_over_http_2_too() {
    let (engine, gateway) = one_engine().await;
    let client = H2::connect(gateway.address).await;
    let (response, mut send) = client.open(h2_post(CHAT), false).await.expect("a stream");
    let body = format!(r#"{{"model":"qwen","messages":"{}"}}"#, "x".repeat(1 << 20));
    // The connection's task sends as the gateway's windows allow.
    send.send_data(Bytes::from(body[..body.len() - 1].to_owned()), false).expect("sending");
    engine.body_began(0).await;
    assert!(!engine.posts()[0].is_complete());
    send.send_data(Bytes::from_static(b"}"), true).expect("sending");
    assert_eq!(whole(response).await.expect("an answer").status(), 200);
    assert!(engine.post(0).await.body == body.as_bytes());
}

#[tokio::test]
async fn data_that_belies_content_length_reaches_no_engine() {
    let (engine, gateway) = one_engine().await;
    for length in ["5", "5000"] {
        let client = H2::connect(gateway.address).await;
        let mut request = h2_post(CHAT);
        request.headers_mut().insert("content-length", length.parse().expect("a value"));
        let answer = client.ask(request, &chat("qwen")).await;
        let refused = answer.as_ref().map_or_else(
            |error| error.reason() == Some(Reason::PROTOCOL_ERROR),
            |answer| answer.status() == 400,
        );
        assert!(refused, "Content-Length {length}: {answer:?}");
    }
    assert!(engine.posts().iter().all(|seen| !seen.is_complete()), "no engine had a complete request");
}

#[tokio::test]
async fn fields_are_bounded_with_cookie_crumbs_counted() {
    let (engine, gateway) = one_engine().await;
    for name in ["x-field", "cookie"] {
        let client = H2::connect(gateway.address).await;
        let mut request = h2_post(CHAT);
        for _ in 0..1500 {
            request.headers_mut().append(name, "a=1".parse().expect("a value"));
        }
        refused_head(&client, request, name).await;
    }
    let client = H2::connect(gateway.address).await;
    let mut request = h2_post(CHAT);
    request.headers_mut().insert("x-big", "x".repeat(100 * 1024).parse().expect("a value"));
    refused_head(&client, request, "100 KiB").await;
    assert!(engine.posts().is_empty());
}

async fn refused_head(client: &H2, request: Request<()>, what: &str) {
    let answer = client.ask(request, &chat("qwen")).await;
    let refused = answer.as_ref().map_or(true, |answer| answer.status() == 431);
    assert!(refused, "{what}: {answer:?}");
}

#[tokio::test]
async fn heads_that_http_1_1_cannot_say_are_refused() {
    let (engine, gateway) = one_engine().await;
    let client = H2::connect(gateway.address).await;
    let hosts = Request::builder().method(Method::POST).uri(format!("http://a{CHAT}")).header("host", "b");
    let user = Request::builder().method(Method::POST).uri(format!("http://user@a{CHAT}"));
    let connect = Request::builder().method(Method::CONNECT).uri("http://a:80");
    for request in [hosts, user, connect] {
        let request = request.body(()).expect("a request");
        let shown = format!("{request:?}");
        let answer = client.ask(request, &chat("qwen")).await;
        let refused = answer.as_ref().map_or(true, |answer| (400..500).contains(&answer.status()));
        assert!(refused, "{shown}: {answer:?}");
    }
    assert!(engine.posts().is_empty());
}

#[tokio::test]
async fn a_reset_stream_frees_its_engine_and_leaves_the_others() {
    let (engine, gateway) = one_engine().await;
    engine.behave(Behaviour::Stepped);
    let client = H2::connect(gateway.address).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let (response, mut send) = client.open(h2_post(CHAT), false).await.expect("a stream");
        send.send_data(Bytes::from(chat_stream("qwen")), true).expect("sending");
        let mut body = within("the head", response).await.expect("an answer").into_body();
        more(&mut body).await.expect("the first event");
        open.push((send, body));
    }
    let (mut send, mut kept) = open.pop().expect("two");
    let (mut cancelled, _) = open.pop().expect("one");
    cancelled.send_reset(Reason::CANCEL);
    let left = |state: &State| state.posts().find_map(|seen| state.left(seen));
    engine.log().until("one engine connection to be left", left).await;
    engine.steps(20);
    while more(&mut kept).await.expect("the other stream lives").is_some() {}
    send.send_reset(Reason::NO_ERROR);
}

#[tokio::test]
async fn a_reset_flood_closes_the_connection() {
    let (engine, gateway) = one_engine().await;
    engine.behave(Behaviour::Hangs);
    let client = H2::connect(gateway.address).await;
    let flood = async {
        for _ in 0..20_000 {
            let Ok((_response, mut send)) = client.open(h2_post(CHAT), false).await else { return true };
            send.send_reset(Reason::CANCEL);
            tokio::task::yield_now().await;
        }
        false
    };
    assert!(within("the flood", flood).await, "20,000 resets in a row were put up with");
    assert_eq!(
        H2::connect(gateway.address).await.ask(h2_post(CHAT), "{}").await.expect("lives").status(),
        400
    );
}

/// Sends a long body with its Content-Length whole but for END_STREAM, and checks that no engine has a complete
/// request by then.
async fn all_but_the_end(
    engine: &Engine,
    gateway: &Gateway,
    body: &str,
) -> (H2, ResponseFuture, SendStream<Bytes>) {
    let client = H2::connect(gateway.address).await;
    let mut request = h2_post(CHAT);
    request.headers_mut().insert("content-length", body.len().into());
    let (response, mut send) = client.open(request, false).await.expect("a stream");
    send.send_data(Bytes::from(body.to_owned()), false).expect("sending");
    engine.body_began(0).await;
    sleep(Duration::from_millis(500)).await;
    assert!(!engine.posts()[0].is_complete(), "the client has not said that this is all");
    (client, response, send)
}

#[tokio::test]
async fn a_body_of_known_length_ends_at_the_engine_only_with_its_stream() {
    let (engine, gateway) = one_engine().await;
    let body = format!(r#"{{"model":"qwen","messages":"{}"}}"#, "x".repeat(1 << 20));
    let (_client, response, mut send) = all_but_the_end(&engine, &gateway, &body).await;
    send.send_data(Bytes::new(), true).expect("sending");
    assert_eq!(whole(response).await.expect("an answer").status(), 200);
    let seen = engine.post(0).await;
    assert!(seen.body == body.as_bytes());
    assert_eq!(seen.head.field("content-length"), Some(body.len().to_string().as_str()));
}

#[tokio::test]
async fn a_bad_body_of_known_length_never_ends_at_the_engine() {
    let (engine, gateway) = one_engine().await;
    let body = format!(r#"{{"model":"qwen","messages":"{}"}}}}"#, "x".repeat(1 << 20));
    let (_client, response, mut send) = all_but_the_end(&engine, &gateway, &body).await;
    // It may have been refused by now.
    _ = send.send_data(Bytes::new(), true);
    let answer = whole(response).await.expect("an answer");
    assert_eq!((answer.status(), answer.reason()), (400, Some("body_invalid")));
    assert_eq!(engine.left(0).await.0, Left::Reset);
    assert!(!engine.posts()[0].is_complete());
}
