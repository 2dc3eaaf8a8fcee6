//! Steering by the program itself: sockets are the workers here, and their loads are what the test says. Needs root, and
//! says so without.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "kernel/mod.rs"]
mod kernel;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use kernel::{Namespace, is_root};
use penstock::kernel::steer::Steer;
use socket2::{Domain, Socket, Type};

fn group(address: SocketAddr, count: usize) -> (SocketAddr, Vec<TcpListener>) {
    let mut address = address;
    let mut sockets = Vec::new();
    for _ in 0..count {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(true).unwrap();
        }
        socket.bind(&address.into()).unwrap();
        socket.listen(1024).unwrap();
        address = socket.local_addr().unwrap().as_socket().unwrap();
        sockets.push(socket.into());
    }
    (address, sockets)
}

fn loopback(count: usize) -> (SocketAddr, Vec<TcpListener>) {
    group(([127, 0, 0, 1], 0).into(), count)
}

/// Connects so often; how many of the connections each socket has got.
fn connect(to: SocketAddr, sockets: &[TcpListener], times: usize) -> Vec<usize> {
    let clients: Vec<TcpStream> = (0..times).map(|_| TcpStream::connect(to).unwrap()).collect();
    let got = sockets.iter().map(|socket| std::iter::from_fn(|| socket.accept().ok()).count()).collect();
    drop(clients);
    got
}

#[test]
fn connections_go_to_the_least_loaded_and_what_was_given_counts_at_once() {
    if !is_root() {
        return;
    }
    let mut steer = Steer::load().unwrap();
    let (address, sockets) = loopback(4);
    steer.open(address, 4, &sockets).unwrap();
    // Nobody says anything meanwhile: what the program itself has given is all that it knows.
    assert_eq!(connect(address, &sockets, 80), [20; 4]);
    for worker in 0..4 {
        steer.seat(worker).rests();
    }
    for (worker, connections) in [30, 10, 20, 10].into_iter().enumerate() {
        steer.seat(worker).serves(connections);
    }
    assert_eq!(connect(address, &sockets, 50), [0, 20, 10, 20]);
}

#[test]
fn a_worker_whose_loop_hangs_is_passed_over_and_where_all_hang_the_hash_decides() {
    if !is_root() {
        return;
    }
    let mut steer = Steer::load().unwrap();
    let (address, sockets) = loopback(3);
    steer.open(address, 3, &sockets).unwrap();
    steer.seat(0).begins();
    steer.seat(1).serves(100);
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(connect(address, &sockets, 30), [0, 0, 30]);
    (0..3).for_each(|worker| steer.seat(worker).begins());
    std::thread::sleep(Duration::from_millis(60));
    let by_hash = connect(address, &sockets, 300);
    assert!(by_hash.iter().all(|got| (40..160).contains(got)), "{by_hash:?}");
    steer.seat(0).rests();
    assert_eq!(connect(address, &sockets, 30), [30, 0, 0]);
}

#[test]
fn each_address_has_its_own_sockets_of_the_same_workers() {
    if !is_root() {
        return;
    }
    let mut steer = Steer::load().unwrap();
    let (one, of_one) = loopback(2);
    let (six, of_six) = group("[::1]:0".parse().unwrap(), 2);
    // On all addresses, and with a socket more than there are workers.
    let (any, of_any) = group(([0, 0, 0, 0], 0).into(), 3);
    for (address, sockets) in [(one, &of_one), (six, &of_six), (any, &of_any)] {
        steer.open(address, 2, sockets).unwrap();
    }
    steer.seat(1).serves(1000);
    assert_eq!(connect(one, &of_one, 10), [10, 0]);
    assert_eq!(connect(six, &of_six, 10), [10, 0]);
    let local = SocketAddr::from(([127, 0, 0, 1], any.port()));
    assert_eq!(connect(local, &of_any, 10), [10, 0, 0]);
    steer.close(one);
    let by_hash = connect(one, &of_one, 200);
    assert!(by_hash.iter().all(|got| (50..150).contains(got)), "{by_hash:?}");
    assert_eq!(connect(six, &of_six, 10), [10, 0]);
    // What is closed makes room, however often.
    for _ in 0..200 {
        steer.open(one, 2, &of_one).unwrap();
        steer.close(one);
    }
}

#[test]
fn sockets_go_over_to_a_successors_program() {
    if !is_root() {
        return;
    }
    let (address, sockets) = loopback(2);
    let mut old = Steer::load().unwrap();
    old.open(address, 2, &sockets).unwrap();
    old.seat(0).serves(1000);
    let mut new = Steer::load().unwrap();
    assert_eq!(new.open(address, 2, &sockets).unwrap_err().kind(), std::io::ErrorKind::ResourceBusy);
    assert!(new.is_idle());
    drop(old);
    new.open(address, 2, &sockets).unwrap();
    new.seat(1).serves(1000);
    assert_eq!(connect(address, &sockets, 20), [20, 0]);
}

#[test]
fn what_is_no_group_and_what_is_too_much_is_refused_and_goes_on_without() {
    if !is_root() {
        return;
    }
    let mut steer = Steer::load().unwrap();
    let lonely = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = lonely.local_addr().unwrap();
    assert!(steer.open(address, 1, &[lonely]).is_err());
    assert!(steer.open(address, 1, &[]).is_err());
    let groups: Vec<_> = (0..=penstock_common::steer::GROUPS).map(|_| loopback(1)).collect();
    let opened = groups.iter().filter(|(address, sockets)| steer.open(*address, 1, sockets).is_ok()).count();
    assert_eq!(opened, penstock_common::steer::GROUPS);
    let (last, sockets) = groups.last().unwrap();
    assert_eq!(connect(*last, sockets, 3), [3]);
}

#[test]
fn where_no_connection_can_prove_it_it_is_off_with_the_reason() {
    if !is_root() {
        return;
    }
    // The namespace's loopback is taken down again.
    let namespace = Namespace::new();
    namespace.ip("link set lo down");
    let why = namespace.run(|| Steer::load().err().unwrap());
    assert!(why.contains("it does not steer"), "{why}");
}
