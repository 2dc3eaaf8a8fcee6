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
