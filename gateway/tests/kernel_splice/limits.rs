//! What is bounded: memory, slots, privileges, and the patience with a gateway that shows no life.

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::*;
use crate::relay::End;
use crate::stream::Stream;

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
