//! Connections as the kernel lists them: NETLINK_SOCK_DIAG.
//!
//! Serves alone where eBPF may not load, and finds what the programs cannot know: connections that are older than they
//! are. It needs no privilege, sees one network namespace, and misses a connection that lives between two looks.

mod wire;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use penstock_common::account::{Ip, Side};
use rustix::net::{RecvFlags, SendFlags};

use super::{Ages, BUSY_WINDOW, Counts, EndpointCounts, own, sys, wire};
use wire::{Info, Listed, Part};

/// The kernel answers a dump at once; a longer silence is an error.
const ANSWER: Duration = Duration::from_secs(1);

/// A netlink socket and a buffer for its answers.
pub(super) struct Diag {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Diag {
    pub(super) fn open() -> io::Result<Self> {
        let socket = sys::sock_diag_socket()?;
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, Some(ANSWER))?;
        Ok(Self { socket, buffer: vec![0; 256 * 1024] })
    }

    /// All connections that are open and have one of the ports at either end.
    fn connections(&mut self, ports: &[u16]) -> io::Result<Vec<Listed>> {
        let mut listed = self.dump(wire::OPEN, ports)?;
        listed.retain(|socket| socket.info.is_some());
        Ok(listed)
    }

    /// Where somebody listens on one of the ports.
    pub(super) fn listeners(&mut self, ports: &[u16]) -> io::Result<HashSet<(Ip, u16)>> {
        let listed = self.dump(wire::LISTEN, ports)?;
        Ok(listed
            .into_iter()
            .map(|socket| any_is_zero(socket.local))
            .filter(|end| ports.contains(&end.1))
            .collect())
    }

    fn dump(&mut self, states: u32, ports: &[u16]) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        if ports.is_empty() {
            return Ok(listed);
        }
        rustix::net::send(&self.socket, &wire::request(states, ports), SendFlags::empty())?;
        loop {
            let (length, _) = rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())?;
            let datagram = self.buffer.get(..length).unwrap_or_default();
            match wire::parse(datagram, &mut listed) {
                Part::More => {}
                Part::Done => break,
                Part::Failed(errno) => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        Ok(listed)
    }
}

/// `0.0.0.0` as `::`, which accepts IPv4 too unless it says otherwise.
fn any_is_zero(end: (Ip, u16)) -> (Ip, u16) {
    if end.0 == penstock_common::account::mapped([0; 4]) { ([0; 16], end.1) } else { end }
}

/// A connection of a tracked endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub endpoint: usize,
    pub side: Side,
    pub cookie: u64,
    pub local: (Ip, u16),
    pub remote: (Ip, u16),
    pub info: Info,
}

impl Found {
    /// Bytes of requests and of answers.
    pub(super) fn bytes(&self) -> (u64, u64) {
        match self.side {
            Side::Passive => (self.info.received, self.info.sent),
            Side::Active => (self.info.sent, self.info.received),
        }
    }

    /// Load: the newest bytes are a request's, or any moved within the window. The kernel keeps these times in ticks
    /// of 1 to 10 ms; a request that follows an answer within one tick is not seen until its answer begins.
    pub(super) fn is_busy(&self) -> bool {
        let (requested_ago, answered_ago) = match self.side {
            Side::Passive => (self.info.received_ago_ms, self.info.sent_ago_ms),
            Side::Active => (self.info.sent_ago_ms, self.info.received_ago_ms),
        };
        let newest = requested_ago.min(answered_ago);
        // One byte is the SYN.
        let asked = self.bytes().0 > 1;
        let unanswered = self.bytes().1 <= 1;
        asked && (unanswered || requested_ago < answered_ago || u128::from(newest) <= BUSY_WINDOW.as_millis())
    }
}

/// The tracked endpoints, as the list of connections is searched for them.
#[derive(Default)]
pub(super) struct Index {
    exact: HashMap<(Ip, u16), usize>,
    /// By port: the one endpoint whose engine listens on all addresses of this namespace.
    any: HashMap<u16, usize>,
    pub ports: Vec<u16>,
}

impl Index {
    pub(super) fn new(endpoints: &[SocketAddr]) -> Self {
        let exact: HashMap<_, _> = endpoints.iter().enumerate().map(|(n, e)| (wire(e), n)).collect();
        let mut ports: Vec<u16> = endpoints.iter().map(SocketAddr::port).collect();
        ports.sort_unstable();
        ports.dedup();
        Self { exact, any: HashMap::new(), ports }
    }

    /// Finds the engines that listen on all addresses: their clients may come by any.
    ///
    /// Only where the port leads to one local endpoint; what else it leads to is another host's.
    pub(super) fn learn(&mut self, diag: &mut Diag) -> io::Result<&HashMap<u16, usize>> {
        let listeners = diag.listeners(&self.ports)?;
        self.any.clear();
        for (&(ip, port), &endpoint) in &self.exact {
            if listeners.contains(&([0; 16], port)) && !listeners.contains(&(ip, port)) && is_local(ip) {
                self.any.entry(port).and_modify(|first| *first = (*first).min(endpoint)).or_insert(endpoint);
            }
        }
        Ok(&self.any)
    }

    /// The connections of tracked endpoints; one between two processes of this namespace comes twice, once a side.
    pub(super) fn find(&self, diag: &mut Diag) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for socket in diag.connections(&self.ports)? {
            let Some(info) = socket.info else { continue };
            let Listed { local, remote, cookie, .. } = socket;
            let passive = self.exact.get(&local).or_else(|| self.any.get(&local.1));
            let (endpoint, side) = match (passive, self.exact.get(&remote)) {
                (Some(&endpoint), _) => (endpoint, Side::Passive),
                (None, Some(&endpoint)) => (endpoint, Side::Active),
                (None, None) => continue,
            };
            found.push(Found { endpoint, side, cookie, local, remote, info });
        }
        Ok(found)
    }
}

/// Whether an address is this host's: a socket can be bound to it.
fn is_local(ip: Ip) -> bool {
    let ip = std::net::Ipv6Addr::from(ip);
    std::net::UdpSocket::bind((ip.to_canonical(), 0)).is_ok()
}

/// Totals and the last time that each way moved, for one endpoint.
#[derive(Default)]
struct Totals {
    /// Sockets of the last look, with their bytes.
    live: HashMap<u64, Found>,
    passive_seen: bool,
    counts: EndpointCounts,
    ended: (u64, u64, u64),
    ages: Ages,
}

/// The rung of sock_diag alone.
pub struct SockDiag {
    diag: Diag,
    index: Index,
    endpoints: Vec<SocketAddr>,
    totals: HashMap<SocketAddr, Totals>,
    learned: Option<Instant>,
}

/// How often listeners are looked for.
pub(super) const LEARN: Duration = Duration::from_secs(2);

impl SockDiag {
    /// # Errors
    /// When the kernel has no sock_diag, or forbids it.
    pub fn open() -> io::Result<Self> {
        let mut diag = Diag::open()?;
        // Some kernels take the request and then know no such family.
        diag.listeners(&[1])?;
        own::into_cookies();
        Ok(Self {
            diag,
            index: Index::default(),
            endpoints: Vec::new(),
            totals: HashMap::new(),
            learned: None,
        })
    }
}

impl SockDiag {
    /// Whether this kernel answers at all.
    pub(super) fn answers() -> io::Result<()> {
        Diag::open()?.listeners(&[1]).map(drop)
    }
}

impl Drop for SockDiag {
    fn drop(&mut self) {
        own::nowhere();
    }
}

impl Counts for SockDiag {
    fn track(&mut self, endpoints: &[SocketAddr]) -> io::Result<()> {
        self.totals.retain(|address, _| endpoints.contains(address));
        self.index = Index::new(endpoints);
        self.endpoints = endpoints.to_vec();
        self.learned = None;
        Ok(())
    }

    fn read(&mut self, counts: &mut Vec<Option<EndpointCounts>>) -> io::Result<()> {
        if self.learned.is_none_or(|at| at.elapsed() >= LEARN) {
            self.index.learn(&mut self.diag)?;
            self.learned = Some(Instant::now());
        }
        let found = self.index.find(&mut self.diag)?;
        let own: HashSet<u64> = own::among(found.iter().map(|socket| socket.cookie)).into_iter().collect();
        let ends: HashSet<_> = found
            .iter()
            .filter(|socket| own.contains(&socket.cookie))
            .map(|socket| (socket.local, socket.remote))
            .collect();
        let mut sockets: Vec<Vec<Found>> = vec![Vec::new(); self.endpoints.len()];
        for socket in found {
            if let Some(of_endpoint) = sockets.get_mut(socket.endpoint) {
                of_endpoint.push(socket);
            }
        }
        counts.clear();
        for (address, sockets) in self.endpoints.iter().zip(sockets) {
            let is_own = |socket: &Found| {
                own.contains(&socket.cookie) || ends.contains(&(socket.remote, socket.local))
            };
            counts.push(Some(self.totals.entry(*address).or_default().take(sockets, is_own)));
        }
        Ok(())
    }
}

impl Totals {
    fn take(&mut self, sockets: Vec<Found>, is_own: impl Fn(&Found) -> bool) -> EndpointCounts {
        // The engine is here: its own sockets show every client, and a local client's socket would count twice.
        self.passive_seen |= sockets.iter().any(|socket| socket.side == Side::Passive);
        let side = if self.passive_seen { Side::Passive } else { Side::Active };
        let now: HashMap<u64, Found> = sockets
            .into_iter()
            .filter(|socket| socket.side == side)
            .map(|socket| (socket.cookie, socket))
            .collect();
        for (cookie, was) in &self.live {
            if !now.contains_key(cookie) {
                let (request, answer) = was.bytes();
                self.counts.closed_total += 1;
                self.ended.0 += request;
                self.ended.1 += answer;
                self.ended.2 += u64::from(was.info.retransmits);
            }
        }
        let new = now.keys().filter(|cookie| !self.live.contains_key(cookie)).count();
        let last = self.counts;
        let counts = &mut self.counts;
        counts.opened_total += new as u64;
        counts.open = count(now.len());
        counts.foreign_open = count(now.values().filter(|socket| !is_own(socket)).count());
        counts.foreign_busy =
            count(now.values().filter(|socket| !is_own(socket) && socket.is_busy()).count());
        counts.srtt_us = mean(now.values().map(|socket| socket.info.srtt_us));
        let sum = |f: fn(&Found) -> u64| now.values().map(f).sum::<u64>();
        counts.request_bytes_total = last.request_bytes_total.max(self.ended.0 + sum(|s| s.bytes().0));
        counts.answer_bytes_total = last.answer_bytes_total.max(self.ended.1 + sum(|s| s.bytes().1));
        counts.retransmits_total =
            last.retransmits_total.max(self.ended.2 + sum(|s| u64::from(s.info.retransmits)));
        self.ages.take(counts, &last);
        self.live = now;
        *counts
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The mean of those that are not 0; 0 without any.
pub(super) fn mean(values: impl Iterator<Item = u32>) -> u32 {
    let (sum, n) =
        values.filter(|value| *value > 0).fold((0u64, 0u64), |(sum, n), v| (sum + u64::from(v), n + 1));
    u32::try_from(sum.checked_div(n).unwrap_or(0)).unwrap_or(u32::MAX)
}
