//! Heads and bodies that two readers could read in two ways: refused, and no engine sees a byte of them.

use penstock_tests::client::{CHAT, Client, ask, chat, post, post_with};

use crate::one_engine;

/// Everything after the request line of a POST with the 16 bytes of BODY, and why it is bad.
const HOSTILE: &[(&str, &str)] = &[
    (
        "Content-Length with Transfer-Encoding",
        "Host: a\r\nContent-Length: 16\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "Transfer-Encoding with Content-Length",
        "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 16\r\n\r\n",
    ),
    ("two Content-Lengths", "Host: a\r\nContent-Length: 16\r\nContent-Length: 15\r\n\r\n"),
    ("two equal Content-Lengths", "Host: a\r\nContent-Length: 16\r\nContent-Length: 16\r\n\r\n"),
    ("a list of Content-Lengths", "Host: a\r\nContent-Length: 16, 16\r\n\r\n"),
    ("a signed Content-Length", "Host: a\r\nContent-Length: +16\r\n\r\n"),
    ("a negative Content-Length", "Host: a\r\nContent-Length: -1\r\n\r\n"),
    ("a hexadecimal Content-Length", "Host: a\r\nContent-Length: 0x10\r\n\r\n"),
    ("an empty Content-Length", "Host: a\r\nContent-Length:\r\n\r\n"),
    ("a Content-Length beyond 64 bits", "Host: a\r\nContent-Length: 99999999999999999999999\r\n\r\n"),
    ("gzip, chunked", "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    ("chunked twice", "Host: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n"),
    ("chunked in two fields", "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("chunked not last", "Host: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n"),
    ("identity", "Host: a\r\nTransfer-Encoding: identity\r\nContent-Length: 16\r\n\r\n"),
    ("a coding like chunked", "Host: a\r\nTransfer-Encoding: xchunked\r\n\r\n"),
    ("a vertical tab before chunked", "Host: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n"),
    ("an empty Transfer-Encoding", "Host: a\r\nTransfer-Encoding:\r\nContent-Length: 16\r\n\r\n"),
    ("no Host", "Content-Length: 16\r\n\r\n"),
    ("two Hosts", "Host: a\r\nHost: a\r\nContent-Length: 16\r\n\r\n"),
    ("a path in Host", "Host: a/b\r\nContent-Length: 16\r\n\r\n"),
    ("a query in Host", "Host: a?b\r\nContent-Length: 16\r\n\r\n"),
    ("a fragment in Host", "Host: a#b\r\nContent-Length: 16\r\n\r\n"),
    ("a user in Host", "Host: u@a\r\nContent-Length: 16\r\n\r\n"),
    ("a list in Host", "Host: a, b\r\nContent-Length: 16\r\n\r\n"),
    ("white space in Host", "Host: a b\r\nContent-Length: 16\r\n\r\n"),
    ("a bad port in Host", "Host: a:x\r\nContent-Length: 16\r\n\r\n"),
    ("a space before the colon", "Host: a\r\nContent-Length : 16\r\n\r\n"),
    ("a tab before the colon", "Host: a\r\nX\t: 1\r\nContent-Length: 16\r\n\r\n"),
    ("a folded line", "Host: a\r\nX: 1\r\n folded\r\nContent-Length: 16\r\n\r\n"),
    ("a folded first line", " Host: a\r\nContent-Length: 16\r\n\r\n"),
    ("a line without a colon", "Host: a\r\nContent-Length\r\n\r\n"),
    ("an empty name", "Host: a\r\n: 1\r\nContent-Length: 16\r\n\r\n"),
    ("a bad byte in a name", "Host: a\r\nX(Y): 1\r\nContent-Length: 16\r\n\r\n"),
    ("a NUL in a value", "Host: a\r\nX: a\0b\r\nContent-Length: 16\r\n\r\n"),
    ("a control byte in a value", "Host: a\r\nX: a\x01b\r\nContent-Length: 16\r\n\r\n"),
    ("a DEL in a value", "Host: a\r\nX: a\x7fb\r\nContent-Length: 16\r\n\r\n"),
    ("a bare LF behind a field", "Host: a\r\nX: 1\nContent-Length: 16\r\n\r\n"),
    ("a bare LF at the end", "Host: a\r\nContent-Length: 16\r\n\n"),
    ("only bare LFs", "Host: a\nContent-Length: 16\n\n"),
    ("a bare CR in a value", "Host: a\r\nX: 1\rContent-Length: 15\r\nContent-Length: 16\r\n\r\n"),
    ("an upgrade", "Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 16\r\n\r\n"),
];
const BODY: &str = r#"{"model":"qwen"}"#;

const REQUEST_LINES: &[&str] = &[
    "POST  /v1/chat/completions HTTP/1.1",
    "POST /v1/chat/completions  HTTP/1.1",
    "POST\t/v1/chat/completions\tHTTP/1.1",
    "POST /v1/chat/completions HTTP/1.1 ",
    " POST /v1/chat/completions HTTP/1.1",
    "POST /v1/chat completions HTTP/1.1",
    "POST /v1/chat/completions",
    "POST /v1/chat\x7f/completions HTTP/1.1",
    "POST /v1/chat/\0completions HTTP/1.1",
    "POST /v1/chat/completions#x HTTP/1.1",
    "P(ST /v1/chat/completions HTTP/1.1",
    "POST v1/chat/completions HTTP/1.1",
    "POST /v1/chat/completions http/1.1",
    "POST /v1/chat/completions HTTP/1.1.1",
    "POST /v1/chat/completions HTTP/+1.1",
    "POST /v1/chat/completions HTTP/9.9",
    "CONNECT a:80 HTTP/1.1",
];

const BAD_CHUNKS: &[&str] = &[
    "+10\r\n{\"model\":\"qwen\"}\r\n0\r\n\r\n",
    "0x10\r\n{\"model\":\"qwen\"}\r\n0\r\n\r\n",
    " 10\r\n{\"model\":\"qwen\"}\r\n0\r\n\r\n",
    "10 \r\n{\"model\":\"qwen\"}\r\n0\r\n\r\n",
    "\r\n10\r\n{\"model\":\"qwen\"}\r\n0\r\n\r\n",
    "10\n{\"model\":\"qwen\"}\r\n0\r\n\r\n",
    "10\r{\"model\":\"qwen\"}\r\n0\r\n\r\n",
    "10\r\n{\"model\":\"qwen\"}\n0\r\n\r\n",
    "10\r\n{\"model\":\"qwen\"}XX0\r\n\r\n",
    "10\r\n{\"model\":\"qwen\"}0\r\n\r\n",
    "10;a\nb\r\n{\"model\":\"qwen\"}\r\n0\r\n\r\n",
    "10;\0\r\n{\"model\":\"qwen\"}\r\n0\r\n\r\n",
    "fffffffffffffffff\r\n{\"model\":\"qwen\"}\r\n0\r\n\r\n",
    "zz\r\n{\"model\":\"qwen\"}\r\n0\r\n\r\n",
    "10\r\n{\"model\":\"qwen\"}\r\n0\r\nbad trailer\r\n\r\n",
    "10\r\n{\"model\":\"qwen\"}\r\n0\r\nX : 1\r\n\r\n",
    "10\r\n{\"model\":\"qwen\"}\r\n0\r\nX: 1\n\r\n",
];

#[tokio::test]
async fn hostile_requests_are_400_and_no_engine_sees_them() {
    let (engine, gateway) = one_engine().await;
    let heads = HOSTILE.iter().map(|(why, head)| (*why, format!("POST {CHAT} HTTP/1.1\r\n{head}{BODY}")));
    let lines = REQUEST_LINES
        .iter()
        .map(|line| (*line, format!("{line}\r\nHost: a\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len())));
    let chunks = BAD_CHUNKS.iter().map(|body| {
        (*body, format!("POST {CHAT} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"))
    });
    let versions = [(
        "HTTP/1.0 with Transfer-Encoding",
        format!(
            "POST {CHAT} HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{BODY}\r\n0\r\n\r\n"
        ),
    )];
    let mut wrong = Vec::new();
    for (why, request) in heads.chain(lines).chain(chunks).chain(versions) {
        let mut client = Client::connect(gateway.address).await;
        client.send(request).await;
        let answer = client.answer().await;
        if answer.status() != 400 {
            wrong.push(format!("{why:?} is answered with {:?}", answer.verdict()));
        }
        // Whatever follows on such a connection would be read by guessing.
        client.closed().await;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(engine.posts().is_empty(), "{:#?}", engine.posts());
    assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.content(), "I am qwen-a");
}

#[tokio::test]
async fn bytes_behind_a_request_are_the_next_request_or_nothing() {
    let (engine, gateway) = one_engine().await;
    let mut client = Client::connect(gateway.address).await;
    client.send([post(CHAT, chat("qwen")), b"XX\x01".to_vec(), post(CHAT, chat("qwen"))].concat()).await;
    assert_eq!(client.answer().await.status(), 200);
    assert_eq!(client.answer().await.status(), 400);
    client.closed().await;
    assert_eq!(engine.posts().len(), 1);
}

#[tokio::test]
async fn fields_named_by_connection_go_but_never_those_that_frame_or_guard() {
    let (engine, gateway) = one_engine().await;
    let fields = "Connection: keep-alive, X-Secret, Content-Length, Host, Authorization\r\n\
                  X-Secret: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n\
                  Authorization: Bearer k\r\n";
    let answer = ask(gateway.address, post_with(CHAT, fields, chat("qwen"))).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let seen = engine.post(0).await;
    assert_eq!(seen.body, chat("qwen").as_bytes());
    for gone in ["x-secret", "keep-alive", "proxy-connection"] {
        assert_eq!(seen.head.field(gone), None, "{gone}");
    }
    assert_eq!(seen.head.field("authorization"), Some("Bearer k"));
}
