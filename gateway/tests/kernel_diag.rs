//! The rung of sock_diag, across two network namespaces: from either end of a connection. Needs root, and says so without.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "kernel/mod.rs"]
mod kernel;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use kernel::{Namespace, connect, counts, is_root, pair, turn};
use penstock::kernel::diag::SockDiag;
use penstock::kernel::{BUSY_WINDOW, Counts, EndpointCounts};

/// Longer than bytes that have moved are load.
const REST: Duration = Duration::from_millis(2 * BUSY_WINDOW.as_millis() as u64);

const ADDRESSES: [&str; 2] = ["10.9.0.2:8000", "[fd09::2]:8000"];

/// Connections whose request comes in the same tick of the kernel's clock as their first segments.
const PROMPT: u32 = 8;

/// What is counted after a rest, by a gateway in namespace `of`.
fn at_rest(diag: &mut SockDiag) -> EndpointCounts {
    std::thread::sleep(REST);
    counts(diag)[0]
}

/// Connects to an engine in `there`, and asks, over and over; sock_diag looks from `of`.
fn a_silent_engine_is_busy(here: &Namespace, there: &Namespace, of: &Namespace, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = there.run(|| TcpListener::bind(address).unwrap());
    // It sees the namespace that it was opened in.
    let mut diag = of.run(|| SockDiag::open().unwrap());
    diag.track(&[address]).unwrap();
    let (mut client, mut engine) = here.run(|| connect(&listener, address));
    let _unused = here.run(|| connect(&listener, address));
    let now = at_rest(&mut diag);
    assert_eq!((now.foreign_open, now.foreign_busy), (2, 0), "nothing was asked yet: {now:?}");

    client.write_all(b"a request").unwrap();
    engine.read_exact(&mut [0; 9]).unwrap();
    for _ in 0..3 {
        let now = at_rest(&mut diag);
        assert_eq!((now.foreign_open, now.foreign_busy), (2, 1), "asked, never answered: {now:?}");
        assert!(now.request_bytes_total >= 9 && now.answer_age.is_none_or(|age| age >= REST), "{now:?}");
    }

    engine.write_all(b"an answer").unwrap();
    client.read_exact(&mut [0; 9]).unwrap();
    assert_eq!(counts(&mut diag)[0].foreign_busy, 1, "bytes moved just now");
    assert_eq!(at_rest(&mut diag).foreign_busy, 0, "answered, and at rest");

    // The next one is not even read.
    client.write_all(b"a request").unwrap();
    assert_eq!(at_rest(&mut diag).foreign_busy, 1, "asked again on a kept connection");
    drop((client, engine));
    let now = at_rest(&mut diag);
    assert_eq!((now.foreign_open, now.foreign_busy), (1, 0), "given up: {now:?}");

    let ask_at_once = || {
        let (mut client, engine) = connect(&listener, address);
        client.write_all(b"a request").unwrap();
        (client, engine)
    };
    let _prompt: Vec<_> = here.run(|| (0..PROMPT).map(|_| ask_at_once()).collect());
    let now = at_rest(&mut diag);
    assert_eq!((now.foreign_open, now.foreign_busy), (1 + PROMPT, PROMPT), "asked at once: {now:?}");
}

#[test]
fn an_engine_that_is_asked_and_silent_is_busy_as_its_own_host_sees_it() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (here, there) = pair();
    ADDRESSES.iter().for_each(|address| a_silent_engine_is_busy(&here, &there, &there, address));
}

#[test]
fn an_engine_that_is_asked_and_silent_is_busy_as_its_clients_host_sees_it() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (here, there) = pair();
    ADDRESSES.iter().for_each(|address| a_silent_engine_is_busy(&here, &there, &here, address));
}
