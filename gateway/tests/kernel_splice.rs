//! Splice: what clients get is what engines wrote, byte for byte, whoever misbehaves. Needs root, and says so without.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "kernel/mod.rs"]
mod kernel;
#[path = "kernel/relay.rs"]
mod relay;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use fastrand::Rng;
use kernel::{Namespace, connect, is_root, pair, place, turn};
use penstock::kernel::splice::{Binding, Reason, Splice, Terms, conformance, now_ns};
use penstock_common::framing::{Framing, Piece};
use relay::{End, Engine, Relay, Tally, serve};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

const REQUEST: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n\r\n";
const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n";

/// The programs, loaded, with a heart that beats.
struct Living(Arc<Splice>);

impl Living {
    fn load(slots: u32) -> Self {
        let splice = Splice::load(&place(), slots).unwrap();
        let heart: Weak<Splice> = Arc::downgrade(&splice);
        std::thread::spawn(move || {
            while let Some(splice) = heart.upgrade() {
                splice.beat();
                drop(splice);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self(splice)
    }
}

impl Deref for Living {
    type Target = Arc<Splice>;

    fn deref(&self) -> &Arc<Splice> {
        &self.0
    }
}

fn over(tally: &Tally, reason: Reason) -> u64 {
    tally.over[reason as usize]
}

fn chunk(payload: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", payload.len()).into_bytes();
    chunk.extend_from_slice(payload);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

fn event(random: &mut Rng) -> Vec<u8> {
    let text: String = (0..random.usize(0..400)).map(|_| random.alphanumeric()).collect();
    format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n").into_bytes()
}

/// The writes of one answer, as engines write or as nobody would.
fn script(random: &mut Rng) -> Vec<Vec<u8>> {
    let wild = random.u8(0..4) == 0;
    let mut writes = vec![HEAD.to_vec()];
    for _ in 0..random.usize(1..if wild { 30 } else { 100 }) {
        let mut write = Vec::new();
        let chunks = if random.u8(0..6) == 0 { random.usize(2..10) } else { 1 };
        for _ in 0..chunks {
            match random.u8(0..if wild { 8 } else { 60 }) {
                0 => write.extend(chunk(b": ping\n\n")),
                1 => write.extend(chunk(b"data: half an eve")),
                2 if wild => {
                    let payload = event(random);
                    write.extend(format!("00{:X};a=\"b\\\"\"\r\n", payload.len()).bytes());
                    write.extend(payload);
                    write.extend(b"\r\n");
                }
                3 if wild => write.extend(chunk(&[b'x'; 40_000])),
                _ => write.extend(chunk(&event(random))),
            }
        }
        writes.push(write);
    }
    writes.push(chunk(b"data: [DONE]\n\n"));
    writes.push(if wild { b"0\r\nx-sum: 1\r\n\r\n".to_vec() } else { b"0\r\n\r\n".to_vec() });
    if wild {
        // The same bytes, cut anywhere.
        let whole = writes.concat();
        let mut rest = &whole[..];
        writes.clear();
        while !rest.is_empty() {
            let most = if random.bool() { 30 } else { 5000 };
            let n = random.usize(1..=rest.len().min(most));
            writes.push(rest[..n].to_vec());
            rest = &rest[n..];
        }
    }
    writes
}

/// Answers each request on each connection with a script of its own; tells what it is.
fn engine(listener: &TcpListener, connections: usize, seed: u64, told: &Sender<(SocketAddr, Vec<u8>)>) {
    std::thread::scope(|scope| {
        for n in 0..connections {
            let (mut stream, from) = listener.accept().unwrap();
            let told = told.clone();
            scope.spawn(move || {
                stream.set_nodelay(true).unwrap();
                let mut random = Rng::with_seed(seed + n as u64);
                while read_request(&mut stream) {
                    let writes = script(&mut random);
                    told.send((from, writes.concat())).unwrap();
                    for write in writes {
                        if stream.write_all(&write).is_err() {
                            return;
                        }
                        if random.u8(0..3) != 0 {
                            std::thread::sleep(Duration::from_micros(random.u64(0..400)));
                        }
                    }
                }
            });
        }
    });
}

fn read_request(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0; 256];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(n) if n > 0 => head.extend_from_slice(&byte[..n]),
            // Blocking or not: its send buffer became free, which wakes readers of a socket in a sockmap.
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => return false,
        }
    }
    true
}

/// Reads one answer, whole.
fn read_answer(stream: &mut TcpStream, slow: Option<&mut Rng>) -> Vec<u8> {
    let mut got = Vec::new();
    let mut framing = Framing::chunked();
    let (mut followed, mut body) = (0, false);
    let mut buffer = vec![0; 16 << 10];
    let mut slow = slow;
    loop {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "the answer is cut short after {} bytes", got.len());
        got.extend_from_slice(&buffer[..n]);
        if let Some(random) = slow.as_deref_mut() {
            std::thread::sleep(Duration::from_micros(random.u64(0..3000)));
        }
        if !body && let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") {
            (followed, body) = (end + 4, true);
        }
        while body && followed < got.len() {
            match framing.next(&got[followed..]).unwrap() {
                Piece::Body(n) | Piece::Framing(n) | Piece::Trailer(n) => followed += n,
                Piece::Done => panic!("{} bytes behind the answer", got.len() - followed),
            }
        }
        if framing.is_done() {
            return got;
        }
    }
}

/// Runs keep-alive clients against scripts, and compares.
fn fuzz(splice: &Arc<Splice>, clients: usize, answers: usize, budget: u64, seed: u64, slow: bool) -> Tally {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (told, scripts): (_, Receiver<(SocketAddr, Vec<u8>)>) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || engine(&listener, clients, seed, &told));
        let (front, relays) = serve(scope, splice, address, budget, clients, slow.then_some(8 << 10));
        let got: Vec<_> = (0..clients)
            .map(|n| {
                scope.spawn(move || {
                    let mut random = Rng::with_seed(seed ^ n as u64);
                    let mut stream = TcpStream::connect(front).unwrap();
                    if slow {
                        socket2::SockRef::from(&stream).set_recv_buffer_size(4096).unwrap();
                    }
                    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    (0..answers)
                        .map(|_| {
                            stream.write_all(REQUEST).unwrap();
                            read_answer(&mut stream, slow.then_some(&mut random))
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let mut got: Vec<Vec<Vec<u8>>> = got.into_iter().map(|client| client.join().unwrap()).collect();
        let mut tally = Tally::default();
        for (_, of) in relays.join().unwrap() {
            tally.add(&of);
        }
        let mut wrote: std::collections::HashMap<SocketAddr, Vec<Vec<u8>>> = std::collections::HashMap::new();
        for (connection, script) in scripts.try_iter() {
            wrote.entry(connection).or_default().push(script);
        }
        let mut wrote: Vec<Vec<Vec<u8>>> = wrote.into_values().collect();
        got.sort();
        wrote.sort();
        assert!(got == wrote, "a client got other bytes than its engine wrote");
        tally
    })
}

#[test]
fn a_thousand_answers_arrive_byte_for_byte() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Living::load(64);
    let tally = fuzz(&splice, 8, 125, u64::MAX, 1, false);
    eprintln!("{tally:?}");
    assert_eq!((tally.answers, tally.bound, tally.unequal), (1000, 8, 0), "{tally:?}");
    // Every fourth answer is cut anywhere, and large.
    assert!(tally.events > 8_000 && tally.gaps >= tally.events, "{tally:?}");
    assert_eq!(over(&tally, Reason::Unequal) + over(&tally, Reason::Gone), 0, "{tally:?}");
}

#[test]
fn a_thousand_answers_arrive_byte_for_byte_with_tiny_budgets() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Living::load(64);
    for (budget, answers) in [(8_000, 65), (2_000, 60)] {
        let tally = fuzz(&splice, 8, answers, budget, budget, false);
        eprintln!("{tally:?}");
        assert_eq!((tally.answers, tally.unequal), (8 * answers as u64, 0), "{tally:?}");
        assert!(over(&tally, Reason::Budget) > 100 && tally.events > 1_000, "{tally:?}");
    }
}

#[test]
fn slow_readers_get_every_byte_and_stop_the_splice_when_they_are_full() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Living::load(64);
    let tally = fuzz(&splice, 16, 12, u64::MAX, 3, true);
    eprintln!("{tally:?}");
    assert_eq!((tally.answers, tally.unequal), (192, 0), "{tally:?}");
    assert!(over(&tally, Reason::Full) > 100 && tally.events > 500, "{tally:?}");
}

#[test]
fn two_gateways_splice_side_by_side_and_the_counting_goes_on() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (one, other) = (Living::load(64), Living::load(64));
    let mut account = penstock::kernel::account::Account::load(&place()).unwrap();
    let (listener, address) = listen("127.0.0.1:0");
    penstock::kernel::Counts::track(&mut account, &[address]).unwrap();
    std::thread::scope(|scope| {
        let all = [&one, &other].map(|splice| scope.spawn(|| fuzz(splice, 4, 25, u64::MAX, 4, false)));
        for tally in all.map(|one| one.join().unwrap()) {
            assert_eq!((tally.answers, tally.bound, tally.unequal), (100, 4, 0), "{tally:?}");
            assert!(tally.events > 400, "{tally:?}");
        }
    });
    let engine = Engine::connect(&one, address);
    let _accepted = listener.accept().unwrap();
    assert!(engine.is_bound());
    assert_eq!(kernel::counts(&mut account)[0].open, 1);
}

fn listen(at: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(at).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A client, a relay between, and an engine's end, with an answer begun and the splice armed.
struct Stream {
    client: TcpStream,
    engine: TcpStream,
    relay: std::thread::JoinHandle<(End, Tally)>,
}

impl Stream {
    fn begin(splice: &Arc<Splice>, budget: u64, small: bool) -> Self {
        let (front, at) = listen("127.0.0.1:0");
        let (engines, engine_at) = listen("127.0.0.1:0");
        let client = TcpStream::connect(at).unwrap();
        let accepted = front.accept().unwrap().0;
        if small {
            SockRef::from(&client).set_recv_buffer_size(8 << 10).unwrap();
            SockRef::from(&accepted).set_send_buffer_size(32 << 10).unwrap();
        }
        let relay = Relay::new(splice, accepted, engine_at, budget);
        if small {
            SockRef::from(&relay.engine.stream).set_recv_buffer_size(16 << 10).unwrap();
        }
        let mut engine = engines.accept().unwrap().0;
        engine.set_nodelay(true).unwrap();
        if small {
            SockRef::from(&engine).set_send_buffer_size(16 << 10).unwrap();
        }
        let relay = std::thread::spawn(move || relay.run());
        let mut stream = Self { client, engine: engine.try_clone().unwrap(), relay };
        stream.client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.client.write_all(REQUEST).unwrap();
        assert!(read_request(&mut engine));
        stream.write(HEAD);
        stream.write(&chunk(b"data: {\"first\":1}\n\n"));
        // Until the relay has it, and is armed.
        stream.expect(&[HEAD, &chunk(b"data: {\"first\":1}\n\n")].concat());
        std::thread::sleep(Duration::from_millis(if small { 3 } else { 20 }));
        stream
    }

    fn write(&mut self, bytes: &[u8]) {
        self.engine.write_all(bytes).unwrap();
    }

    fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        self.client.read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(bytes));
    }

    fn end(self) -> (End, Tally) {
        self.relay.join().unwrap()
    }
}

fn token() -> Vec<u8> {
    chunk(b"data: {\"choices\":[{\"delta\":{\"content\":\" token\"}}]}\n\n")
}

#[test]
fn a_reset_or_a_close_by_the_client_stops_the_engine() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Living::load(64);
    for reset in [true, false] {
        let mut stream = Stream::begin(&splice, u64::MAX, false);
        stream.write(&token());
        stream.expect(&token());
        if reset {
            SockRef::from(&stream.client).set_linger(Some(Duration::ZERO)).unwrap();
        }
        let client =
            std::mem::replace(&mut stream.client, TcpStream::connect(listen("127.0.0.1:0").1).unwrap());
        drop(client);
        let begun = Instant::now();
        let failed = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            stream.engine.write_all(&token()).is_err()
        });
        assert!(failed, "the engine goes on writing to nobody");
        eprintln!("the engine knew after {:?}", begun.elapsed());
        let (end, tally) = stream.end();
        assert_eq!((end, tally.unequal), (End::ClientGone, 0), "{tally:?}");
    }
}

#[test]
fn a_client_that_has_closed_its_half_still_gets_its_answer() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Living::load(64);
    let mut stream = Stream::begin(&splice, u64::MAX, false);
    stream.client.shutdown(std::net::Shutdown::Write).unwrap();
    for _ in 0..10 {
        stream.write(&token());
        stream.expect(&token());
    }
    stream.write(b"0\r\n\r\n");
    stream.expect(b"0\r\n\r\n");
    let (_, tally) = stream.end();
    assert_eq!((tally.answers, tally.events, tally.unequal), (1, 10, 0), "{tally:?}");
}

#[test]
fn whatever_an_engine_wrote_before_it_ended_has_arrived() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Living::load(64);
    for how in ["close", "reset", "half"] {
        let mut stream = Stream::begin(&splice, u64::MAX, false);
        for _ in 0..5 {
            stream.write(&token());
        }
        stream.expect(&token().repeat(5));
        match how {
            "reset" => SockRef::from(&stream.engine).set_linger(Some(Duration::ZERO)).unwrap(),
            "half" => stream.engine.shutdown(std::net::Shutdown::Write).unwrap(),
            _ => {}
        }
        let Stream { mut client, engine, relay } = stream;
        let kept = (how == "half").then(|| engine.try_clone().unwrap());
        drop(engine);
        let (end, tally) = relay.join().unwrap();
        assert_eq!((end, tally.events, tally.unequal), (End::EngineGone, 5, 0), "{how}: {tally:?}");
        assert!(!matches!(client.read(&mut [0; 1]), Ok(1..)), "{how}: bytes from nowhere");
        drop(kept);
    }
}

#[test]
fn engines_that_ignore_the_framing_rules_are_the_relays_affair() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Living::load(64);
    for bad in [
        &b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"[..],
        b"zz\r\ndata: {}\n\n\r\n",
        b"f\r\ndata: {}\n\n\r\n",
        b"-a\r\ndata: {}\n\n\r\n",
        b"a\ndata: {}\n\n\r\n",
        b"a\r\ndata: {}\n\nX\n",
        b"ffffffffffffffff\r\ndata: {}\n\n\r\n",
        b"\r\n\r\n\r\n\r\n\r\n\r\n",
    ] {
        let mut stream = Stream::begin(&splice, u64::MAX, false);
        stream.write(&token());
        stream.expect(&token());
        // Good to look at, but in one write with what is not.
        stream.write(&[&token(), bad].concat());
        let (end, tally) = match bad {
            // A chunk that ends too early for its size is only seen with what follows.
            [b'f', b'\r', ..] => {
                stream.write(&token());
                stream.end()
            }
            _ => stream.end(),
        };
        assert_eq!((end, tally.events), (End::Broken, 1), "{:?}: {tally:?}", String::from_utf8_lossy(bad));
    }
    // Behind the end: never spliced, for nothing is armed.
    let mut stream = Stream::begin(&splice, u64::MAX, false);
    stream.write(b"0\r\n\r\n");
    stream.expect(b"0\r\n\r\n");
    stream.write(&token());
    stream.client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(stream.client.read(&mut [0; 1]).is_err(), "bytes behind the end arrived");
}

#[test]
fn the_end_of_the_last_events_is_kept() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Living::load(64);
    let mut stream = Stream::begin(&splice, u64::MAX, false);
    let usage = chunk(b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":22,\"total_tokens\":33}}\n\n");
    stream.write(&usage);
    stream.write(&chunk(b"data: [DONE]\n\n"));
    stream.write(b"0\r\n\r\n");
    stream.expect(&[&usage[..], &chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"].concat());
    drop(stream.client);
    let (_, tally) = stream.relay.join().unwrap();
    assert_eq!(tally.tail, usage[usage.len() - 32..], "{tally:?}");
    assert_eq!((tally.events, tally.writes), (1, 2), "{tally:?}");
}

#[test]
fn a_gateway_that_shows_no_life_gets_every_byte_itself() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Splice::load(&place(), 64).unwrap();
    let mut stream = Stream::begin(&splice, u64::MAX, false);
    stream.write(&token());
    stream.expect(&token());
    std::thread::sleep(Duration::from_millis(2_100));
    stream.write(&token());
    stream.expect(&token());
    drop(stream.client);
    drop(stream.engine);
    let (_, tally) = stream.relay.join().unwrap();
    assert_eq!((tally.events, over(&tally, Reason::Stale)), (1, 1), "{tally:?}");
}

#[test]
fn a_thousand_stalled_readers_hold_no_more_than_their_buffers() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Living::load(1024);
    let before = tcp_memory();
    let streams: Vec<Stream> = (0..1000).map(|_| Stream::begin(&splice, u64::MAX, true)).collect();
    let tokens = token().repeat(8);
    let mut written = 0;
    for stream in &streams {
        stream.engine.set_nonblocking(true).unwrap();
    }
    // Until every engine is stopped by its own full socket.
    for _ in 0..400 {
        let mut any = false;
        for stream in &streams {
            while let Ok(n) = (&stream.engine).write(&tokens) {
                any = true;
                written += n;
                assert!(written < 1 << 30, "no backpressure");
            }
        }
        if !any {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let held = tcp_memory() - before;
    eprintln!("{written} bytes written, {held} held");
    // Two connections with twice 64 KiB of books for each end.
    assert!(held < 1000 * 400_000, "{held} bytes");
    for stream in &streams {
        SockRef::from(&stream.client).set_linger(Some(Duration::ZERO)).unwrap();
    }
    let mut spliced = 0;
    for Stream { client, engine, relay } in streams {
        drop(client);
        let (end, tally) = relay.join().unwrap();
        assert_eq!((end, tally.unequal), (End::ClientGone, 0), "{tally:?}");
        assert!(over(&tally, Reason::Full) > 0, "{tally:?}");
        spliced += tally.spliced;
        drop(engine);
    }
    assert!(spliced > 1_000_000, "{spliced}");
}

/// Bytes in the buffers of all TCP sockets.
fn tcp_memory() -> i64 {
    let text = std::fs::read_to_string("/proc/net/sockstat").unwrap();
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap();
    let pages: i64 = line.rsplit_once("mem ").unwrap().1.parse().unwrap();
    pages * 4096
}

#[test]
fn an_engine_in_another_namespace_is_spliced_over_its_cable() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Living::load(64);
    let (here, there) = pair();
    for engine in ["10.9.0.2:8001", "[fd09::2]:8001"] {
        let engine: SocketAddr = engine.parse().unwrap();
        carry(&splice, &here, &there, engine);
    }
}

#[test]
fn an_engine_on_ipv6_loopback_is_spliced() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Living::load(64);
    let here = Namespace::new();
    carry(&splice, &here, &here, "[::1]:8001".parse().unwrap());
    // By a mapped address, too: the two ends are of different families.
    let listener = here.run(|| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_only_v6(false).unwrap();
        socket.bind(&"[::]:8002".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(8).unwrap();
        socket
    });
    let engine = here.run(|| Engine::connect(&splice, "127.0.0.1:8002".parse().unwrap()));
    assert!(engine.is_bound());
    drop(listener);
}

/// One answer from an engine `there` by a relay `here`.
fn carry(splice: &Arc<Splice>, here: &Namespace, there: &Namespace, engine: SocketAddr) {
    let listener = there.run(|| TcpListener::bind(engine).unwrap());
    let (front, at) = here.run(|| listen(if engine.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }));
    let mut client = here.run(|| TcpStream::connect(at).unwrap());
    let relay = here.run(|| Relay::new(splice, front.accept().unwrap().0, engine, u64::MAX));
    let mut engine = listener.accept().unwrap().0;
    engine.set_nodelay(true).unwrap();
    let relay = std::thread::spawn(move || relay.run());
    client.write_all(REQUEST).unwrap();
    assert!(read_request(&mut engine));
    let mut wrote = Vec::new();
    let writes =
        std::iter::once(HEAD.to_vec()).chain((0..20).map(|_| token())).chain([b"0\r\n\r\n".to_vec()]);
    for write in writes {
        engine.write_all(&write).unwrap();
        wrote.extend(write);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(read_answer(&mut client, None), wrote);
    drop((client, engine));
    let (_, tally) = relay.join().unwrap();
    assert_eq!((tally.bound, tally.unequal, tally.answers), (1, 0, 1), "{tally:?}");
    assert!(tally.events > 10, "{tally:?}");
}

#[test]
fn equal_addresses_in_another_namespace_are_others() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Living::load(64);
    let spaces = [Namespace::new(), Namespace::new()];
    for (ip, count) in [("127.0.0.1", 0), ("10.9.0.1", 1)] {
        if count == 1 {
            spaces.iter().for_each(|space| space.ip("addr add 10.9.0.1/24 dev lo"));
        }
        let (engine_at, client_at) = (format!("{ip}:8001"), format!("{ip}:9001"));
        // The foreign pair before and after ours, with the same four numbers.
        let foreign = || {
            spaces[1].run(|| {
                let listener = TcpListener::bind(&engine_at).unwrap();
                let socket = bound_to(&client_at);
                socket.connect(&engine_at.parse::<SocketAddr>().unwrap().into()).unwrap();
                let client: TcpStream = socket.into();
                (client, listener.accept().unwrap().0)
            })
        };
        let (before, _keep) = foreign();
        SockRef::from(&before).set_linger(Some(Duration::ZERO)).unwrap();
        drop((before, _keep));
        let (mut ours, slot, mut engine) = spaces[0].run(|| {
            let listener = TcpListener::bind(&engine_at).unwrap();
            let socket = bound_to(&client_at);
            let slot = splice.slot(&socket).unwrap().unwrap();
            socket.connect(&engine_at.parse::<SocketAddr>().unwrap().into()).unwrap();
            let ours: TcpStream = socket.into();
            (ours, slot, listener.accept().unwrap().0)
        });
        let (mut foreign_client, mut foreign_engine) = foreign();
        let (front, at) = listen("127.0.0.1:0");
        let (mut client, accepted) = connect(&front, at);
        let mut slot = slot;
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!(slot.binding(), Binding::Bound);
        let known = splice.client(&accepted).unwrap();
        let terms = Terms { client: known, taken: 0, budget: u64::MAX, since_ns: now_ns() };
        slot.arm(&accepted, &terms).unwrap();
        foreign_engine.write_all(&token()).unwrap();
        let mut got = vec![0; token().len()];
        foreign_client.read_exact(&mut got).unwrap();
        assert_eq!(slot.progress().bytes, 0, "a foreign namespace's bytes were spliced");
        engine.write_all(&token()).unwrap();
        client.read_exact(&mut got).unwrap();
        assert_eq!((&got, slot.progress().events), (&token(), 1));
        ours.set_nonblocking(true).unwrap();
        assert!(ours.read(&mut [0; 1]).is_err());
        for end in [&ours, &engine, &foreign_client, &foreign_engine] {
            SockRef::from(end).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
}

fn bound_to(at: &str) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&at.parse::<SocketAddr>().unwrap().into()).unwrap();
    socket
}

#[test]
fn an_engine_that_listens_with_mptcp_gets_its_bytes_through() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    // Go's servers do since 1.24.
    let Ok(socket) = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)) else {
        eprintln!("NOT RUN: this kernel has no MPTCP");
        return;
    };
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(8).unwrap();
    let listener: TcpListener = socket.into();
    let at = listener.local_addr().unwrap();
    let splice = Living::load(64);
    let mut engine = Engine::connect(&splice, at);
    let mut accepted = listener.accept().unwrap().0;
    eprintln!("spliced with MPTCP: {}", engine.is_bound());
    for _ in 0..10 {
        accepted.write_all(&token()).unwrap();
        let mut got = vec![0; token().len()];
        engine.stream.read_exact(&mut got).unwrap();
        assert_eq!(got, token());
        engine.stream.write_all(REQUEST).unwrap();
        assert!(read_request(&mut accepted));
    }
}

#[test]
fn splicing_needs_no_privileges_once_it_is_loaded() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Living::load(64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
            let none = CapabilitySet::empty();
            set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
                .unwrap();
            let mut stream = Stream::begin(&splice, u64::MAX, false);
            stream.write(&token());
            stream.expect(&token());
            drop(stream.client);
            drop(stream.engine);
            assert_eq!(stream.relay.join().unwrap().1.events, 1);
        });
    });
}

#[test]
fn slots_run_out_and_come_back_after_their_rest() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Living::load(2);
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    let (one, two) = (socket(), socket());
    let slots = (splice.slot(&one).unwrap(), splice.slot(&two).unwrap());
    assert!(slots.0.is_some() && slots.1.is_some());
    assert!(splice.slot(&socket()).unwrap().is_none());
    drop(slots);
    assert!(splice.slot(&socket()).unwrap().is_none(), "a slot must rest");
    std::thread::sleep(Duration::from_millis(1_050));
    assert!(splice.slot(&socket()).unwrap().is_some());
}

const CHILD: &str = "PENSTOCK_TEST_SPLICE";

/// The body of the gateway that is killed; nothing when run as a test.
#[test]
fn a_gateway_of_its_own() {
    let Ok(engine) = std::env::var(CHILD) else { return };
    let splice = Living::load(64);
    let (front, at) = listen("127.0.0.1:0");
    println!("at {at}");
    Relay::new(&splice, front.accept().unwrap().0, engine.parse().unwrap(), u64::MAX).run();
}

#[test]
fn a_gateway_that_is_killed_takes_everything_with_it() {
    use std::io::BufRead;
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (engines, engine_at) = listen("127.0.0.1:0");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_gateway_of_its_own", "--nocapture"])
        .env(CHILD, engine_at.to_string())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let at: SocketAddr = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("at ").and_then(|(_, at)| at.parse().ok()))
        .unwrap();
    let mut client = TcpStream::connect(at).unwrap();
    let mut engine = engines.accept().unwrap().0;
    engine.set_nodelay(true).unwrap();
    client.write_all(REQUEST).unwrap();
    assert!(read_request(&mut engine));
    engine.write_all(HEAD).unwrap();
    engine.write_all(&token()).unwrap();
    client.read_exact(&mut vec![0; HEAD.len() + token().len()]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let ours = programs_of(child.id());
    assert!(ours.len() >= 2, "{ours:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    let failed = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        engine.write_all(&token()).is_err()
    });
    assert!(failed, "the engine goes on writing to a dead gateway");
    assert!(!matches!(client.read(&mut [0; 1]), Ok(1..)));
    drop(engine);
    let gone = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        let loaded: HashSet<u32> =
            aya::programs::loaded_programs().filter_map(|program| Some(program.ok()?.id())).collect();
        ours.is_disjoint(&loaded)
    });
    assert!(gone, "the programs outlive their gateway");
}

/// Ids of the programs that a process holds.
fn programs_of(process: u32) -> HashSet<u32> {
    let folder = std::fs::read_dir(format!("/proc/{process}/fdinfo")).unwrap();
    let texts = folder.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    let id = |text: String| text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
    texts.filter_map(id).collect()
}

#[test]
fn this_kernel_passes_the_self_test_and_it_is_remembered() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Splice::load(&place(), 64).unwrap();
    let memory = tempfile::tempdir().unwrap();
    let first = conformance(&splice, Some(memory.path()));
    eprintln!("{first:?}");
    assert_eq!(first.failed, None);
    let again = conformance(&splice, Some(memory.path()));
    assert_eq!((again.failed, again.notes, again.took), (None, first.notes, None));
}

/// Not a test: what a run of the program costs under paced streams. `PENSTOCK_STREAMS=512 PENSTOCK_GAP_US=40000 cargo test -p
/// penstock --test kernel_splice -- --ignored --nocapture paced`
#[test]
#[ignore = "a measurement"]
fn paced_streams_for_measuring() {
    if !is_root() {
        return;
    }
    let told = |name: &str, usual: usize| std::env::var(name).map_or(usual, |n| n.parse().unwrap());
    let (streams, gap_us) = (told("PENSTOCK_STREAMS", 512), told("PENSTOCK_GAP_US", 40_000) as u64);
    let splice = Living::load(4096);
    let mut all: Vec<Stream> = (0..streams).map(|_| Stream::begin(&splice, u64::MAX, false)).collect();
    let text = "x".repeat(150);
    let event =
        chunk(format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n").as_bytes());
    let _statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime).unwrap();
    let figures = || -> (u64, u64) {
        use std::os::fd::{AsFd, AsRawFd};
        let of = aya::programs::loaded_programs().filter_map(Result::ok).filter(|of| of.name() == b"splice");
        of.fold((0, 0), |(runs, ns), program| {
            let fd = program.fd().unwrap();
            let info = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
            let info = std::fs::read_to_string(info).unwrap();
            let number = |name: &str| -> u64 {
                info.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
            };
            (runs + number("run_cnt:"), ns + number("run_time_ns:"))
        })
    };
    let ticks = 64_000 / streams;
    let sockets: Vec<TcpStream> = all.iter().map(|stream| stream.client.try_clone().unwrap()).collect();
    let before = figures();
    let mut windows = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = vec![0; event.len()];
            for _ in 0..ticks {
                for mut socket in &sockets {
                    socket.read_exact(&mut buffer).unwrap();
                    assert!(buffer == event);
                }
            }
        });
        let begun = Instant::now();
        let mut last = before;
        for tick in 0..ticks {
            if tick % (ticks / 16).max(1) == 0 && tick > 0 {
                let now = figures();
                windows.push((now.1 - last.1) / (now.0 - last.0));
                last = now;
            }
            for (n, stream) in all.iter_mut().enumerate() {
                let at = Duration::from_micros(
                    gap_us * (tick as u64 * streams as u64 + n as u64) / streams as u64,
                );
                std::thread::sleep(at.saturating_sub(begun.elapsed()));
                stream.engine.write_all(&event).unwrap();
            }
        }
    });
    let after = figures();
    let runs = after.0 - before.0;
    windows.sort_unstable();
    // Other work on the machine is counted with a run that it interrupts: the quietest sixteenth says what a run costs.
    eprintln!("{streams} streams: {runs} runs of {} ns, {windows:?}", (after.1 - before.1) / runs);
    let mut tally = Tally::default();
    for Stream { client, engine, relay } in all {
        drop((client, engine));
        tally.add(&relay.join().unwrap().1);
    }
    eprintln!("{tally:?}");
    assert_eq!(tally.events, (streams * ticks) as u64);
}
