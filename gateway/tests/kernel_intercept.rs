//! Interception by the programs themselves: listening sockets are the gateway here, and clients are processes of their own.
//! Needs root, and says so without.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "kernel/mod.rs"]
mod kernel;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use kernel::{Namespace, is_root, pair, place};
use penstock::kernel::intercept::{Intercept, Scope};

const CHILD: &str = "PENSTOCK_TEST_CLIENT";

/// A process that connects where it is told, and says what it sees. Knows nothing of the gateway.
struct Client {
    child: Child,
    to: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Client {
    fn new() -> Self {
        Self::of(Command::new(std::env::current_exe().unwrap()))
    }

    fn in_namespace(namespace: &Namespace) -> Self {
        let mut command = Command::new("nsenter");
        command.args(["-t", &namespace.pid(), "-n"]).arg(std::env::current_exe().unwrap());
        Self::of(command)
    }

    fn in_cgroup(cgroup: &Path) -> Self {
        let procs = cgroup.join("cgroup.procs");
        let mut command = Command::new("sh");
        let enter = format!("echo $$ > {} && exec \"$0\" \"$@\"", procs.display());
        command.args(["-c", &enter]).arg(std::env::current_exe().unwrap());
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        command.args(["--exact", "a_client_of_its_own", "--nocapture"]).env(CHILD, "1").process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, says) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, to, says }
    }

    /// What it sees of a connect: its peer, or an error. It keeps the connection until the next one.
    fn connect(&mut self, to: impl ToString) -> String {
        self.tell("tcp", to)
    }

    fn tell(&mut self, word: &str, to: impl ToString) -> String {
        writeln!(self.to, "{word} {}", to.to_string()).unwrap();
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.says.read_line(&mut line).unwrap() > 0, "the client has ended");
            if let Some((_, seen)) = line.split_once("saw ") {
                return seen.trim_end().to_owned();
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of [`Client`]; nothing when run as a test.
#[test]
fn a_client_of_its_own() {
    if std::env::var(CHILD).is_err() {
        return;
    }
    let mut kept = None;
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (word, to) = line.split_once(' ').unwrap();
        let to: SocketAddr = to.parse().unwrap();
        let seen = match word {
            "udp" => {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.send_to(b"unconnected", to).unwrap();
                socket.connect(to).unwrap();
                socket.send(b"connected").unwrap();
                socket.peer_addr()
            }
            // Does not block, and waits for the socket to be writable.
            _ => TcpStream::connect_timeout(&to, Duration::from_secs(2)).and_then(|stream| {
                let peer = stream.peer_addr();
                assert!(stream.local_addr().unwrap() != to);
                kept = Some(stream);
                peer
            }),
        };
        match seen {
            Ok(peer) => println!("saw {peer}"),
            Err(error) => println!("saw {:?}", error.kind()),
        }
    }
    drop(kept);
}

fn listen(at: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(at).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// How many have connected since the last time.
fn came(listener: &TcpListener) -> usize {
    std::iter::from_fn(|| listener.accept().ok()).count()
}

fn everyone() -> Scope {
    Scope { within: Some("/".into()), except: Vec::new() }
}

/// A cgroup of its own below the root, removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        let path = place().cgroup.join(format!("penstock-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn name(&self) -> String {
        format!("/{}", self.0.file_name().unwrap().to_str().unwrap())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its last process may not be buried yet.
        for _ in 0..200 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// No host has these: they are for benchmarks (RFC 2544) and documentation (RFC 3849).
const VIRTUAL: &str = "198.18.77.1:80";
const VIRTUAL_6: &str = "[2001:db8:77::1]:80";

#[test]
fn a_client_that_dials_a_virtual_address_reaches_us_and_sees_what_it_dialled() {
    if !is_root() {
        return;
    }
    let namespace = Namespace::new();
    namespace.run(|| {
        let mut intercept = Intercept::load(everyone()).unwrap();
        let ((four, at), (six, at_6)) = (listen("127.0.0.1:0"), listen("[::1]:0"));
        let dialled: SocketAddr = VIRTUAL.parse().unwrap();
        intercept.redirect(dialled, at).unwrap();
        intercept.redirect(VIRTUAL_6.parse().unwrap(), at_6).unwrap();
        let mut client = Client::new();
        assert_eq!((client.connect(VIRTUAL), came(&four)), (VIRTUAL.into(), 1));
        let mapped = "[::ffff:198.18.77.1]:80";
        assert_eq!(
            (client.connect(mapped), came(&four)),
            (mapped.into(), 1),
            "a socket of IPv6 that speaks IPv4"
        );
        assert_eq!((client.connect(VIRTUAL_6), came(&six)), (VIRTUAL_6.into(), 1));
        assert_eq!(intercept.intercepted(), 3);
        // What is dialled by its own name stays what it is.
        assert_eq!((client.connect(at), came(&four)), (at.to_string(), 1));
        assert_eq!(intercept.intercepted(), 3);
    });
}

#[test]
fn other_ports_and_addresses_and_udp_are_left_alone() {
    if !is_root() {
        return;
    }
    let namespace = Namespace::new();
    // Those that are dialled are there in earnest, so that it shows where they go.
    namespace.ip("addr add 198.18.77.1/32 dev lo");
    namespace.run(|| {
        let mut intercept = Intercept::load(everyone()).unwrap();
        let ((us, at), (same, _), (other, _)) =
            (listen("127.0.0.1:0"), listen(VIRTUAL), listen("198.18.77.1:81"));
        let udp = UdpSocket::bind(VIRTUAL).unwrap();
        udp.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        intercept.redirect(VIRTUAL.parse().unwrap(), at).unwrap();
        let mut client = Client::new();
        assert_eq!(client.connect("198.18.77.1:81"), "198.18.77.1:81");
        assert_eq!(client.tell("udp", VIRTUAL), VIRTUAL);
        let mut datagram = [0; 20];
        for said in [&b"unconnected"[..], b"connected"] {
            let length = udp.recv(&mut datagram).unwrap();
            assert_eq!(&datagram[..length], said);
        }
        assert_eq!((came(&us), came(&other), came(&same)), (0, 1, 0));
        assert_eq!((client.connect(VIRTUAL), came(&us), came(&same)), (VIRTUAL.into(), 1, 0));
        // Our own connects go where they always went: an engine may have the address that clients dial.
        let own = TcpStream::connect(VIRTUAL).unwrap();
        assert_eq!((came(&us), came(&same), own.peer_addr().unwrap().to_string()), (0, 1, VIRTUAL.into()));
        // And so do those of another gateway, while it takes over.
        intercept.spare(Some(client.child.id()));
        assert_eq!((client.connect(VIRTUAL), came(&us), came(&same)), (VIRTUAL.into(), 0, 1));
        let mut next = Client::new();
        drop(std::mem::replace(&mut client, Client::new()));
        intercept.follow();
        assert_eq!((next.connect(VIRTUAL), came(&us), came(&same)), (VIRTUAL.into(), 1, 0));
        intercept.forget(VIRTUAL.parse().unwrap());
        assert_eq!((client.connect(VIRTUAL), came(&us), came(&same)), (VIRTUAL.into(), 0, 1));
        intercept.redirect(VIRTUAL.parse().unwrap(), at).unwrap();
        drop(intercept);
        assert_eq!((client.connect(VIRTUAL), came(&us), came(&same)), (VIRTUAL.into(), 0, 1));
    });
}

#[test]
fn only_processes_of_the_scope_are_meant_also_when_its_cgroup_is_made_anew() {
    if !is_root() {
        return;
    }
    let namespace = Namespace::new();
    namespace.ip("addr add 198.18.77.1/32 dev lo");
    namespace.run(|| {
        let (inside, engines) = (Cgroup::new("inside"), Cgroup::new("engines"));
        let below = Cgroup(inside.0.join("below"));
        std::fs::create_dir(&below.0).unwrap();
        let ((us, at), (there, _)) = (listen("127.0.0.1:0"), listen(VIRTUAL));
        let goes = |scope: &Intercept, client: &mut Client| {
            let _ = scope;
            assert_eq!(client.connect(VIRTUAL), VIRTUAL);
            (came(&us), came(&there))
        };
        let load = |scope| {
            let mut intercept = Intercept::load(scope).unwrap();
            intercept.redirect(VIRTUAL.parse().unwrap(), at).unwrap();
            intercept
        };
        let (mut outside, mut in_below) = (Client::new(), Client::in_cgroup(&below.0));
        let mut of_engines = Client::in_cgroup(&engines.0);

        let mut some = load(Scope { within: Some(inside.name()), except: Vec::new() });
        assert_eq!(goes(&some, &mut outside), (0, 1));
        assert_eq!(goes(&some, &mut in_below), (1, 0));
        drop(in_below);
        drop((below, inside));
        some.follow();
        let inside = Cgroup::new("inside");
        let mut anew = Client::in_cgroup(&inside.0);
        assert_eq!(goes(&some, &mut anew), (0, 1), "not yet seen");
        some.follow();
        assert_eq!(goes(&some, &mut anew), (1, 0));
        assert_eq!(goes(&some, &mut outside), (0, 1));
        drop(some);

        let but_some =
            load(Scope { within: Some("/".into()), except: vec!["/nowhere".into(), engines.name()] });
        assert_eq!(goes(&but_some, &mut outside), (1, 0));
        assert_eq!(goes(&but_some, &mut of_engines), (0, 1));
    });
}

#[test]
fn another_network_namespace_is_left_alone() {
    if !is_root() {
        return;
    }
    let (here, there) = pair();
    let dialled = "10.9.0.2:80";
    let (real, _) = there.run(|| listen(dialled));
    here.run(|| {
        let mut intercept = Intercept::load(everyone()).unwrap();
        let (us, at) = listen("127.0.0.1:0");
        intercept.redirect(dialled.parse().unwrap(), at).unwrap();
        assert_eq!((Client::new().connect(dialled), came(&us), came(&real)), (dialled.into(), 1, 0));
        let mut apart = Client::in_namespace(&there);
        assert_eq!((apart.connect(dialled), came(&us), came(&real)), (dialled.into(), 0, 1));
    });
}

#[test]
fn asking_says_whether_somebody_else_redirects_an_address_and_connects_nowhere() {
    if !is_root() {
        return;
    }
    let namespace = Namespace::new();
    namespace.run(|| {
        let (dialled, dialled_6): (SocketAddr, SocketAddr) =
            (VIRTUAL.parse().unwrap(), VIRTUAL_6.parse().unwrap());
        let ((us, at), (_, at_6)) = (listen("127.0.0.1:0"), listen("[::1]:0"));
        let before = OfAnother::start(&[(dialled, at), (dialled_6, at_6)]);
        let intercept = Intercept::load(everyone()).unwrap();
        assert_eq!((intercept.seen(dialled).unwrap(), intercept.seen(dialled_6).unwrap()), (at, at_6));
        assert_eq!(came(&us), 0);
        drop(before);
        assert_eq!(
            (intercept.seen(dialled).unwrap(), intercept.seen(dialled_6).unwrap()),
            (dialled, dialled_6)
        );
    });
}

/// Interception by another process.
struct OfAnother(Child);

const OTHER: &str = "PENSTOCK_TEST_INTERCEPTS";

impl OfAnother {
    fn start(rules: &[(SocketAddr, SocketAddr)]) -> Self {
        let rules: Vec<String> = rules.iter().map(|(from, to)| format!("{from}>{to}")).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "interception_by_another_process", "--nocapture"])
            .env(OTHER, rules.join(","))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("intercepting")));
        Self(child)
    }
}

impl Drop for OfAnother {
    fn drop(&mut self) {
        // SIGKILL: nothing is cleaned up but by the kernel.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The body of [`OfAnother`]; nothing when run as a test.
#[test]
fn interception_by_another_process() {
    let Ok(rules) = std::env::var(OTHER) else { return };
    let mut intercept = Intercept::load(everyone()).unwrap();
    for (from, to) in rules.split(',').filter_map(|rule| rule.split_once('>')) {
        intercept.redirect(from.parse().unwrap(), to.parse().unwrap()).unwrap();
    }
    println!("intercepting");
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn of_two_that_intercept_one_address_the_first_has_it_and_a_kill_leaves_it_to_the_second() {
    if !is_root() {
        return;
    }
    let namespace = Namespace::new();
    namespace.ip("addr add 198.18.77.1/32 dev lo");
    namespace.run(|| {
        let dialled: SocketAddr = VIRTUAL.parse().unwrap();
        let ((first, at), (second, at_second), (real, _)) =
            (listen("127.0.0.1:0"), listen("127.0.0.1:0"), listen(VIRTUAL));
        let (one, two) = (OfAnother::start(&[(dialled, at)]), OfAnother::start(&[(dialled, at_second)]));
        let mut client = Client::new();
        let mut goes = || {
            assert_eq!(client.connect(VIRTUAL), VIRTUAL);
            (came(&first), came(&second), came(&real))
        };
        assert_eq!(goes(), (1, 0, 0));
        drop(one);
        assert_eq!(goes(), (0, 1, 0));
        drop(two);
        assert_eq!(goes(), (0, 0, 1), "nothing is left of those that were killed");
    });
}

#[test]
fn there_is_an_end_to_the_addresses_and_what_is_forgotten_makes_room() {
    if !is_root() {
        return;
    }
    let namespace = Namespace::new();
    namespace.run(|| {
        let mut intercept = Intercept::load(Scope::default()).unwrap();
        let (_us, at) = listen("127.0.0.1:0");
        let address = |n: usize| SocketAddr::from(([198, 18, 77, 1], n as u16 + 1));
        for n in 0..penstock_common::intercept::DIALLED {
            intercept.redirect(address(n), at).unwrap();
        }
        assert!(intercept.redirect(address(9_999), at).is_err());
        intercept.forget(address(3));
        intercept.redirect(address(9_999), at).unwrap();
        intercept.forget_all();
        intercept.redirect(address(3), at).unwrap();
    });
}

#[test]
fn where_no_connect_can_prove_it_it_is_off_with_the_reason() {
    if !is_root() {
        return;
    }
    let namespace = Namespace::new();
    namespace.ip("link set lo down");
    let why = namespace.run(|| Intercept::load(everyone()).err().unwrap());
    assert!(why.contains("it does not intercept"), "{why}");
}
