//! What is left of root's privileges, and what works without them. Processes of one thread, hence no test harness.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "kernel/mod.rs"]
mod kernel;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use penstock::kernel::account::Account;
use penstock::kernel::steer::Steer;
use penstock::kernel::{Counts, own, privileges};
use rustix::thread::{CapabilitySet, capabilities};
use socket2::{Domain, Protocol, Socket, Type};

const TESTS: [(&str, fn()); 4] = [
    ("counting_works_without_privileges", counting_works_without_privileges),
    ("steering_works_without_privileges", steering_works_without_privileges),
    (
        "cap_bpf_alone_stays_on_a_kernel_that_wants_it_for_open_maps",
        cap_bpf_alone_stays_on_a_kernel_that_wants_it_for_open_maps,
    ),
    (
        "another_thread_that_would_keep_its_own_is_an_error",
        another_thread_that_would_keep_its_own_is_an_error,
    ),
];

/// Says which test a process is to run: nothing brings privileges back, so each has one of its own.
const CHILD: &str = "PENSTOCK_TEST_PRIVILEGES";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|a| a == word);
    if has("--list") {
        if !has("--ignored") {
            TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return;
    }
    if let Ok(name) = std::env::var(CHILD) {
        return TESTS.iter().find(|(of, _)| *of == name).unwrap().1();
    }
    if !kernel::is_root() {
        return;
    }
    // What cargo and nextest give: part of a name, or with --exact all of it.
    let filter = arguments.iter().find(|a| !a.starts_with('-'));
    for (name, _) in TESTS.iter().filter(|(name, _)| filter.is_none_or(|part| name.contains(part.as_str()))) {
        let child = Command::new(std::env::current_exe().unwrap()).env(CHILD, name).status().unwrap();
        assert!(child.success(), "test {name} ... {child}");
        println!("test {name} ... ok");
    }
}

/// Asserts what a later thread is born with.
fn assert_kept(kept: CapabilitySet) {
    let kept = format!("{:016x}", kept.bits());
    let status = std::thread::spawn(|| std::fs::read_to_string("/proc/thread-self/status").unwrap());
    let status = status.join().unwrap();
    let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(of(set), Some(kept.as_str()), "{set}");
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(of(set), Some("0000000000000000"), "{set}");
    }
    assert_eq!(of("NoNewPrivs:"), Some("1"));
}

fn counting_works_without_privileges() {
    let place = kernel::place();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut account = Account::load(&place).unwrap();
    privileges::drop_all(|| account.rehearse()).unwrap();
    assert_kept(CapabilitySet::NET_BIND_SERVICE);
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

fn steering_works_without_privileges() {
    let mut steer = Steer::load().unwrap();
    privileges::drop_all(|| steer.prove()).unwrap();
    assert_kept(CapabilitySet::NET_BIND_SERVICE);
    assert!(Steer::load().is_err(), "loading must need what was given back");
    // Sockets of a new listener, as a reload has them: a proof makes a group of its own.
    steer.prove().unwrap();
}

/// Such a kernel is played: each call is refused to who has not CAP_BPF.
fn cap_bpf_alone_stays_on_a_kernel_that_wants_it_for_open_maps() {
    let place = kernel::place();
    let mut account = Account::load(&place).unwrap();
    privileges::drop_all(|| match capabilities(None)?.effective.contains(CapabilitySet::BPF) {
        true => account.rehearse(),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    })
    .unwrap();
    assert_kept(CapabilitySet::NET_BIND_SERVICE | CapabilitySet::BPF);
    account.track(&[([127, 0, 0, 1], 1).into()]).unwrap();
    kernel::counts(&mut account);
    drop(account);
    assert!(!place.pins.exists());
}

fn another_thread_that_would_keep_its_own_is_an_error() {
    let (end, waits) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || waits.recv());
    let had = capabilities(None).unwrap();
    let error = privileges::drop_all(|| Ok(())).unwrap_err();
    assert!(error.contains("2 threads run already"), "{error}");
    assert_eq!(capabilities(None).unwrap(), had);
    drop(end);
    let _ = thread.join().unwrap();
}
