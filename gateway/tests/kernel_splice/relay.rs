//! A relay on plain sockets that splices by the book: the reference for the gateway's own.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use penstock::kernel::splice::{Binding, Client, Slot, Splice, Terms, now_ns};
use penstock_common::framing::{Framing, Piece};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// What passed how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answers: u64,
    pub(crate) relayed: u64,
    pub(crate) spliced: u64,
    pub(crate) events: u64,
    pub(crate) writes: u64,
    pub(crate) gaps: u64,
    /// By [`Reason`].
    pub(crate) over: [u64; 8],
    pub(crate) unequal: u64,
    pub(crate) bound: u64,
    /// The last answer's end, as the kernel half kept it.
    pub(crate) tail: [u8; 32],
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.answers += other.answers;
        self.relayed += other.relayed;
        self.spliced += other.spliced;
        self.events += other.events;
        self.writes += other.writes;
        self.gaps += other.gaps;
        self.unequal += other.unequal;
        self.bound += other.bound;
        for (sum, n) in self.over.iter_mut().zip(other.over) {
            *sum += n;
        }
    }
}

/// A connection to an engine, with its slot where there is one.
pub(crate) struct Engine {
    pub(crate) stream: TcpStream,
    pub(crate) slot: Option<Slot>,
    pub(crate) taken: u64,
}

impl Engine {
    pub(crate) fn connect(splice: &Arc<Splice>, to: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).unwrap();
        let slot = splice.slot(&socket).unwrap();
        socket.connect(&to.into()).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        let stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream, slot, taken: 0 }
    }

    /// Waits until the kernel half has found the other end, which may be a moment after the connect.
    pub(crate) fn is_bound(&self) -> bool {
        let slot = self.slot.as_ref().unwrap();
        (0..200).any(|_| {
            let bound = slot.binding() == Binding::Bound;
            if !bound {
                std::thread::sleep(Duration::from_millis(1));
            }
            bound
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(buffer)?;
        self.taken += n as u64;
        Ok(n)
    }
}

pub(crate) struct Relay {
    pub(crate) client: TcpStream,
    pub(crate) engine: Engine,
    pub(crate) known: Client,
    pub(crate) budget: u64,
    pub(crate) tally: Tally,
}

/// How one answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    ClientGone,
    EngineGone,
    Broken,
}

impl Relay {
    pub(crate) fn new(splice: &Arc<Splice>, client: TcpStream, engine: SocketAddr, budget: u64) -> Self {
        client.set_nodelay(true).unwrap();
        let known = splice.client(&client).unwrap();
        let engine = Engine::connect(splice, engine);
        let tally = Tally { bound: u64::from(engine.is_bound()), ..Tally::default() };
        Self { client, engine, known, budget, tally }
    }

    /// Carries requests and answers until either side is done.
    pub(crate) fn run(mut self) -> (End, Tally) {
        loop {
            match self.request() {
                Ok(true) => {}
                _ => return (End::ClientGone, self.tally),
            }
            match self.answer() {
                Ok(End::Whole) => self.tally.answers += 1,
                end => {
                    // Cancel travels.
                    let end = end.unwrap_or(End::Broken);
                    let _ = SockRef::from(&self.engine.stream).set_linger(Some(Duration::ZERO));
                    let _ = SockRef::from(&self.client).set_linger(Some(Duration::ZERO));
                    return (end, self.tally);
                }
            }
        }
    }

    fn request(&mut self) -> io::Result<bool> {
        let mut head = Vec::new();
        let mut buffer = [0; 4096];
        while !head.ends_with(b"\r\n\r\n") {
            // A blocking read of a socket in a sockmap may come back with nothing when the socket became writable.
            poll(&mut [PollFd::new(&self.client, PollFlags::IN)], None)?;
            let n = self.client.read(&mut buffer)?;
            if n == 0 {
                return Ok(false);
            }
            head.extend_from_slice(&buffer[..n]);
        }
        self.engine.stream.write_all(&head)?;
        Ok(true)
    }

    pub(crate) fn answer(&mut self) -> io::Result<End> {
        let mut framing = Framing::chunked();
        let mut head: Vec<u8> = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        let mut ends_event = false;
        let mut last = Vec::new();
        loop {
            match self.wait()? {
                Some(End::ClientGone) => {
                    self.take(&mut last);
                    return Ok(End::ClientGone);
                }
                Some(end) => return Ok(end),
                None => {}
            }
            if !self.take(&mut last) {
                return Ok(End::Broken);
            }
            let n = match self.engine.read(&mut buffer) {
                Ok(0) | Err(_) => return Ok(End::EngineGone),
                Ok(n) => n,
            };
            let mut body = &buffer[..n];
            if !head.ends_with(b"\r\n\r\n") {
                let before = head.len();
                head.extend_from_slice(body);
                let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else {
                    self.client.write_all(body)?;
                    continue;
                };
                body = &body[end + 4 - before..];
                head.truncate(end + 4);
            }
            while !body.is_empty() {
                match framing.next(body) {
                    Ok(Piece::Body(n)) => {
                        last.extend_from_slice(&body[..n]);
                        last.drain(..last.len().saturating_sub(4));
                        ends_event = last.ends_with(b"\n\n") || last.ends_with(b"\n\r\n");
                        body = &body[n..];
                    }
                    Ok(Piece::Framing(n) | Piece::Trailer(n)) => body = &body[n..],
                    Ok(Piece::Done) | Err(_) => return Ok(End::Broken),
                }
            }
            if self.client.write_all(&buffer[..n]).is_err() {
                return Ok(End::ClientGone);
            }
            self.tally.relayed += n as u64;
            if framing.is_done() {
                return Ok(End::Whole);
            }
            if framing.is_between_chunks() && ends_event {
                self.arm();
            }
        }
    }

    fn arm(&mut self) {
        let Some(slot) = &mut self.engine.slot else { return };
        if slot.binding() == Binding::Bound {
            let terms = Terms {
                client: self.known,
                taken: self.engine.taken,
                budget: self.budget,
                since_ns: now_ns(),
            };
            slot.arm(&self.client, &terms).unwrap();
        }
    }

    /// Takes the slot back; false where the client's stream is lost.
    fn take(&mut self, last: &mut Vec<u8>) -> bool {
        let Some(slot) = self.engine.slot.as_mut().filter(|slot| slot.is_armed()) else { return true };
        let mut tail = Vec::new();
        match slot.take(&self.client, &mut tail) {
            Ok(spliced) => {
                self.tally.spliced += spliced.bytes;
                self.tally.events += spliced.events;
                self.tally.writes += u64::from(spliced.writes);
                self.tally.gaps += spliced.gaps.iter().map(|n| u64::from(*n)).sum::<u64>();
                self.tally.over[spliced.reason.map_or(0, |reason| reason as usize)] += 1;
                if spliced.bytes > 0 {
                    *last = b"\n\n".to_vec();
                }
                if let Some(tail) = tail.last_chunk::<32>() {
                    self.tally.tail = *tail;
                }
                true
            }
            Err(_) => {
                self.tally.unequal += 1;
                false
            }
        }
    }

    /// Until the engine has something to say; or an end.
    fn wait(&self) -> io::Result<Option<End>> {
        loop {
            let mut fds = [
                PollFd::new(&self.engine.stream, PollFlags::IN),
                PollFd::new(&self.client, PollFlags::RDHUP),
            ];
            let limit = Timespec { tv_sec: 120, tv_nsec: 0 };
            if poll(&mut fds, Some(&limit))? == 0 {
                return Ok(Some(End::Broken));
            }
            if fds[1].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
                return Ok(Some(End::ClientGone));
            }
            if !fds[0].revents().is_empty() {
                return Ok(None);
            }
            if fds[1].revents().contains(PollFlags::RDHUP) {
                // Half closed: it may still read. This relay asks no more.
                let mut fds = [
                    PollFd::new(&self.engine.stream, PollFlags::IN),
                    PollFd::new(&self.client, PollFlags::empty()),
                ];
                poll(&mut fds, Some(&limit))?;
                if fds[1].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
                    return Ok(Some(End::ClientGone));
                }
                return Ok(None);
            }
        }
    }
}

/// Relays for clients that come to an address; a thread each.
pub(crate) fn serve<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    splice: &'scope Arc<Splice>,
    engine: SocketAddr,
    budget: u64,
    clients: usize,
    send_buffer: Option<usize>,
) -> (SocketAddr, std::thread::ScopedJoinHandle<'scope, Vec<(End, Tally)>>) {
    let listener = TcpListener::bind(if engine.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
    let address = listener.local_addr().unwrap();
    let all = scope.spawn(move || {
        let relays: Vec<_> = (0..clients)
            .map(|_| {
                let client = listener.accept().unwrap().0;
                if let Some(bytes) = send_buffer {
                    SockRef::from(&client).set_send_buffer_size(bytes).unwrap();
                }
                scope.spawn(move || Relay::new(splice, client, engine, budget).run())
            })
            .collect();
        relays.into_iter().map(|relay| relay.join().unwrap()).collect()
    });
    (address, all)
}
