//! Counting over churn, over a `kill -9`, and shared by two gateways; and the rung of sock_diag. Needs root, and says
//! so without.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "kernel/mod.rs"]
mod kernel;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kernel::{connect, counts, is_root, pair, place, turn, until};
use penstock::kernel::account::{Account, Place};
use penstock::kernel::diag::SockDiag;
use penstock::kernel::{Counts, own};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

const CHILD: &str = "PENSTOCK_TEST_GATEWAY";

/// A gateway in a process of its own, that counts until it is told to end or is killed.
struct Gateway(Child);

impl Gateway {
    fn start(place: &Place, endpoint: SocketAddr) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_gateway_of_its_own", "--nocapture"])
            .env(CHILD, format!("{}|{}|{endpoint}", place.cgroup.display(), place.pins.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(
            lines.map_while(Result::ok).any(|line| line.contains("counting")),
            "the other gateway must count"
        );
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

/// The body of [`Gateway`]; nothing when run as a test. Makes one connection of its own.
#[test]
fn a_gateway_of_its_own() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let told: Vec<&str> = told.split('|').collect();
    let endpoint: SocketAddr = told[2].parse().unwrap();
    let mut account = Account::load(&Place { cgroup: told[0].into(), pins: told[1].into() }).unwrap();
    account.track(&[endpoint]).unwrap();
    let _own = connect_own(endpoint);
    println!("counting");
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn connect_own(to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).unwrap();
    own::mark(&socket);
    socket.connect(&to.into()).unwrap();
    socket
}

/// What `ss` sees of the engine's end.
fn ss(address: SocketAddr) -> u32 {
    let filter = format!("sport = :{}", address.port());
    let out = Command::new("ss").args(["-Htan", &filter]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let states = ["ESTAB", "CLOSE-WAIT", "LAST-ACK", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSING"];
    text.lines().filter(|line| states.iter().any(|state| line.starts_with(state))).count() as u32
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Opens, half-closes, aborts and drops connections at random; what is left is open.
fn churn(listener: &TcpListener, address: SocketAddr, times: usize, kept: &mut Vec<(TcpStream, TcpStream)>) {
    let mut random = fastrand::Rng::with_seed(times as u64);
    for _ in 0..times {
        let (mut client, engine) = connect(listener, address);
        if random.bool() {
            client.write_all(b"half a request").unwrap();
        }
        let end = if random.bool() { &client } else { &engine };
        match random.u8(0..6) {
            0 => kept.push((client, engine)),
            1 => SockRef::from(end).set_linger(Some(Duration::ZERO)).unwrap(),
            2 => {
                end.shutdown(std::net::Shutdown::Write).unwrap();
                kept.push((client, engine));
            }
            _ => {}
        }
        if kept.len() > 300 {
            kept.swap_remove(random.usize(0..kept.len()));
        }
    }
}

#[test]
fn counts_are_exact_against_ss_over_ten_thousand_connections_and_zero_at_the_end() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (listener, address) = listen();
    let mut account = Account::load(&place()).unwrap();
    account.track(&[address]).unwrap();
    let mut kept = Vec::new();
    for round in 0..10 {
        churn(&listener, address, 1000, &mut kept);
        let now = until(&mut account, |now| now.open == ss(address));
        assert_eq!((now.open, now.drift, now.older), (ss(address), 0, 0), "round {round}: {now:?}");
    }
    drop(kept);
    let now = until(&mut account, |now| now.open == 0);
    assert_eq!((now.open, now.opened_total, now.closed_total, now.drift), (0, 10_000, 10_000, 0), "{now:?}");
    assert!(now.reset_total > 1000, "{now:?}");
}

#[test]
fn counting_goes_on_over_a_kill_and_is_adopted() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (listener, address) = listen();
    let place = place();
    let gateway = Gateway::start(&place, address);
    let _of_gateway = listener.accept().unwrap();
    let before = connect(&listener, address);
    gateway.kill();
    // Nobody is there to see these; the programs are.
    let mut kept = Vec::new();
    churn(&listener, address, 1000, &mut kept);
    drop(_of_gateway);
    let mut account = Account::load(&place).unwrap();
    assert!(account.origin().contains("adopted"), "{}", account.origin());
    account.track(&[address]).unwrap();
    let now = until(&mut account, |now| now.open == ss(address));
    assert_eq!((now.open, now.opened_total, now.older, now.drift), (ss(address), 1002, 0, 0), "{now:?}");
    assert!(now.open > 100 && now.foreign_open == now.open, "{now:?}");
    drop((before, kept));
    let now = until(&mut account, |now| now.open == 0);
    assert_eq!((now.open, now.closed_total), (0, 1002), "{now:?}");
    drop(account);
    assert!(!place.pins.exists());
}

#[test]
fn two_gateways_count_once_and_each_takes_out_its_own() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (listener, address) = listen();
    let place = place();
    let mut account = Account::load(&place).unwrap();
    account.track(&[address]).unwrap();
    let other = Gateway::start(&place, address);
    let of_other = listener.accept().unwrap();
    let _own = (connect_own(address), listener.accept().unwrap());
    let _foreign = connect(&listener, address);
    let now = counts(&mut account)[0];
    assert_eq!((now.open, now.foreign_open, now.opened_total, now.drift), (3, 2, 3, 0), "{now:?}");
    other.end();
    drop(of_other);
    let now = until(&mut account, |now| now.open == 2);
    assert_eq!((now.open, now.foreign_open), (2, 1), "the other's end leaves ours counting: {now:?}");
    let _more = connect(&listener, address);
    assert_eq!(counts(&mut account)[0].open, 3);
    drop(account);
    assert!(!place.pins.exists(), "the last one removes everything");
}

#[test]
fn an_endpoint_keeps_its_counts_under_another_seat_and_over_a_reload_that_drops_it() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (listener, address) = listen();
    let place = place();
    let first = Gateway::start(&place, address);
    let second = Gateway::start(&place, address);
    let _of_both = (listener.accept().unwrap(), listener.accept().unwrap());
    first.end();
    second.kill();
    let _open = connect(&listener, address);
    // The dead one sat in the second seat, and this takes the first.
    let mut account = Account::load(&place).unwrap();
    for endpoints in [vec![address], vec![], vec![address]] {
        account.track(&endpoints).unwrap();
    }
    drop(_of_both);
    let now = until(&mut account, |now| now.open == 1);
    assert_eq!((now.open, now.opened_total, now.older), (1, 3, 0), "{now:?}");
}

#[test]
fn what_the_kernel_half_logs_comes_out_of_tracing_and_a_full_map_does_no_harm() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (listener, address) = listen();
    let place = place();
    let mut account = Account::load(&place).unwrap();
    account.track(&[address]).unwrap();
    let own = aya::maps::MapData::from_pin(place.pins.join("OWN")).unwrap();
    let mut own: aya::maps::HashMap<_, [u8; 24], u32> = aya::maps::Map::HashMap(own).try_into().unwrap();
    for n in 0..penstock_common::account::OWN_CONNECTIONS as u64 {
        let mut key = [0xff; 24];
        key[..8].copy_from_slice(&n.to_ne_bytes());
        own.insert(key, 7, 0).unwrap();
    }
    let _own = (connect_own(address), listener.accept().unwrap());
    std::thread::sleep(Duration::from_millis(1100));
    let said = tempfile::NamedTempFile::new().unwrap();
    let subscriber = tracing_subscriber::fmt().with_writer(said.reopen().unwrap()).finish();
    let now = tracing::subscriber::with_default(subscriber, || counts(&mut account)[0]);
    let said = std::fs::read_to_string(said.path()).unwrap();
    assert!(said.contains("OWN is full") && said.contains("penstock::ebpf"), "{said:?}");
    assert_eq!((now.open, now.foreign_open), (1, 0), "taken out by number: {now:?}");
}

#[test]
fn half_a_set_of_pins_is_thrown_away_and_made_anew() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (listener, address) = listen();
    let place = place();
    Gateway::start(&place, address).kill();
    std::fs::remove_file(place.pins.join("link-look")).unwrap();
    let mut account = Account::load(&place).unwrap();
    assert_eq!(account.origin(), "loaded");
    account.track(&[address]).unwrap();
    let _connection = connect(&listener, address);
    let now = counts(&mut account)[0];
    assert_eq!(now.opened_total, 1, "{now:?}");
}

#[test]
fn a_remote_engine_is_counted_by_this_hosts_ends() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    // Only the clients are in the cgroup that is counted and none is in our namespace, as with another host's engine.
    let whole = place();
    let cgroup = whole.cgroup.join(format!("penstock-test-{}", std::process::id()));
    std::fs::create_dir(&cgroup).unwrap();
    let enter = |cgroup: &std::path::Path| {
        std::fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    };
    let (here, there) = pair();
    let address: SocketAddr = "10.9.0.2:8001".parse().unwrap();
    let listener = there.run(|| TcpListener::bind(address).unwrap());
    let mut account = Account::load(&Place { cgroup: cgroup.clone(), ..whole.clone() }).unwrap();
    account.track(&[address]).unwrap();
    enter(&cgroup);
    let (mut foreign, own) = here.run(|| (TcpStream::connect(address).unwrap(), connect_own(address)));
    enter(&whole.cgroup);
    let mut engine = listener.accept().unwrap().0;
    let rest = counts(&mut account)[0];
    foreign.write_all(b"a request").unwrap();
    engine.read_exact(&mut [0; 9]).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    counts(&mut account);
    std::thread::sleep(Duration::from_millis(400));
    let asked = counts(&mut account)[0];
    engine.write_all(b"an answer").unwrap();
    foreign.read_exact(&mut [0; 9]).unwrap();
    counts(&mut account);
    std::thread::sleep(Duration::from_millis(400));
    let answered = counts(&mut account)[0];
    drop((foreign, own));
    drop(engine);
    drop(listener);
    let after = until(&mut account, |now| now.open == 0);
    drop(account);
    std::fs::remove_dir(&cgroup).unwrap();
    assert_eq!(
        (rest.open, rest.foreign_open, rest.foreign_busy, rest.opened_total),
        (2, 1, 0, 2),
        "{rest:?}"
    );
    assert_eq!((asked.foreign_busy, answered.foreign_busy), (1, 0), "{asked:?} {answered:?}");
    assert_eq!(after.open, 0, "{after:?}");
}

#[test]
fn sock_diag_alone_sees_what_is_open_and_busy_and_takes_out_our_own() {
    let _turn = turn();
    let (listener, address) = listen();
    let mut diag = SockDiag::open().unwrap();
    diag.track(&[address]).unwrap();
    let (mut client, engine) = connect(&listener, address);
    let _own = (connect_own(address), listener.accept().unwrap());
    std::thread::sleep(Duration::from_millis(300));
    let now = counts(&mut diag)[0];
    assert_eq!((now.open, now.foreign_open, now.foreign_busy), (2, 1, 0), "{now:?}");
    client.write_all(b"a request").unwrap();
    std::thread::sleep(Duration::from_millis(400));
    let now = counts(&mut diag)[0];
    assert_eq!((now.foreign_busy, now.request_bytes_total), (1, 9), "{now:?}");
    drop((client, engine));
    let now = until(&mut diag, |now| now.open == 1);
    assert_eq!((now.open, now.opened_total, now.closed_total), (1, 2, 1), "{now:?}");
}

#[test]
fn reading_keeps_up_while_connections_come_and_go() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (listener, address) = listen();
    let mut account = Account::load(&place()).unwrap();
    account.track(&[address]).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut kept = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                churn(&listener, address, 50, &mut kept);
            }
        });
        let mut last = counts(&mut account)[0];
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(5));
            let now = counts(&mut account)[0];
            assert!(now.opened_total >= last.opened_total && now.closed_total >= last.closed_total);
            assert!(now.request_bytes_total >= last.request_bytes_total && now.open <= 310, "{now:?}");
            assert_eq!(now.older, 0, "a connection that just ended is not an old one");
            last = now;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(until(&mut account, |now| now.open == 0).open, 0);
}
