//! Request bodies in every shape that HTTP allows.

use penstock_tests::client::{CHAT, Client, ask, chat, chunk, chunked_head, post, post_with};
use penstock_tests::engine::Behaviour;

use crate::one_engine;

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let (engine, gateway) = one_engine().await;
    let mut client = Client::connect(gateway.address).await;
    client.send_bytewise(post(CHAT, chat("qwen"))).await;
    assert_eq!(client.answer().await.content(), "I am qwen-a");
    assert_eq!(engine.post(0).await.body, chat("qwen").as_bytes());
}

#[tokio::test]
async fn chunks_extensions_and_trailers_are_read_as_the_body_they_frame() {
    let (engine, gateway) = one_engine().await;
    let body = chat("qwen");
    let mut client = Client::connect(gateway.address).await;
    client.send(chunked_head(CHAT)).await;
    for byte in body.as_bytes() {
        client.send(chunk([*byte])).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.content(), "I am qwen-a");

    let (first, second) = body.split_at(11);
    client.send(chunked_head(CHAT)).await;
    let sizes =
        format!("00{:X};a=b;c=\"d e\"\r\n{first}\r\n{:x};x\r\n{second}\r\n", first.len(), second.len());
    client.send_bytewise(format!("{sizes}0;last\r\nX-Sum: 1\r\n\r\n")).await;
    assert_eq!(client.answer().await.content(), "I am qwen-a");
    for at in [0, 1] {
        assert_eq!(engine.post(at).await.body, body.as_bytes());
    }
}

#[tokio::test]
async fn requests_may_be_pipelined() {
    let (_engine, gateway) = one_engine().await;
    let mut client = Client::connect(gateway.address).await;
    let get = "GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send([post(CHAT, chat("qwen")), get.into(), post(CHAT, chat("none"))].concat()).await;
    assert_eq!(client.answer().await.content(), "I am qwen-a");
    assert_eq!(client.answer().await.json()["object"], "list");
    assert_eq!(client.answer().await.status(), 404);
    client.send(post(CHAT, chat("qwen"))).await;
    assert_eq!(client.answer().await.status(), 200, "a refusal by routing closes nothing");
}

fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (disposition, content) in parts {
        body.extend(format!("--line\r\nContent-Disposition: form-data; {disposition}\r\n\r\n").bytes());
        body.extend_from_slice(content);
        body.extend(b"\r\n");
    }
    body.extend(b"--line--\r\n");
    body
}

fn form_request(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=line\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn the_model_part_of_a_form_routes_it() {
    let (engine, gateway) = one_engine().await;
    let file: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let bodies = [
        form(&[("name=\"model\"", b"qwen"), ("name=\"file\"; filename=\"a.wav\"", &file)]),
        form(&[("name=\"file\"; filename=\"a.wav\"", &file), ("name=\"model\"", b"qwen")]),
    ];
    for (at, body) in bodies.iter().enumerate() {
        let answer = ask(gateway.address, form_request(body)).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let seen = engine.post(at).await;
        assert!(seen.body == *body);
        assert_eq!(seen.head.all("x-gateway-model-name"), ["qwen"]);
    }
    let none = form(&[("name=\"file\"; filename=\"a.wav\"", b"RIFF")]);
    assert_eq!(ask(gateway.address, form_request(&none)).await.verdict(), (400, Some("model_missing")));
    let two = form(&[("name=\"model\"", b"qwen"), ("name=\"model\"", b"other")]);
    assert_eq!(ask(gateway.address, form_request(&two)).await.verdict(), (400, Some("model_ambiguous")));
    assert_eq!(engine.posts().len(), 2);
}

#[tokio::test]
async fn a_client_that_asks_for_100_continue_is_told_once_its_body_is_wanted() {
    let (engine, gateway) = one_engine().await;
    let body = chat("qwen");
    let request = post_with(CHAT, "Expect: 100-continue\r\n", &body);
    let mut client = Client::connect(gateway.address).await;
    client.send(&request[..request.len() - body.len()]).await;
    let interim = client.answer_to("HEAD").await;
    assert_eq!(interim.status(), 100);
    client.send(&body).await;
    assert_eq!(client.answer().await.content(), "I am qwen-a");
    assert_eq!(engine.post(0).await.head.field("expect"), None);
}

#[tokio::test]
async fn bodies_that_no_two_parsers_read_alike_are_refused() {
    let (engine, gateway) = one_engine().await;
    let rows: [(&[u8], &str); 20] = [
        (b"", "model_missing"),
        (b"{}", "model_missing"),
        (b"{\"models\":\"qwen\",\"a\":{\"model\":\"qwen\"}}", "model_missing"),
        (b"{\"model\":1}", "model_missing"),
        (b"{\"model\":null}", "model_missing"),
        (b"{\"model\":\"\"}", "model_missing"),
        (b"{\"model\":[\"qwen\"]}", "model_missing"),
        (b"{\"model\":\"qwen\",\"model\":\"qwen\"}", "model_ambiguous"),
        (b"{\"model\":\"qwen\",\"Model\":\"x\"}", "model_ambiguous"),
        (b"{\"mod\\u0065l\":\"qwen\",\"model\":\"x\"}", "model_ambiguous"),
        (b"[{\"model\":\"qwen\"}]", "body_invalid"),
        (b"{\"model\":\"qwen\"", "body_invalid"),
        (b"{\"model\":\"qwen\"} {}", "body_invalid"),
        (b"{\"model\":\"qwen\",}", "body_invalid"),
        (b"{'model':'qwen'}", "body_invalid"),
        (b"\xef\xbb\xbf{\"model\":\"qwen\"}", "body_invalid"),
        (b"{\"model\":\"qw\xffen\"}", "body_invalid"),
        (b"{\"model\":\"qw\nen\"}", "body_invalid"),
        (b"{\"model\":\" qwen\"}", "model_missing"),
        (b"{\0\"\0m\0", "body_invalid"),
    ];
    for (body, reason) in rows {
        let answer = ask(gateway.address, post(CHAT, body)).await;
        let shown = String::from_utf8_lossy(body);
        assert_eq!(answer.status(), 400, "{shown}");
        // Which of the two words fits a body that is bad in both ways is no promise.
        let word = answer.reason().unwrap_or_default();
        assert!(word == reason || (word.starts_with("model") || word == "body_invalid"), "{shown}: {word}");
        if matches!(reason, "model_ambiguous") {
            assert_eq!(word, reason, "{shown}");
        }
    }
    let deep = format!("{{\"model\":\"qwen\",\"a\":{}{}}}", "[".repeat(1100), "]".repeat(1100));
    assert_eq!(ask(gateway.address, post(CHAT, deep)).await.status(), 400);
    let long_name = chat(&"q".repeat(300));
    assert_eq!(ask(gateway.address, post(CHAT, long_name)).await.status(), 400);
    assert!(engine.posts().is_empty());
}

#[tokio::test]
async fn the_content_type_does_not_decide_on_inference_paths() {
    let (engine, gateway) = one_engine().await;
    for kind in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        let body = chat("qwen");
        let request =
            format!("POST {CHAT} HTTP/1.1\r\nHost: a\r\n{kind}Content-Length: {}\r\n\r\n", body.len());
        assert_eq!(ask(gateway.address, request + &body).await.content(), "I am qwen-a", "{kind}");
        let nameless = format!("POST {CHAT} HTTP/1.1\r\nHost: a\r\n{kind}Content-Length: 2\r\n\r\n{{}}");
        assert_eq!(ask(gateway.address, nameless).await.verdict(), (400, Some("model_missing")), "{kind}");
    }
    assert_eq!(engine.posts().len(), 3);
}

#[tokio::test]
async fn a_body_that_an_engine_does_not_want_is_still_its_own_to_refuse() {
    let (engine, gateway) = one_engine().await;
    engine.behave(Behaviour::Status(422));
    // Lone surrogates, NaN and bad numbers inside other values are the engine's to judge.
    let answer = ask(gateway.address, post(CHAT, r#"{"model":"qwen","a":["\ud800",NaN,01,1.e]}"#)).await;
    assert_eq!((answer.status(), answer.reason()), (422, None));
    assert_eq!(engine.posts().len(), 1);
}
