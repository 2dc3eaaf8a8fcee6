//! Answers cut and framed in every way, on kept connections.

use fastrand::Rng;
use penstock_tests::client::{CHAT, Client, Ended, chat_stream, chunk, post};
use penstock_tests::engine::{Behaviour, Engine, Then};
use penstock_tests::manifests;

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
