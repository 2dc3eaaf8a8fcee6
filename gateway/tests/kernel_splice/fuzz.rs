//! Answers of every shape on kept connections.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};

use fastrand::Rng;
use penstock_common::framing::{Framing, Piece};
use socket2::SockRef;

use super::*;
use crate::relay::serve;

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

/// Reads one answer, whole.
pub(crate) fn read_answer(stream: &mut TcpStream, slow: Option<&mut Rng>) -> Vec<u8> {
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
                        SockRef::from(&stream).set_recv_buffer_size(4096).unwrap();
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
        let mut wrote: HashMap<SocketAddr, Vec<Vec<u8>>> = HashMap::new();
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
