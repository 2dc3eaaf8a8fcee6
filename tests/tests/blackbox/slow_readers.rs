//! Clients that ask and do not read: what they hold is given back when their time is over.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use penstock_tests::client::{CHAT, Client, chat, chunk, post};
use penstock_tests::engine::{Behaviour, Engine, Then};
use penstock_tests::eventually;
use penstock_tests::gateway::Gateway;
use penstock_tests::h2c::{H2, post as h2_post};
use penstock_tests::manifests::{backends, engines, gateway, model, pool, route, rule, traffic_policy};
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

use crate::one_engine_with;

async fn endless_answers() -> (Engine, Gateway) {
    let (engine, gateway) = one_engine_with(&traffic_policy("timeout: {http: {requestTimeout: 3s}}")).await;
    engine.behave(Behaviour::Endless);
    (engine, gateway)
}

async fn in_flight(gateway: &Gateway) -> f64 {
    gateway.metric("penstock_requests_in_flight", &[]).await
}

async fn all_is_given_back(gateway: &Gateway) {
    eventually("the requests to end", async || (in_flight(gateway).await == 0.0).then_some(())).await;
    for name in ["penstock_endpoint_leases", "penstock_endpoint_reservations"] {
        assert_eq!(gateway.metric(name, &[]).await, 0.0, "{name}");
    }
}

#[tokio::test]
async fn a_client_that_never_reads_is_left_when_its_request_times_out() {
    for answer in [Behaviour::Endless, Behaviour::Repeats(chunk([b'x'; 900]).repeat(8).into(), usize::MAX)] {
        let (engine, gateway) = endless_answers().await;
        engine.behave(answer);
        never_reads(&engine, &gateway).await;
    }
}

#[tokio::test]
async fn a_client_that_never_reads_is_left_when_the_try_has_had_its_time() {
    let engine = Engine::start("qwen-a").await;
    engine.behave(Behaviour::Endless);
    let rules = rule("qwen", &[("qwen", 1)]) + "  timeouts: {backendRequest: 3s}\n";
    let manifests = [gateway(), pool("qwen"), engines("qwen", &[&engine]), route("timed", &rules)];
    let gateway = Gateway::start(manifests.concat()).await;
    never_reads(&engine, &gateway).await;
}

async fn never_reads(engine: &Engine, gateway: &Gateway) {
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(gateway.address).await;
        client.send(post(CHAT, chat("qwen"))).await;
        clients.push(client);
    }
    engine.post(3).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(in_flight(gateway).await, 4.0, "not before its time");
    all_is_given_back(gateway).await;
    for at in 0..4 {
        engine.left(at).await;
    }
}

/// An engine that writes without a pause, faster than the gateway can pass it on.
fn tireless_engine() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                let block = chunk([b'x'; 900]).repeat(1_000);
                while stream.write_all(&block).is_ok() {}
            });
        }
    });
    address
}

#[tokio::test]
async fn an_answer_for_which_nobody_waits_ends_when_its_request_times_out() {
    let policy = traffic_policy("timeout: {http: {requestTimeout: 2s}}");
    let manifests =
        [gateway(), pool("qwen"), model("qwen", "qwen", &[]), backends("qwen", &[tireless_engine()])];
    let gateway = Gateway::start(manifests.concat() + &policy).await;
    let address = gateway.address;
    let read_all = move || {
        let mut client = TcpStream::connect(address).expect("a connection");
        client.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        client.write_all(&post(CHAT, chat("qwen"))).expect("a request");
        let mut buffer = vec![0; 1 << 20];
        while client.read(&mut buffer).is_ok_and(|n| n > 0) {}
    };
    let clients: Vec<_> = (0..4).map(|_| tokio::task::spawn_blocking(read_all)).collect();
    for client in clients {
        timeout(Duration::from_secs(8), client).await.expect("in time").expect("an end");
    }
    let cut_in_time = |line: &String| {
        serde_json::from_str(line).is_ok_and(|entry: Value| {
            entry["reason"] == "request_timeout"
                && entry["duration_s"].as_f64().is_some_and(|took| took > 1.9)
        })
    };
    eventually("four answers cut at their time", async || {
        (gateway.access_log().iter().filter(|line| cut_in_time(line)).count() == 4).then_some(())
    })
    .await;
    all_is_given_back(&gateway).await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_every_chunk_in_its_order() {
    let (engine, gateway) = one_engine_with("").await;
    let chunks: Vec<_> = (0..4_000).map(|n| format!("{n:08}{}", "x".repeat(n % 1_500))).collect();
    let mut writes = vec![b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()];
    writes.extend(chunks.iter().map(chunk));
    writes.push(b"0\r\n\r\n".to_vec());
    engine.behave(Behaviour::Writes(writes, Then::Keep));
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    let mut client = Client::on(socket.connect(gateway.address).await.expect("a connection"));
    for _ in 0..2 {
        client.send(post(CHAT, chat("qwen"))).await;
        let (_, mut body) = client.head().await;
        let mut got = Vec::new();
        while let Ok(more) = client.more(&mut body).await {
            got.extend(more);
            // Until all buffers on the way are full.
            if got.len() < 20_000 {
                sleep(Duration::from_millis(20)).await;
            }
        }
        assert!(got == chunks.concat().as_bytes(), "{} bytes", got.len());
    }
    let connections: HashSet<_> = engine.posts().iter().map(|post| post.connection).collect();
    assert_eq!(connections.len(), 1);
}

#[tokio::test]
async fn streams_of_http_2_that_are_never_read_are_left_when_their_requests_time_out() {
    let (engine, gateway) = endless_answers().await;
    let client = H2::connect_with_window(gateway.address, 0).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let (response, mut send) = client.open(h2_post(CHAT), false).await.expect("a stream");
        send.send_data(Bytes::from(chat("qwen")), true).expect("sending");
        streams.push((response, send));
    }
    engine.post(19).await;
    all_is_given_back(&gateway).await;
    for at in 0..20 {
        engine.left(at).await;
    }
}
