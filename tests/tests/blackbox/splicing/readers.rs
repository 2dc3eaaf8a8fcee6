//! Readers that read slowly, or nothing: they hold their engine, and next to no memory.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use penstock_tests::client::{CHAT, Client, Ended, chat_stream, chunk, post};
use penstock_tests::engine::{Behaviour, Engine, Persona};
use penstock_tests::gateway::connections_of;
use penstock_tests::network::Network;
use penstock_tests::{DEADLINE, eventually, manifests};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getpid, getrlimit, setrlimit};
use rustix::time::{ClockId, Timespec, clock_gettime};
use socket2::SockRef;
use tokio::net::TcpSocket;
use tokio::time::sleep;

use super::{anomalies, may_splice, spliced};

/// What such a reader's answer holds: more than all buffers on its way.
const LONG: usize = 20_000;

/// One with so many of `y`.
fn event(ys: usize) -> Vec<u8> {
    format!("data: {{\"x\":\"{}\"}}\n\n", "y".repeat(ys)).into_bytes()
}

#[tokio::test]
async fn readers_that_stop_hold_the_engine_and_no_memory() {
    if !may_splice() {
        return;
    }
    let engine = Engine::start("qwen-a").await;
    let gateway = spliced(&manifests::qwen(&[&engine])).await;
    engine.behave(Behaviour::Repeats(chunk(event(1_000)).repeat(8).into(), LONG / 8));
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

/// Of a thousand readers each: more than the buffers on its way hold, once it reads nothing.
const TOKENS: usize = 120;
const YS: usize = 4_000;
const READERS: usize = 1_000;

#[tokio::test]
async fn a_thousand_that_stop_hold_little_memory_leave_their_engine_in_peace_and_get_every_byte_in_the_end() {
    if !may_splice() || !may_open(READERS * 4) {
        return;
    }
    // Not over the loopback, whose packets of 64 KiB make buffers of megabytes.
    let (network, ip) = Network::container();
    let small = network.enter("sysctl -q -w").arg("net.ipv4.tcp_wmem=4096 16384 65536").status();
    assert!(small.expect("sysctl").success());
    let started = Engine::start_at((ip, 0).into(), Persona::named("qwen-a"));
    let engine = network.inside(started).await.expect("a free port");
    let gateway = spliced(&manifests::qwen(&[&engine])).await;
    engine.behave(Behaviour::Repeats(chunk(event(YS)).into(), TOKENS));
    let before = gateway.resident_bytes();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = Client::on(far(gateway.address).await.expect("a connection"));
        reader.send(post(CHAT, chat_stream("qwen"))).await;
        readers.push(reader);
    }
    let sent = until_still(&engine).await;
    let ended = engine.log().read(|state| state.streams_ended);
    assert!(ended < READERS / 2, "{ended} of {READERS} answers fit into the buffers on their way");

    // Nobody waits for a socket that says that it may be written to: such an engine would spin.
    let is_engines = |socket: &TcpStream| socket.local_addr().is_ok_and(|local| local == engine.address);
    let sockets: Vec<_> = connections_of(getpid()).into_iter().filter(is_engines).collect();
    // Those of the gateway's own questions are idle too.
    let idle = ended + sockets.len().checked_sub(READERS).expect("one for each reader");
    let writable = || sockets.iter().filter(|socket| is_writable(socket)).count();
    let (busy, rests) = (clock_gettime(ClockId::ThreadCPUTime), Duration::from_millis(500));
    assert!(writable() <= idle, "{} of {READERS} engines' sockets", writable());
    sleep(rests).await;
    assert!(writable() <= idle, "{} of {READERS} engines' sockets", writable());
    let spent = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime) - busy).expect("time goes on");
    assert!(spent < rests / 2, "clients and engines that wait took {spent:?} of CPU");
    let grown = gateway.resident_bytes().saturating_sub(before);
    // What a stream takes, and one piece of 64 KiB that hyper cannot write.
    assert!(grown < (READERS as u64) * (128 << 10), "{grown} bytes for {READERS} readers");

    let body: Arc<[u8]> = event(YS).repeat(TOKENS).into();
    let reading: Vec<_> =
        readers.into_iter().map(|reader| tokio::spawn(read(reader, body.clone()))).collect();
    for reading in reading {
        reading.await.expect("a reader");
    }
    let all = (READERS * TOKENS) as f64;
    eventually("all events to be counted", async || {
        (gateway.metric("penstock_stream_events_total", &[]).await == all).then_some(())
    })
    .await;
    let spliced = gateway.metric("penstock_spliced_events_total", &[]).await;
    eprintln!(
        "{sent} of {all} events were sent to who did not read, {grown} bytes held; {spliced} spliced in all"
    );
    assert!(spliced > all / 20.0, "{spliced} of {all}");
    assert_eq!(anomalies(&gateway).await, 0.0);
}

/// A connection that has small packets, as one from another host, and a small buffer.
async fn far(address: SocketAddr) -> std::io::Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    SockRef::from(&socket).set_tcp_mss(1_400)?;
    socket.set_recv_buffer_size(4_096)?;
    socket.connect(address).await
}

async fn read(mut reader: Client, wanted: Arc<[u8]>) {
    SockRef::from(&reader.stream).set_recv_buffer_size(1 << 20).expect("a buffer");
    let answer = reader.answer_within(DEADLINE * 3, "POST").await;
    assert_eq!(answer.ended, Ended::Whole);
    assert!(answer.body[..] == wanted[..], "a reader got other bytes than its engine wrote");
}

/// Waits until the engine cannot write any more; how many events it has written by then.
async fn until_still(engine: &Engine) -> usize {
    let sent = || engine.log().read(|state| state.events_sent);
    let mut last = usize::MAX;
    eventually("the streams to stall", async || {
        sleep(Duration::from_millis(300)).await;
        let was = std::mem::replace(&mut last, sent());
        (was == last && engine.posts().len() == READERS).then_some(last)
    })
    .await
}

/// Raises the limit of open files; says so where it is too low.
fn may_open(files: usize) -> bool {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let may = raised.is_ok() && maximum.is_none_or(|maximum| maximum >= files as u64);
    if !may {
        eprintln!("NOT RUN: this test opens {files} files, and its limit is {maximum:?}");
    }
    may
}

fn is_writable(socket: &TcpStream) -> bool {
    let mut asked = [PollFd::new(socket, PollFlags::OUT)];
    poll(&mut asked, Some(&Timespec::default())).expect("poll");
    asked[0].revents().contains(PollFlags::OUT)
}
