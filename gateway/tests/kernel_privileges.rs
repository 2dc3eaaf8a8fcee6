//! What is left of root's privileges, and what works without them. A process of one thread, hence no test harness.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "kernel/mod.rs"]
mod kernel;

use std::net::{TcpListener, TcpStream};

use penstock::kernel::account::Account;
use penstock::kernel::{Counts, own, privileges};
use socket2::{Domain, Protocol, Socket, Type};

/// CAP_NET_BIND_SERVICE is number 10.
const KEPT: &str = "0000000000000400";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|a| a == "--list") {
        if !arguments.iter().any(|a| a == "--ignored") {
            println!("counting_works_without_privileges: test");
        }
        return;
    }
    if kernel::is_root() {
        counting_works_without_privileges();
        println!("test counting_works_without_privileges ... ok");
    }
}

fn counting_works_without_privileges() {
    let place = kernel::place();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut account = Account::load(&place).unwrap();
    privileges::drop_all().unwrap();

    std::thread::scope(|scope| {
        scope.spawn(|| {
            for task in std::fs::read_dir("/proc/self/task").unwrap() {
                let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
                let of = |name: &str| {
                    status
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .map(|value| value.trim().to_owned())
                };
                for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
                    assert_eq!(of(set).as_deref(), Some(KEPT), "{set}");
                }
                assert_eq!(of("NoNewPrivs:").as_deref(), Some("1"));
            }
        });
    });
    assert!(Account::load(&kernel::place()).is_err(), "loading must need what was given back");

    // Endpoints change, own connections are marked, counts are read, all without privileges.
    account.track(&[address]).unwrap();
    let _foreign = kernel::connect(&listener, address);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    own::mark(&socket);
    socket.connect(&address.into()).unwrap();
    let _accepted = listener.accept().unwrap();
    let now = kernel::counts(&mut account)[0];
    assert_eq!((now.open, now.foreign_open, now.drift, now.older), (2, 1, 0, 0), "{now:?}");
    let second = TcpListener::bind("127.0.0.1:0").unwrap();
    account.track(&[address, second.local_addr().unwrap()]).unwrap();
    let _second = TcpStream::connect(second.local_addr().unwrap()).unwrap();
    let now = kernel::counts(&mut account);
    assert_eq!((now[0].open, now[1].open), (2, 1), "{now:?}");
    drop(account);
    assert!(!place.pins.exists(), "an orderly exit leaves nothing, without privileges too");
}
