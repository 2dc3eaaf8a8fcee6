//! The accounting programs, loaded for real: needs root, and says so without.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "kernel/mod.rs"]
mod kernel;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use kernel::{Namespace, connect, counts, is_root, pair, place, turn, until};
use penstock::kernel::account::Account;
use penstock::kernel::{Counts, own};
use penstock_common::account::ENDPOINTS;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

fn listen(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).expect("bind");
    let address = listener.local_addr().expect("address");
    (listener, address)
}

fn tracking(place: &penstock::kernel::account::Place, endpoints: &[SocketAddr]) -> Account {
    let mut account = Account::load(place).expect("load");
    account.track(endpoints).expect("track");
    account
}

/// A connection that the gateway makes.
fn connect_own(to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).expect("socket");
    own::mark(&socket);
    socket.connect(&to.into()).expect("connect");
    socket
}

#[test]
fn a_local_engine_is_counted_once_and_our_own_connections_are_taken_out() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (listener, address) = listen("127.0.0.1:0");
    let mut account = tracking(&place(), &[address]);
    let foreign = connect(&listener, address);
    let own = (connect_own(address), listener.accept().unwrap());
    let now = counts(&mut account)[0];
    assert_eq!((now.open, now.foreign_open, now.opened_total, now.drift), (2, 1, 2, 0), "{now:?}");
    drop((foreign, own));
    let now = until(&mut account, |now| now.open == 0);
    assert_eq!((now.open, now.foreign_open, now.closed_total, now.reset_total), (0, 0, 2, 0), "{now:?}");
}

#[test]
fn a_connection_is_busy_from_the_request_until_the_answer_has_come_to_rest() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (listener, address) = listen("127.0.0.1:0");
    let mut account = tracking(&place(), &[address]);
    let (mut client, mut engine) = connect(&listener, address);
    let busy = |account: &mut Account| counts(account)[0].foreign_busy;
    assert_eq!(busy(&mut account), 0, "a connection that was never used is no load");
    let mut buffer = [0; 64];
    for round in 0..20 {
        client.write_all(b"a request").unwrap();
        engine.read_exact(&mut buffer[..9]).unwrap();
        assert_eq!(busy(&mut account), 1, "round {round}: asked");
        if round % 5 == 0 {
            std::thread::sleep(Duration::from_millis(400));
            assert_eq!(busy(&mut account), 1, "round {round}: a prefill moves nothing and is load");
        }
        engine.write_all(b"an answer").unwrap();
        client.read_exact(&mut buffer[..9]).unwrap();
        // No rest: the next request follows the answer within microseconds.
    }
    // The client's kernel takes its time to acknowledge what nothing follows.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(busy(&mut account), 0, "answered in one go");
    client.write_all(b"a request").unwrap();
    engine.read_exact(&mut buffer[..9]).unwrap();
    for token in 0..10 {
        engine.write_all(b"a token").unwrap();
        client.read_exact(&mut buffer[..7]).unwrap();
        let busy = busy(&mut account);
        assert!(token == 0 || busy == 1, "token {token}: in the middle of a stream");
        std::thread::sleep(Duration::from_millis(100));
    }
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(100));
        counts(&mut account);
    }
    let now = counts(&mut account)[0];
    assert_eq!((now.foreign_open, now.foreign_busy), (1, 0), "answered and at rest: {now:?}");
    assert_eq!((now.request_bytes_total, now.answer_bytes_total), (189, 250), "{now:?}");
    assert!(now.srtt_us > 0 && now.answer_age.unwrap() >= Duration::from_millis(250), "{now:?}");
}

#[test]
fn an_engine_on_all_addresses_is_counted_for_clients_of_any() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (listener, bound) = listen("0.0.0.0:0");
    let address: SocketAddr = ([127, 0, 0, 1], bound.port()).into();
    let mut account = tracking(&place(), &[address]);
    counts(&mut account);
    let _a = connect(&listener, address);
    let _b = connect(&listener, ([127, 0, 0, 9], bound.port()).into());
    let now = counts(&mut account)[0];
    assert_eq!((now.open, now.older, now.drift), (2, 0, 0), "{now:?}");
}

#[test]
fn as_many_endpoints_are_counted_as_there_is_room_for() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (listener, first) = listen("127.0.0.1:0");
    let absent = (1..).map(|n: u16| SocketAddr::from(([127, 1, 0, 1], n)));
    let endpoints: Vec<_> = std::iter::once(first).chain(absent).take(ENDPOINTS + 44).collect();
    let mut account = tracking(&place(), &endpoints);
    let connection = connect(&listener, first);
    let mut counts = Vec::new();
    account.read(&mut counts).unwrap();
    let counted = counts.iter().filter(|counts| counts.is_some()).count();
    assert_eq!((counts.len(), counted), (ENDPOINTS + 44, ENDPOINTS));
    assert_eq!(counts[0].map(|counts| counts.open), Some(1));

    // The room of those that go is given to others.
    drop(connection);
    account.track(&endpoints[100..]).unwrap();
    account.read(&mut counts).unwrap();
    assert!(counts.iter().all(Option::is_some));
}

#[test]
fn refused_connects_and_resets_are_told_apart_from_orderly_ends() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (listener, address) = listen("127.0.0.1:0");
    let mut account = tracking(&place(), &[address]);
    let (orderly, _engine) = connect(&listener, address);
    drop((orderly, _engine));
    let (aborted, _engine) = connect(&listener, address);
    SockRef::from(&aborted).set_linger(Some(Duration::ZERO)).unwrap();
    drop(aborted);
    drop(listener);
    for _ in 0..3 {
        assert!(TcpStream::connect(address).is_err());
    }
    let now = until(&mut account, |now| now.open == 0);
    assert_eq!(
        (now.opened_total, now.closed_total, now.reset_total, now.failed_total),
        (2, 2, 1, 3),
        "{now:?}"
    );
}

#[test]
fn ipv6_and_ipv4_mapped_connections_are_counted_under_one_address() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (six, six_address) = listen("[::1]:0");
    let (dual, bound) = listen("[::]:0");
    let four: SocketAddr = ([127, 0, 0, 1], bound.port()).into();
    let mut account = tracking(&place(), &[four, six_address]);
    let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{}", bound.port()).parse().unwrap();
    let _a = connect(&dual, four);
    let _b = connect(&dual, mapped);
    let _c = connect(&six, six_address);
    let _own = connect_own(mapped);
    let now = counts(&mut account);
    assert_eq!((now[0].open, now[0].foreign_open, now[1].open), (3, 2, 1), "{now:?}");
}

#[test]
fn the_same_loopback_address_in_another_namespace_is_another_engine() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (listener, address) = listen("127.0.0.1:0");
    let mut account = tracking(&place(), &[address]);
    let other = Namespace::new();
    let _elsewhere = other.run(|| {
        let (listener, _) = listen(&address.to_string());
        connect(&listener, address)
    });
    let _here = connect(&listener, address);
    let now = counts(&mut account)[0];
    assert_eq!((now.open, now.opened_total), (1, 1), "{now:?}");
}

#[test]
fn an_engine_in_a_container_is_counted_for_clients_in_another() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (here, there) = pair();
    for address in ["10.9.0.2:8000", "[fd09::2]:8000"] {
        let address: SocketAddr = address.parse().unwrap();
        let mut account = tracking(&place(), &[address]);
        let listener = there.run(|| TcpListener::bind(address).unwrap());
        let ends: Vec<_> = here.run(|| (0..50).map(|_| connect(&listener, address)).collect());
        let own = here.run(|| connect_own(address));
        let now = until(&mut account, |now| now.open == 51);
        assert_eq!((now.open, now.foreign_open, now.drift), (51, 50, 0), "{now:?}");
        drop((ends, own, listener));
        let now = until(&mut account, |now| now.open == 0);
        assert_eq!((now.open, now.foreign_open), (0, 0), "{now:?}");
    }
}

#[test]
fn a_connect_that_a_container_refuses_has_failed() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (here, _there) = pair();
    let address: SocketAddr = "10.9.0.2:8001".parse().unwrap();
    let mut account = tracking(&place(), &[address]);
    let refused = here.run(|| (0..5).filter(|_| TcpStream::connect(address).is_err()).count());
    let now = counts(&mut account)[0];
    assert_eq!((refused, now.failed_total, now.opened_total), (5, 5, 0), "{now:?}");
}

#[test]
fn connections_older_than_the_counting_are_found_and_followed() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (listener, address) = listen("127.0.0.1:0");
    let (mut client, mut engine) = connect(&listener, address);
    let mut account = tracking(&place(), &[address]);
    let _new = connect(&listener, address);
    std::thread::sleep(Duration::from_millis(300));
    let now = counts(&mut account)[0];
    assert_eq!((now.open, now.older, now.foreign_open, now.foreign_busy), (2, 1, 2, 0), "{now:?}");
    client.write_all(b"a request").unwrap();
    engine.read_exact(&mut [0; 9]).unwrap();
    assert_eq!(counts(&mut account)[0].foreign_busy, 1);
    drop((client, engine));
    let now = until(&mut account, |now| now.older == 0);
    assert_eq!((now.open, now.older), (1, 0), "{now:?}");
}

#[test]
fn an_orderly_exit_leaves_no_pin_and_no_program() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let place = place();
    let account = tracking(&place, &[([127, 0, 0, 1], 1).into()]);
    let ids = ["program-account", "program-look"]
        .map(|name| aya::programs::ProgramInfo::from_pin(place.pins.join(name)).unwrap().id());
    let loaded = || {
        aya::programs::loaded_programs()
            .filter_map(Result::ok)
            .filter(|program| ids.contains(&program.id()))
            .count()
    };
    assert_eq!(loaded(), 2);
    drop(account);
    assert!(!place.pins.exists());
    // Programs are freed a grace period after their last holder is gone.
    let end = std::time::Instant::now() + Duration::from_secs(5);
    while loaded() > 0 && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(loaded(), 0);
}
