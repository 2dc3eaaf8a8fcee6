//! One client, one engine, and the smallest relay between them, all on one thread.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_common::framing::{Framing, Piece};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::kernel::splice::{Binding, Client, Slot, Splice, Terms, now_ns};

/// Loopback needs microseconds.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

pub(super) struct Line {
    pub(super) client: TcpStream,
    /// The relay's ends.
    pub(super) to_client: TcpStream,
    pub(super) to_engine: TcpStream,
    pub(super) engine: TcpStream,
    pub(super) slot: Slot,
    known: Client,
    taken: u64,
    /// Written by the engine and not seen by the client.
    pub(super) due: Vec<u8>,
    /// Of the relay, not yet in the client's socket.
    held: Vec<u8>,
    framing: Framing,
    ends_event: bool,
    pub(super) spliced: u64,
}

impl Line {
    pub(super) fn new(splice: &Arc<Splice>) -> Result<Self, String> {
        Self::with_buffers(splice, None).map_err(|e| e.to_string())?.bound()
    }

    /// A line whose client's side holds little.
    pub(super) fn narrow(splice: &Arc<Splice>) -> Result<Self, String> {
        Self::with_buffers(splice, Some(8 << 10)).map_err(|e| e.to_string())?.bound()
    }

    fn with_buffers(splice: &Arc<Splice>, bytes: Option<usize>) -> io::Result<Self> {
        let (front, engines) = (listen()?, listen()?);
        let client = TcpStream::connect(front.local_addr()?)?;
        let to_client = front.accept()?.0;
        if let Some(bytes) = bytes {
            SockRef::from(&client).set_recv_buffer_size(bytes)?;
            SockRef::from(&to_client).set_send_buffer_size(bytes)?;
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        let slot = splice.slot(&socket)?.ok_or_else(|| io::Error::other("no slot is free"))?;
        socket.connect(&engines.local_addr()?.into())?;
        let (to_engine, engine): (TcpStream, _) = (socket.into(), engines.accept()?.0);
        for stream in [&client, &to_client, &to_engine, &engine] {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
        }
        let known = splice.client(&to_client)?;
        Ok(Self {
            client,
            to_client,
            to_engine,
            engine,
            slot,
            known,
            taken: 0,
            due: Vec::new(),
            held: Vec::new(),
            framing: Framing::chunked(),
            ends_event: true,
            spliced: 0,
        })
    }

    fn bound(self) -> Result<Self, String> {
        let end = Instant::now() + PATIENCE;
        while self.slot.binding() != Binding::Bound {
            if Instant::now() > end {
                return Err(format!(
                    "the engine's end of a connection was not bound: {:?}",
                    self.slot.binding()
                ));
            }
            std::thread::yield_now();
        }
        Ok(self)
    }

    /// Arms where the relay stands between two events, with all of its bytes gone.
    pub(super) fn arm(&mut self, budget: u64) -> Result<(), String> {
        if self.slot.is_armed()
            || !self.held.is_empty()
            || !self.framing.is_between_chunks()
            || !self.ends_event
        {
            return Ok(());
        }
        let terms = Terms { client: self.known, taken: self.taken, budget, since_ns: now_ns() };
        self.slot.arm(&self.to_client, &terms).map_err(|e| e.to_string())
    }

    /// Has the engine write, and all others go on until it is done.
    pub(super) fn write(&mut self, mut bytes: &[u8], reads: bool) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        while !bytes.is_empty() {
            match (&self.engine).write(bytes) {
                Ok(n) => {
                    self.due.extend_from_slice(&bytes[..n]);
                    bytes = &bytes[n..];
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {}
                Err(e) => return Err(format!("the engine's write failed: {e}")),
            }
            self.relay()?;
            if reads {
                self.read()?;
            }
        }
        Ok(())
    }

    /// What the relay does when it is woken.
    pub(super) fn relay(&mut self) -> Result<(), String> {
        let mut buffer = [0; 16 << 10];
        loop {
            while !self.held.is_empty() {
                match (&self.to_client).write(&self.held) {
                    Ok(n) => drop(self.held.drain(..n)),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(e) => return Err(format!("the relay's write failed: {e}")),
                }
            }
            let n = match (&self.to_engine).read(&mut buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(format!("the relay's read failed: {e}")),
            };
            let spliced = self.slot.take(&self.to_client, &mut Vec::new()).map_err(|e| e.to_string())?;
            self.spliced += spliced.bytes;
            self.ends_event |= spliced.bytes > 0;
            if n == 0 {
                return Ok(());
            }
            self.taken += n as u64;
            self.follow(&buffer[..n])?;
            self.held.extend_from_slice(&buffer[..n]);
        }
    }

    fn follow(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            if self.framing.is_done() {
                self.framing = Framing::chunked();
            }
            match self.framing.next(bytes).map_err(|e| format!("after a hand-back: {e}"))? {
                Piece::Body(n) => {
                    // Cut inside a blank line, it is not seen as one: then nothing is armed.
                    self.ends_event = bytes[..n].ends_with(b"\n\n");
                    bytes = &bytes[n..];
                }
                Piece::Framing(n) | Piece::Trailer(n) => bytes = &bytes[n..],
                Piece::Done => {}
            }
        }
        Ok(())
    }

    /// Compares what has reached the client.
    pub(super) fn read(&mut self) -> Result<(), String> {
        let mut buffer = [0; 16 << 10];
        loop {
            match (&self.client).read(&mut buffer) {
                Ok(n) if n > 0 && self.due.starts_with(&buffer[..n]) => drop(self.due.drain(..n)),
                Ok(0) => return Err("the client's connection ended".into()),
                Ok(n) => return Err(format!("{n} bytes at the client are not what the engine wrote")),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(format!("the client's read failed: {e}")),
            }
        }
    }

    /// Until the client has everything.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        while !self.due.is_empty() || !self.held.is_empty() {
            if Instant::now() > end {
                return Err(format!("{} bytes did not reach the client", self.due.len()));
            }
            self.relay()?;
            self.read()?;
            std::thread::yield_now();
        }
        Ok(())
    }
}

fn listen() -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}
