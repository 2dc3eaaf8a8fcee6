//! Engines in other network namespaces, on other families and protocols, with equal addresses.

use kernel::{Namespace, connect, pair};
use penstock::kernel::splice::{Binding, Terms, now_ns};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::*;
use crate::fuzz::read_answer;
use crate::relay::Relay;

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
