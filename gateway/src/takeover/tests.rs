use std::net::TcpListener;
use std::os::fd::AsFd;

use super::*;

/// The two ends of a hand-over, without a place where one finds the other.
fn pair() -> (Successor, UnixStream) {
    let (there, here) = UnixStream::pair().unwrap();
    (Successor(BufReader::new(there)), here)
}

#[tokio::test]
async fn a_word_carries_its_socket_and_no_other() {
    let (there, here) = UnixStream::pair().unwrap();
    let sockets = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    for socket in &sockets {
        wire::send(&there, wire::SOCKET, Some(socket.as_fd())).await.unwrap();
    }
    wire::send(&there, wire::ALL, None).await.unwrap();
    drop(there);
    for socket in &sockets {
        let (word, copy) = wire::receive(&here).await.unwrap().unwrap();
        let copy = TcpListener::from(copy.unwrap());
        assert_eq!((word, copy.local_addr().unwrap()), (wire::SOCKET, socket.local_addr().unwrap()));
    }
    assert!(matches!(wire::receive(&here).await, Ok(Some((wire::ALL, None)))));
    assert!(matches!(wire::receive(&here).await, Ok(None)));
}

#[tokio::test]
async fn another_version_gets_no_socket() {
    let (mut successor, mut here) = pair();
    here.write_all(b"penstock takeover 2\n").await.unwrap();
    assert!(successor.give([]).await.unwrap_err().to_string().contains("another version"));
    successor.refuse().await;
    assert!(matches!(wire::receive(&here).await, Ok(Some((wire::REFUSED, None)))));
}

#[tokio::test]
async fn who_leaves_or_talks_nonsense_has_taken_nothing_over() {
    for said in ["", "serve 127.0.0.1:80", "serve nowhere\n", "drain\n", "\n"] {
        let (mut successor, mut here) = pair();
        here.write_all(said.as_bytes()).await.unwrap();
        drop(here);
        assert!(successor.serves().await.is_err(), "{said:?}");
    }
    let (mut successor, mut here) = pair();
    tokio::spawn(async move { while here.write_all(&[b'x'; 4096]).await.is_ok() {} });
    assert!(successor.serves().await.is_err(), "a line without an end");
}

#[tokio::test]
async fn the_successor_learns_whether_the_old_one_lets_go_stays_or_is_gone() {
    let address: SocketAddr = "[fe80::1%3]:80".parse().unwrap();
    for expected in [Dismissed::LetsGo, Dismissed::Refuses, Dismissed::Gone] {
        let (mut successor, here) = pair();
        let dismissed = tokio::spawn(Predecessor(here).dismiss([address].into_iter()));
        assert_eq!(successor.serves().await.unwrap(), HashSet::from([address]));
        match expected {
            Dismissed::LetsGo => successor.let_go().await,
            Dismissed::Refuses => successor.refuse().await,
            Dismissed::Gone => drop(successor),
        }
        assert_eq!(dismissed.await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_socket_may_come_with_the_address_that_it_stands_in_for() {
    let (mut successor, mut here) = pair();
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses: [SocketAddr; 2] =
        ["198.18.0.1:80".parse().unwrap(), "[2001:db8::1%4294967295]:65535".parse().unwrap()];
    let mut all: Vec<_> =
        sockets.iter().zip(addresses).map(|(socket, address)| (socket, Some(address))).collect();
    all.push((&sockets[0], None));
    let given =
        all.iter().map(|(socket, stands_for)| Given { socket: socket.as_fd(), stands_for: *stands_for });
    let (gave, took) = tokio::join!(successor.give(given), take_all(&mut here));
    gave.unwrap();
    let took: Vec<_> = took.unwrap().into_iter().map(|given| given.stands_for).collect();
    assert_eq!(took, [Some(addresses[0]), Some(addresses[1]), None]);
}

#[tokio::test]
async fn half_an_address_or_none_is_no_socket() {
    for said in ["V198.18.0.1", "Vnowhere\n", &format!("V{}\n", "1".repeat(100))] {
        let (there, mut here) = pair();
        let mut there = there.0.into_inner();
        there.write_all(said.as_bytes()).await.unwrap();
        there.shutdown().await.unwrap();
        assert!(take_all(&mut here).await.is_err(), "{said:?}");
    }
}
