//! What the kernel's tests share: a place of their own for pins, namespaces, and a server that keeps what it accepts.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use penstock::kernel::account::Place;
use penstock::kernel::{Counts, EndpointCounts};
use rustix::thread::CapabilitySet;

/// Own marks are the process's: tests that count take turns.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this process may load programs; says so where it may not.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    // In a container, root may have neither.
    let has = rustix::thread::capabilities(None).expect("capget").effective;
    let may = root && has.contains(CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN);
    if !may {
        eprintln!(
            "NOT RUN: not (whole) root, and this test loads eBPF programs and makes network namespaces"
        );
    }
    may
}

/// The host's cgroup root, and pins that no gateway uses.
pub(crate) fn place() -> Place {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let found = Place::find().expect("this host must have cgroup v2 and a BPF file system");
    let name = format!("penstock-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Place { pins: found.pins.with_file_name(name), ..found }
}

/// Of endpoints that all have room to be counted.
pub(crate) fn counts(source: &mut dyn Counts) -> Vec<EndpointCounts> {
    let mut counts = Vec::new();
    source.read(&mut counts).expect("read");
    counts.into_iter().map(|counts| counts.expect("counted")).collect()
}

/// Reads until `good` or two seconds have passed; the last counts either way.
pub(crate) fn until(source: &mut dyn Counts, good: impl Fn(&EndpointCounts) -> bool) -> EndpointCounts {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        let now = counts(source)[0];
        if good(&now) || Instant::now() > end {
            return now;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A network namespace with loopback up, for as long as this lives.
pub(crate) struct Namespace {
    holder: Child,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 120"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut up = [0; 3];
        holder.stdout.as_mut().unwrap().read_exact(&mut up).expect("a network namespace");
        Self { holder }
    }

    pub(crate) fn pid(&self) -> String {
        self.holder.id().to_string()
    }

    /// Runs a command of iproute2 inside.
    pub(crate) fn ip(&self, words: &str) {
        let status = Command::new("nsenter")
            .args(["-t", &self.pid(), "-n", "ip"])
            .args(words.split(' '))
            .status()
            .expect("ip");
        assert!(status.success(), "ip {words}");
    }

    /// Runs something on a thread inside.
    pub(crate) fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let path = PathBuf::from(format!("/proc/{}/ns/net", self.pid()));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(&path).expect("namespace");
                rustix::thread::move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&namespace),
                    Some(rustix::thread::LinkNameSpaceType::Network),
                )
                .expect("setns");
                inside()
            });
            thread.join().expect("thread in a namespace")
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Two namespaces with a cable between them: `10.9.0.1` and `fd09::1` here, `.2` and `::2` there.
pub(crate) fn pair() -> (Namespace, Namespace) {
    let (here, there) = (Namespace::new(), Namespace::new());
    here.ip(&format!("link add cable type veth peer name cable netns {}", there.pid()));
    for (namespace, n) in [(&here, 1), (&there, 2)] {
        namespace.ip(&format!("addr add 10.9.0.{n}/24 dev cable"));
        namespace.ip(&format!("addr add fd09::{n}/64 dev cable nodad"));
        namespace.ip("link set cable up");
    }
    (here, there)
}

/// A connection's two ends.
pub(crate) fn connect(listener: &TcpListener, to: SocketAddr) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(to).expect("connect");
    (client, listener.accept().expect("accept").0)
}
