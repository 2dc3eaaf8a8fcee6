//! Whoever ends a stream or breaks its rules.

use std::time::Instant;

use socket2::SockRef;

use super::*;
use crate::relay::End;
use crate::stream::Stream;

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
