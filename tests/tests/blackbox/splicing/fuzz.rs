//! Answers cut and framed in every way, on kept connections; and readers that read slowly, or nothing.

use std::time::Duration;

use fastrand::Rng;
use penstock_tests::client::{CHAT, Client, Ended, chat_stream, chunk, post};
use penstock_tests::engine::{Behaviour, Engine, Then};
use penstock_tests::eventually;
use penstock_tests::manifests;
use tokio::time::sleep;

use super::{anomalies, may_splice, spliced};

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
/// Clients at once; one engine each, so that each knows its answer.
const CLIENTS: usize = 8;
const ANSWERS: usize = 125;

/// The writes of an answer, and its body.
fn script(random: &mut Rng) -> (Vec<Vec<u8>>, Vec<u8>) {
    let wild = random.u8(0..4) == 0;
    let (mut writes, mut body) = (vec![HEAD.to_vec()], Vec::new());
    for _ in 0..random.usize(1..60) {
        let mut write = Vec::new();
        for _ in 0..if random.u8(0..6) == 0 { random.usize(2..10) } else { 1 } {
            let text: String = (0..random.usize(0..400)).map(|_| random.alphanumeric()).collect();
            let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
            let payload = match random.u8(0..if wild { 8 } else { 60 }) {
                0 => b": ping\n\n".to_vec(),
                1 => b"data: half an eve".to_vec(),
                3 if wild => vec![b'x'; 40_000],
                _ => event.into_bytes(),
            };
            if wild && random.u8(0..4) == 0 {
                write.extend(format!("00{:X};a=\"b\\\"\"\r\n", payload.len()).bytes());
                write.extend_from_slice(&payload);
                write.extend_from_slice(b"\r\n");
            } else {
                write.extend(chunk(&payload));
            }
            body.extend(payload);
        }
        writes.push(write);
    }
    writes.push(chunk("data: [DONE]\n\n"));
    body.extend_from_slice(b"data: [DONE]\n\n");
    writes.push(if wild { b"0\r\nX-Sum: 1\r\n\r\n".to_vec() } else { b"0\r\n\r\n".to_vec() });
    if wild {
        // The same bytes, cut anywhere.
        let whole = writes.concat();
        // Some of a few bytes, but no more writes than take a second.
        let size = random.usize(10..5_000).min(random.usize(10..5_000)).max(whole.len() / 300);
        writes = whole.chunks(size).map(<[u8]>::to_vec).collect();
    }
    (writes, body)
}

#[tokio::test]
async fn a_thousand_answers_on_kept_connections_arrive_byte_for_byte() {
    if !may_splice() {
        return;
    }
    let mut engines = Vec::new();
    let mut text = manifests::gateway();
    for n in 0..CLIENTS {
        let (name, engine) = (format!("m{n}"), Engine::start(&format!("e{n}")).await);
        text += &(manifests::pool(&name)
            + &manifests::model(&name, &name, &[])
            + &manifests::engines(&name, &[&engine]));
        engines.push((name, engine));
    }
    let gateway = spliced(&text).await;
    let address = gateway.address;
    let clients = engines.into_iter().enumerate().map(|(n, (name, engine))| {
        tokio::spawn(async move {
            let mut random = Rng::with_seed(n as u64);
            let mut client = Client::connect(address).await;
            for _ in 0..ANSWERS {
                let (writes, body) = script(&mut random);
                engine.behave(Behaviour::Writes(writes, Then::Keep));
                client.send(post(CHAT, chat_stream(&name))).await;
                let answer = client.answer().await;
                assert_eq!(answer.ended, Ended::Whole);
                assert!(answer.body == body, "a client got other bytes than its engine wrote");
            }
            let mut connections: Vec<_> = engine.posts().iter().map(|post| post.connection).collect();
            connections.dedup();
            assert!(connections.len() <= 2, "they were not kept: {connections:?}");
            engine
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("a client");
    }
    let events = gateway.metric("penstock_stream_events_total", &[]).await;
    let spliced = gateway.metric("penstock_spliced_events_total", &[]).await;
    eprintln!("{spliced} of {events} events were spliced");
    assert!(spliced > events / 20.0, "{spliced} of {events}");
    assert_eq!(anomalies(&gateway).await, 0.0);
    assert_eq!(gateway.metric("penstock_splice_hand_backs_total", &["unequal"]).await, 0.0);
}

/// What such a reader's answer holds: more than all buffers on its way.
const LONG: usize = 20_000;

fn long() -> Vec<Vec<u8>> {
    let token = chunk(format!("data: {{\"x\":\"{}\"}}\n\n", "y".repeat(1_000)));
    let mut writes = vec![HEAD.to_vec()];
    writes.extend(std::iter::repeat_n(token.repeat(8), LONG / 8));
    writes.push(b"0\r\n\r\n".to_vec());
    writes
}

#[tokio::test]
async fn readers_that_stop_hold_the_engine_and_no_memory() {
    if !may_splice() {
        return;
    }
    let engine = Engine::start("qwen-a").await;
    let gateway = spliced(&manifests::qwen(&[&engine])).await;
    engine.behave(Behaviour::Writes(long(), Then::Keep));
    let before = gateway.resident_bytes();
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = Client::connect(gateway.address).await;
        client.send(post(CHAT, chat_stream("qwen"))).await;
        let (_, mut body) = client.head().await;
        client.events(&mut body, 3).await;
        clients.push((client, body));
    }
    // Until no engine can write on.
    sleep(Duration::from_secs(3)).await;
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes for fifty readers");
    // One of them reads on after all, slowly at first.
    let (mut client, mut body) = clients.pop().expect("fifty");
    let mut events = 0;
    while let Ok(bytes) = client.more(&mut body).await {
        events += bytes.iter().filter(|byte| **byte == b'y').count();
        if events < 300_000 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(events > (LONG - 3) * 1_000 - 3_000 && events <= LONG * 1_000, "{events}");
    drop(clients);
    eventually("the others to be gone", async || {
        (gateway.metric("penstock_requests_in_flight", &[]).await == 0.0).then_some(())
    })
    .await;
    assert_eq!(anomalies(&gateway).await, 0.0);
}
