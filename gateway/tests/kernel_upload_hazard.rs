//! Why request bodies go to engines by TCP, and not by BPF_F_INGRESS straight into the engine's queue: each test shows on
//! this very kernel what an engine would lose. One that fails says that the kernel has mended it; see "Deliberately
//! absent" in ARCHITECTURE.md. Needs root, and says so without.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "kernel/bypass.rs"]
mod bypass;
#[path = "kernel/mod.rs"]
mod kernel;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use socket2::SockRef;

use self::bypass::{Bypass, splice};
use self::kernel::is_root;

const BODY: &[u8] = b"{\"model\":\"qwen\",\"messages\":[]}";

#[test]
fn an_engine_that_reads_by_splice_waits_for_ever() {
    if !is_root() {
        return;
    }
    // docker-proxy does, which serves the ports that Docker publishes on 127.0.0.1: Go copies sockets so.
    let (mut gateway, engine) = connection();
    gateway.write_all(BODY).unwrap();
    assert_eq!(spliced(engine).recv_timeout(Duration::from_secs(5)).unwrap(), BODY);

    let (mut gateway, engine) = connection();
    let _bypass = Bypass::between(&gateway, &engine);
    let reads = spliced(engine.try_clone().unwrap());
    gateway.write_all(BODY).unwrap();
    assert!(reads.recv_timeout(Duration::from_millis(300)).is_err(), "splice(2) finds what was redirected");
    // It is there, for whoever asks otherwise.
    let mut got = [0; BODY.len()];
    assert_eq!((engine.peek(&mut got).unwrap(), &got[..]), (BODY.len(), BODY));
    drop(gateway);
    assert_eq!(reads.recv().unwrap(), b"", "to that engine the body was empty");
}

#[test]
fn an_engine_that_asks_for_all_gets_a_part() {
    if !is_root() {
        return;
    }
    for bypassed in [false, true] {
        let (mut gateway, engine) = connection();
        let _bypass = bypassed.then(|| Bypass::between(&gateway, &engine));
        let (first, rest) = BODY.split_at(10);
        let reads = std::thread::spawn(move || {
            let mut got = Vec::with_capacity(BODY.len());
            SockRef::from(&engine).recv_with_flags(got.spare_capacity_mut(), libc::MSG_WAITALL).unwrap()
        });
        gateway.write_all(first).unwrap();
        if bypassed {
            assert_eq!(reads.join().unwrap(), first.len());
        } else {
            gateway.write_all(rest).unwrap();
            assert_eq!(reads.join().unwrap(), BODY.len());
        }
    }
}

#[test]
fn an_engine_that_reads_nothing_is_given_any_amount() {
    if !is_root() {
        return;
    }
    const MUCH: usize = 16 << 20;
    for bypassed in [false, true] {
        let (gateway, engine) = connection();
        SockRef::from(&engine).set_recv_buffer_size(64 << 10).unwrap();
        SockRef::from(&gateway).set_send_buffer_size(64 << 10).unwrap();
        let _bypass = bypassed.then(|| Bypass::between(&gateway, &engine));
        let taken = fill(gateway, MUCH);
        assert_eq!(taken == MUCH, bypassed, "the engine's socket took {taken} bytes");
    }
}

#[test]
fn what_is_queued_goes_with_the_maps_and_leaves_a_hole() {
    if !is_root() {
        return;
    }
    let (mut gateway, mut engine) = connection();
    let bypass = Bypass::between(&gateway, &engine);
    gateway.write_all(BODY).unwrap();
    assert_eq!(engine.peek(&mut [0; 64]).unwrap(), BODY.len());
    drop(bypass);
    engine.set_nonblocking(true).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while engine.peek(&mut [0; 1]).is_ok() {
        assert!(Instant::now() < end, "the queue outlives the maps");
        std::thread::sleep(Duration::from_millis(5));
    }
    gateway.write_all(b"behind it").unwrap();
    drop(gateway);
    engine.set_nonblocking(false).unwrap();
    let mut got = Vec::new();
    engine.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"behind it");
}

/// The gateway's end, and the engine's.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (gateway, listener.accept().unwrap().0)
}

/// What a socket's first splice(2) finds.
fn spliced(engine: TcpStream) -> Receiver<Vec<u8>> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let (mut read, write) = std::io::pipe().unwrap();
        let mut got = vec![0; splice(&engine, &write).unwrap()];
        read.read_exact(&mut got).unwrap();
        let _ = tell.send(got);
    });
    told
}

/// Writes until the socket takes no more for a while, or took so much; how much it took.
fn fill(mut gateway: TcpStream, most: usize) -> usize {
    gateway.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let piece = vec![0; 1 << 20];
    let mut taken = 0;
    while taken < most {
        match gateway.write(&piece) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    taken
}
