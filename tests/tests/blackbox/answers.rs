//! What engines answer, and what of it reaches the client.

use std::time::Duration;

use http::{Method, Request};
use penstock_tests::client::{CHAT, Client, Ended, ask, chat, chat_stream, get, post, post_with};
use penstock_tests::engine::{Behaviour, Engine, Then, pattern};
use penstock_tests::gateway::Gateway;
use penstock_tests::h2c::{self, H2};
use penstock_tests::manifests::{engines, gateway, pool, route};
use serde_json::Value;
use tokio::time::sleep;

use crate::one_engine;

const MIB: usize = 1 << 20;

/// The head of a stream, with these fields more.
fn event_stream(fields: &str) -> Vec<u8> {
    let chunked = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n";
    format!("HTTP/1.1 200 OK\r\n{chunked}{fields}\r\n").into_bytes()
}

#[tokio::test]
async fn an_answer_cut_short_is_cut_short_for_the_client_too() {
    let mut long = vec![event_stream("")];
    long.extend(std::iter::repeat_n(b"6\r\ndata\n\n\r\n".to_vec(), 40));
    long.push(b"6\r\nda".to_vec());
    let rows = [
        Behaviour::cut_length(),
        Behaviour::cut_chunked(),
        Behaviour::ResetsAfter(2),
        Behaviour::Writes(long, Then::Close),
    ];
    for behaviour in rows {
        let (engine, gateway) = one_engine().await;
        engine.behave(behaviour.clone());
        let answer = ask(gateway.address, post(CHAT, chat_stream("qwen"))).await;
        assert_eq!(answer.status(), 200, "{behaviour:?}");
        assert_ne!(answer.ended, Ended::Whole, "{behaviour:?}: {}", answer.text());
        let entry = gateway.logged("the cut answer", |entry| entry["blame"] == "engine").await;
        assert_eq!(entry["reason"], "engine_reset", "{behaviour:?}");
    }
}

#[tokio::test]
async fn trailers_reach_the_client() {
    let (engine, gateway) = one_engine().await;
    engine.behave(Behaviour::with_trailers());
    // Without TE a recipient may drop them (RFC 9110 section 6.5.1).
    let request = post_with(CHAT, "TE: trailers\r\nConnection: TE\r\n", chat("qwen"));
    let answer = ask(gateway.address, request).await;
    assert_eq!((answer.text().as_str(), answer.ended), ("12345", Ended::Whole));
    let sum = answer.trailers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-sum"));
    assert_eq!(sum.map(|(_, value)| value.as_str()), Some("15"));
}

#[tokio::test]
async fn chunks_are_one_body_whoever_wrote_them() {
    let (engine, gateway) = one_engine().await;
    let mut writes = vec![event_stream("Trailer: x-sum\r\n")];
    for _ in 0..40 {
        // One that is whole; one with an extension; one in two pieces, and another begun behind it; the rest of that.
        let round =
            ["0005\r\nwhole\r\n", "7;x=\"1\"\r\n+ more \r\n", "8\r\nin t", "wo..\r\n0006\r\n", "later \r\n"];
        writes.extend(round.map(|write| write.as_bytes().to_vec()));
    }
    writes.push(b"0\r\nx-sum: 15\r\n\r\n".to_vec());
    engine.behave(Behaviour::Writes(writes.clone(), Then::Keep));
    let words = "whole+ more in two..later ".repeat(40);
    let request = post_with(CHAT, "TE: trailers\r\nConnection: TE\r\n", chat_stream("qwen"));
    let answer = ask(gateway.address, request).await;
    assert_eq!((answer.text(), answer.ended, answer.trailers.len()), (words.clone(), Ended::Whole, 1));

    // hyper writes trailers that are announced, and what is not is dropped.
    writes[0] = event_stream("");
    engine.behave(Behaviour::Writes(writes, Then::Keep));
    let mut client = Client::connect(gateway.address).await;
    let keeping = [chat_stream("qwen"), chat_stream("qwen")].map(|body| post(CHAT, body));
    client.send(keeping.concat()).await;
    for _ in 0..2 {
        let answer = client.answer().await;
        assert_eq!((answer.text(), answer.ended, answer.trailers.len()), (words.clone(), Ended::Whole, 0));
    }
    client.send(post_with(CHAT, "Connection: close\r\n", chat_stream("qwen"))).await;
    let (_, bytes) = client.closed().await;
    let text = String::from_utf8(bytes).expect("text");
    assert!(text.contains("\r\n0005\r\nwhole\r\n"), "none went as it came: {text}");
    assert!(!text.contains(";x="), "an extension is for the next hop alone: {text}");
    let whole = |entry: &Value| entry["bytes_out"] == words.len() as u64;
    for _ in 0..4 {
        gateway.logged("an answer with all its bytes", whole).await;
    }
}

#[tokio::test]
async fn interim_answers_are_dropped() {
    let (engine, gateway) = one_engine().await;
    engine.behave(Behaviour::interim_first());
    let answer = ask(gateway.address, post(CHAT, chat("qwen"))).await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "12345"));
}

#[tokio::test]
async fn an_answer_that_ends_with_the_connection_is_whole() {
    let (engine, gateway) = one_engine().await;
    engine.behave(Behaviour::close_delimited());
    let answer = ask(gateway.address, post(CHAT, chat("qwen"))).await;
    assert_eq!((answer.status(), answer.text().as_str(), answer.ended), (200, "12345", Ended::Whole));
    assert_eq!(answer.head.word(0), "HTTP/1.1");
}

#[tokio::test]
async fn hostile_answers_are_502() {
    let heads = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n12345",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 5\r\n\r\n12345",
        "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 5\r\n\r\n12345",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 5\r\n\r\n12345",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\n12345",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/3.7 200 OK\r\nContent-Length: 5\r\n\r\n12345",
    ];
    let (engine, gateway) = one_engine().await;
    for head in heads {
        engine.behave(Behaviour::raw(head, Then::Close));
        // An endpoint that fails in a row is left alone: a good answer in between.
        let answer = ask(gateway.address, post(CHAT, chat("qwen"))).await;
        assert_eq!(answer.verdict(), (502, Some("engine_invalid")), "{head:?}");
        engine.behave(Behaviour::Normal);
        assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
    }
}

#[tokio::test]
async fn a_huge_answer_head_is_502() {
    let (engine, gateway) = one_engine().await;
    let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(2 * MIB));
    engine.behave(Behaviour::raw(&head, Then::Close));
    let answer = ask(gateway.address, post(CHAT, chat("qwen"))).await;
    assert_eq!(answer.verdict(), (502, Some("engine_invalid")));
}

#[tokio::test]
async fn an_answer_before_the_body_ended_reaches_the_client() {
    let (engine, gateway) = one_engine().await;
    engine.behave(Behaviour::AnswersEarly(413));
    let long = format!(r#"{{"model":"qwen","messages":"{}"}}"#, "x".repeat(4 * MIB));
    let mut client = Client::connect(gateway.address).await;
    let request = post(CHAT, long);
    _ = client.try_send(&request[..2 * MIB]).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text().as_str(), answer.reason()), (413, "early", None));
}

#[tokio::test]
async fn head_requests_have_no_body_and_their_length() {
    let engine = Engine::start("qwen-a").await;
    let rules = "- backendRefs: [{group: inference.networking.x-k8s.io, kind: InferencePool, name: qwen}]";
    let manifests = gateway() + &pool("qwen") + &engines("qwen", &[&engine]) + &route("all", rules);
    let gateway = Gateway::start(manifests).await;
    let whole = get(gateway.address, "/any").await;
    let mut client = Client::connect(gateway.address).await;
    client.send("HEAD /any HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.answer_to("HEAD").await;
    assert_eq!((head.status(), head.head.field("content-length")), (200, whole.head.field("content-length")));
    client.send("GET /any HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.body, whole.body, "the connection is still in step");
}

#[tokio::test]
async fn a_client_of_http_1_0_is_served_and_closed() {
    let (engine, gateway) = one_engine().await;
    let body = chat_stream("qwen");
    let request = format!("POST {CHAT} HTTP/1.0\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut client = Client::connect(gateway.address).await;
    client.send(request).await;
    let (how, bytes) = client.closed().await;
    let text = String::from_utf8_lossy(&bytes);
    assert_eq!(how, Ended::Cut);
    assert!(text.contains(" 200 ") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(!text.to_lowercase().contains("transfer-encoding"), "{text}");
    assert_eq!(engine.post(0).await.head.word(2), "HTTP/1.1");
}

#[tokio::test]
async fn a_client_of_http_1_0_that_would_keep_its_connection_is_told_when_that_ends_the_answer() {
    let (_engine, gateway) = one_engine().await;
    let asked = |body: String| {
        let fields = "Host: a\r\nConnection: keep-alive";
        format!("POST {CHAT} HTTP/1.0\r\n{fields}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let mut client = Client::connect(gateway.address).await;
    client.send(asked(chat("qwen"))).await;
    let answer = client.answer().await;
    assert_eq!((answer.ended, answer.head.field("connection")), (Ended::Whole, Some("keep-alive")));
    client.send(asked(chat_stream("qwen"))).await;
    let (_, bytes) = client.closed().await;
    let text = String::from_utf8_lossy(&bytes).to_lowercase();
    assert!(text.contains("connection: close\r\n") && text.ends_with("data: [done]\n\n"), "{text}");
}

#[tokio::test]
async fn a_big_answer_to_a_slow_reader_stays_with_the_engine() {
    let (engine, gateway) = one_engine().await;
    engine.behave(Behaviour::Big(24 * MIB));
    let before = gateway.resident_bytes();
    let mut client = Client::connect(gateway.address).await;
    client.send(post(CHAT, chat("qwen"))).await;
    let (_, mut body) = client.head().await;
    let mut got = client.more(&mut body).await.expect("the first bytes");
    sleep(Duration::from_millis(700)).await;
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 8 * MIB as u64, "{grown} bytes more, held for a client that does not read");
    while let Ok(more) = client.more(&mut body).await {
        got.extend(more);
    }
    assert!(got == pattern(24 * MIB));
}

#[tokio::test]
async fn fields_of_one_hop_stay_on_it() {
    let (engine, gateway) = one_engine().await;
    let raw = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
               X-Kept: 1\r\nServer: engine\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 5\r\n\r\n12345";
    engine.behave(Behaviour::raw(raw, Then::Keep));
    let answer = ask(gateway.address, post(CHAT, chat("qwen"))).await;
    assert_eq!(answer.status(), 200);
    assert_eq!((answer.head.field("x-hop"), answer.head.field("keep-alive")), (None, None));
    assert_eq!((answer.head.field("x-kept"), answer.head.field("server")), (Some("1"), Some("engine")));
    assert_eq!(answer.head.all("set-cookie"), ["a=1", "b=2"]);
    assert!(answer.head.field("via").is_some());
}

#[tokio::test]
async fn an_answer_cut_short_ends_with_a_reset_for_a_client_of_http_1_0() {
    let (engine, gateway) = one_engine().await;
    engine.behave(Behaviour::ResetsAfter(2));
    let body = chat_stream("qwen");
    let request = format!("POST {CHAT} HTTP/1.0\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut client = Client::connect(gateway.address).await;
    client.send(request).await;
    assert_eq!(client.closed().await.0, Ended::Reset);
}

#[tokio::test]
async fn fields_that_only_the_gateway_may_say_are_not_taken_from_an_engine() {
    let (engine, gateway) = one_engine().await;
    let raw = "HTTP/1.1 200 OK\r\nX-Penstock-Reason: saturated\r\nx-gateway-model-name: other\r\n\
               X-Gateway-Destination-Endpoint: 10.0.0.1:1\r\nX-Kept: 1\r\nContent-Length: 5\r\n\r\n12345";
    engine.behave(Behaviour::raw(raw, Then::Keep));
    let answer = ask(gateway.address, post(CHAT, chat("qwen"))).await;
    assert_eq!((answer.status(), answer.reason(), answer.head.field("x-kept")), (200, None, Some("1")));
    let ours = answer.head.fields.iter().filter(|(name, _)| name.to_lowercase().starts_with("x-gateway-"));
    assert_eq!(ours.count(), 0, "{:?}", answer.head.fields);
}

#[tokio::test]
async fn head_requests_that_the_gateway_answers_have_the_head_of_a_get() {
    let (_engine, gateway) = one_engine().await;
    for (path, status) in [("/v1/models", 200), ("/v1/models/qwen", 200), ("/nothing", 404)] {
        let whole = get(gateway.address, path).await;
        assert_eq!(whole.status(), status);
        let length = Some(whole.body.len().to_string());
        let mut client = Client::connect(gateway.address).await;
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: h1\r\n\r\n")).await;
        let head = client.answer_to("HEAD").await;
        assert_eq!((head.status(), head.head.field("content-length")), (status, length.as_deref()), "{path}");
        assert_eq!(head.reason(), whole.reason());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(client.answer().await.body, whole.body, "{path}: the connection is still in step");

        let uri = format!("http://penstock.test{path}");
        let request = Request::builder().method(Method::HEAD).uri(uri).header("x-request-id", "h2");
        let client = H2::connect(gateway.address).await;
        let (response, _) = client.open(request.body(()).expect("a request"), true).await.expect("a stream");
        let head = h2c::whole(response).await.expect("an answer");
        let told = head.head.headers().get("content-length").and_then(|v| v.to_str().ok());
        assert_eq!((head.status(), told), (status, length.as_deref()), "{path} over HTTP/2");
        assert!(head.body.is_empty(), "{path} over HTTP/2");
        for id in ["h1", "h2"] {
            let found = |entry: &Value| entry["request_id"] == id && entry["path"] == path;
            let entry = gateway.logged("a HEAD", found).await;
            assert_eq!(entry["status"], status, "{entry}");
            assert_eq!(entry["reason"].as_str().unwrap_or_default(), whole.reason().unwrap_or_default());
        }
    }
}
