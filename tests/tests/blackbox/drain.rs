//! The end of a process: what is in flight is finished, what is new is refused.

use std::time::{Duration, Instant};

use penstock_tests::client::{CHAT, Client, Ended, chat, chat_stream, chunk, post};
use penstock_tests::engine::{Behaviour, Engine};
use penstock_tests::eventually;
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests::qwen;
use penstock_tests::wire::Body;
use rustix::process::Signal;
use tokio::net::TcpStream;

async fn streaming(options: &[&str]) -> (Engine, Gateway, Client, Body) {
    under_way(Behaviour::Stepped, 1, options).await
}

/// A stream of so many events, of which the client has read enough for hyper to be out of its way.
async fn long_under_way(events: usize, options: &[&str]) -> (Engine, Gateway, Client, Body) {
    under_way(Behaviour::Repeats(chunk("data: 1\n\n").into(), events), 30, options).await
}

/// A stream of which the client has read so many events.
async fn under_way(stream: Behaviour, read: usize, options: &[&str]) -> (Engine, Gateway, Client, Body) {
    let engine = Engine::start("qwen-a").await;
    engine.behave(stream);
    let gateway = Gateway::start_with(qwen(&[&engine]), options).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(post(CHAT, chat_stream("qwen"))).await;
    let (_, mut body) = client.head().await;
    client.events(&mut body, read).await;
    (engine, gateway, client, body)
}

#[tokio::test]
async fn sigterm_lets_a_stream_finish_and_refuses_new_connections() {
    let (engine, mut gateway, mut client, mut body) = streaming(&[]).await;
    let mut idle = Client::connect(gateway.address).await;
    idle.send("GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(idle.answer().await.status(), 200);
    gateway.signal(Signal::TERM);
    eventually("new connections to be refused", async || {
        TcpStream::connect(gateway.address).await.is_err().then_some(())
    })
    .await;
    // An idle kept connection is closed, or what it asks now is answered with 503.
    if idle.try_send(post(CHAT, chat("qwen"))).await.is_ok() {
        let (_, bytes) = idle.closed().await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 503") && text.contains("draining"), "{text}");
    }
    assert_eq!(gateway.admin("/readyz").await.status(), 503);
    assert_eq!(gateway.admin("/healthz").await.status(), 200);
    engine.steps(20);
    assert_eq!(client.events(&mut body, 6).await.last().map(String::as_str), Some("data: [DONE]"));
    assert_eq!(client.more(&mut body).await, Err(Ended::Whole));
    assert_eq!(gateway.exited().await.code(), Some(0));
    gateway.logged("the stream that was finished", |entry| entry["status"] == 200).await;
}

#[tokio::test]
async fn a_stream_long_under_way_is_finished_too_and_its_connection_closed() {
    let (_engine, mut gateway, mut client, mut body) = long_under_way(200, &[]).await;
    gateway.signal(Signal::TERM);
    assert_eq!(client.rest(&mut body).await, Ended::Whole);
    assert_eq!(client.closed().await.1, b"");
    assert_eq!(gateway.exited().await.code(), Some(0));
}

#[tokio::test]
async fn the_drain_timeout_cuts_what_is_left() {
    let options = ["--drain-timeout", "1s"];
    for (_engine, mut gateway, mut client, mut body) in
        [streaming(&options).await, long_under_way(usize::MAX, &options).await]
    {
        let since = Instant::now();
        gateway.signal(Signal::TERM);
        assert_ne!(client.rest(&mut body).await, Ended::Whole, "a cut stream must not look whole");
        gateway.exited().await;
        assert!(since.elapsed() > Duration::from_millis(900), "not before its time");
        gateway.logged("the stream that was cut", |entry| entry["reason"] == "draining").await;
    }
}

#[tokio::test]
async fn a_second_sigterm_ends_it_at_once() {
    let (_engine, mut gateway, _client, _body) = streaming(&[]).await;
    gateway.signal(Signal::TERM);
    eventually("the drain to begin", async || {
        TcpStream::connect(gateway.address).await.is_err().then_some(())
    })
    .await;
    gateway.signal(Signal::TERM);
    gateway.exited().await;
}

#[tokio::test]
async fn without_requests_the_end_is_immediate() {
    let mut gateway = Gateway::start(qwen(&[])).await;
    let _idle = Client::connect(gateway.address).await;
    gateway.signal(Signal::TERM);
    let since = Instant::now();
    assert_eq!(gateway.exited().await.code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn what_the_drain_timeout_cuts_is_logged_as_the_gateways_doing() {
    let (_engine, mut gateway, mut client, mut body) = streaming(&["--drain-timeout", "1s"]).await;
    gateway.signal(Signal::TERM);
    client.rest(&mut body).await;
    gateway.exited().await;
    let entry = gateway.logged("the cut stream", |entry| entry["path"] == CHAT).await;
    assert_eq!((&entry["reason"], &entry["blame"]), (&"draining".into(), &"gateway".into()), "{entry}");
}

#[tokio::test]
async fn a_cut_stream_of_http_1_0_ends_with_a_reset() {
    let engine = Engine::start("qwen-a").await;
    engine.behave(Behaviour::Stepped);
    let gateway = Gateway::start_with(qwen(&[&engine]), &["--drain-timeout", "1s"]).await;
    let body = chat_stream("qwen");
    let request = format!("POST {CHAT} HTTP/1.0\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut client = Client::connect(gateway.address).await;
    client.send(request).await;
    let (_, mut body) = client.head().await;
    client.events(&mut body, 1).await;
    gateway.signal(Signal::TERM);
    // A FIN would say that the answer is whole: nothing else tells its end.
    assert_eq!(client.closed().await.0, Ended::Reset);
}
