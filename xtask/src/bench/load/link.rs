//! One connection of the load: writes a request that was rendered before, reads and compares its answer.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until};

use super::super::answer::{EVENT_BYTES, Events, Json, now_ns};
use super::super::ask::{Ask, HEADER, POOL_HEADER, Reply};
use super::super::body::Body;
use super::super::http::{Framing, Head};
use super::tally::{Tally, Watch};
use super::{OVER, Shared};

const BUFFER: usize = 16 << 10;
/// A paced upload goes out in pieces of this size.
const PACED_PIECE: usize = 16 << 10;
/// Loopback addresses that connections come from in turn: 28,000 ports of one would not last for a minute of churn.
const SOURCES: usize = 200;

/// A request as it goes out, and the answer that is right.
#[derive(Debug)]
pub(super) struct Prepared {
    ask: Ask,
    /// Head and body.
    bytes: Vec<u8>,
    head_bytes: usize,
    json: Json,
    events: Events,
}

impl Prepared {
    pub(super) fn new(ask: &Ask, churn: bool) -> Result<Self> {
        let body = Body::of(ask)?;
        let close = if churn { "Connection: close\r\n" } else { "" };
        let (pool, length) = (ask.pool.name(), body.len());
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: bench.local\r\nContent-Type: application/json\r\n\
             {POOL_HEADER}: {pool}\r\n{HEADER}: {ask}\r\n{close}Content-Length: {length}\r\n\r\n"
        );
        let head_bytes = head.len();
        let mut bytes = head.into_bytes();
        bytes.append(&mut body.render());
        Ok(Self {
            ask: *ask,
            bytes,
            head_bytes,
            json: Json::new(ask.pool, &body),
            events: Events::new(ask.pool),
        })
    }
}

/// What the connections of one thread share.
pub(super) struct State {
    pub(super) shared: Arc<Shared>,
    pub(super) tally: RefCell<Tally>,
    /// One for each connection.
    pub(super) watches: Vec<Watch>,
    /// Which of all connections is this thread's first, so that threads do not all begin with the same ask.
    first: usize,
}

impl State {
    pub(super) fn new(shared: &Arc<Shared>, thread: usize) -> Result<Self> {
        let (all, threads) = (shared.plan.connections, shared.plan.threads);
        let count = all / threads + usize::from(thread < all % threads);
        let watches = (0..count).map(|_| Watch::default()).collect();
        let first = thread * all / threads;
        Ok(Self { shared: Arc::clone(shared), tally: RefCell::new(Tally::new()?), watches, first })
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut Tally)) {
        if self.shared.in_window() {
            add(&mut self.tally.borrow_mut());
        }
    }

    pub(super) fn fail(&self, error: &anyhow::Error) {
        let over = self.shared.phase.load(Relaxed) == OVER;
        self.tally.borrow_mut().fail(&format!("{error:#}"), !over);
    }
}

pub(super) struct Link<'s> {
    state: &'s State,
    /// Of this thread's connections.
    number: usize,
    /// Requests so far.
    asked: usize,
    /// To each target: one to a proxy, one to each engine where there is none.
    streams: Vec<(SocketAddr, TcpStream)>,
    /// Which of them is in use.
    current: usize,
    buffer: Vec<u8>,
    filled: usize,
    payload: Vec<u8>,
}

impl<'s> Link<'s> {
    pub(super) fn new(state: &'s State, number: usize) -> Self {
        let buffer = vec![0; BUFFER];
        Self {
            state,
            number,
            asked: 0,
            streams: Vec::new(),
            current: 0,
            buffer,
            filled: 0,
            payload: Vec::new(),
        }
    }

    /// Asks once, and takes note of what came of it; `due_ns` is when the request should begin.
    pub(super) async fn ask(&mut self, due_ns: u64) -> Result<()> {
        let shared = &*self.state.shared;
        let turn = (self.state.first + self.number + self.asked) % shared.prepared.len();
        self.asked += 1;
        let (prepared, target) =
            shared.prepared.get(turn).zip(shared.plan.targets.get(turn)).context("a target")?;
        let watch = self.state.watches.get(self.number);
        watch.inspect(|watch| watch.asked(now_ns()));
        let done = self.exchange(prepared, *target, due_ns).await;
        watch.inspect(|watch| watch.answered());
        if done.is_err() || shared.plan.churn {
            self.close();
        }
        done
    }

    async fn exchange(&mut self, prepared: &Prepared, target: SocketAddr, due_ns: u64) -> Result<()> {
        self.take_stream_to(target).await?;
        self.write(prepared).await?;
        let sent_ns = now_ns();
        let (mut framing, first_ns) = self.head().await?;
        if matches!(prepared.ask.reply, Reply::Events { .. }) {
            return self.events(framing, prepared).await;
        }
        self.payload.clear();
        while !framing.done() {
            self.piece(&mut framing).await?;
        }
        let times = prepared.json.read(&self.payload)?;
        let now = now_ns();
        self.state.count(|tally| {
            tally.requests += 1;
            tally.latency.saturating_record(now.saturating_sub(due_ns));
            tally.first_byte.saturating_record(first_ns.saturating_sub(due_ns));
            tally.lag.saturating_record(times.end_ns.saturating_sub(sent_ns));
        });
        Ok(())
    }

    async fn take_stream_to(&mut self, target: SocketAddr) -> Result<()> {
        let open = self.streams.iter().position(|(connected, _)| *connected == target);
        self.current = open.unwrap_or(self.streams.len());
        if open.is_none() {
            let source = self.state.first + self.number + self.asked;
            self.streams.push((target, connect(target, source).await?));
            self.state.tally.borrow_mut().open += 1;
            self.state.count(|tally| tally.connections += 1);
        }
        Ok(())
    }

    async fn write(&mut self, prepared: &Prepared) -> Result<()> {
        let plan = &self.state.shared.plan;
        let (_, stream) = self.streams.get_mut(self.current).context("a connection")?;
        let begin = Instant::now();
        let mut sent = 0;
        while sent < prepared.bytes.len() {
            let mut piece = prepared.bytes.get(sent..).unwrap_or_default();
            if let Some(pace) = plan.pace {
                let body = sent.saturating_sub(prepared.head_bytes);
                sleep_until(begin + Duration::from_secs_f64(body as f64 / pace as f64)).await;
                piece = piece.get(..PACED_PIECE).unwrap_or(piece);
            }
            let written = stream.write(piece).await.context("writing a request")?;
            ensure!(written > 0, "a connection that takes no bytes");
            let body = (sent + written).saturating_sub(prepared.head_bytes.max(sent));
            self.state.count(|tally| tally.bytes += body as u64);
            sent += written;
        }
        Ok(())
    }

    /// Reads the head of an answer: what follows it, and when its first byte came.
    async fn head(&mut self) -> Result<(Framing, u64)> {
        let mut first_ns = 0;
        loop {
            if let Some(head) = Head::find(self.buffer.get(..self.filled).unwrap_or_default())? {
                let status = head.first_line();
                if !status.starts_with(b"HTTP/1.1 200") {
                    bail!("{}", String::from_utf8_lossy(status));
                }
                let (framing, length) = (head.framing()?, head.len());
                self.used(length);
                return Ok((framing, first_ns));
            }
            self.fill().await?;
            if first_ns == 0 {
                first_ns = now_ns();
            }
        }
    }

    /// Adds what is there of a body to the payload, or reads more.
    async fn piece(&mut self, framing: &mut Framing) -> Result<()> {
        if self.filled == 0 {
            self.fill().await?;
        }
        let mut used = 0;
        while used < self.filled && !framing.done() {
            let piece = framing.take(self.buffer.get(used..self.filled).unwrap_or_default())?;
            self.payload.extend_from_slice(piece.payload);
            used += piece.used;
        }
        self.used(used);
        Ok(())
    }

    /// Reads events for as long as the load runs.
    async fn events(&mut self, mut framing: Framing, prepared: &Prepared) -> Result<()> {
        self.payload.clear();
        while !framing.done() {
            self.piece(&mut framing).await?;
            let now = now_ns();
            let (events, _) = self.payload.as_chunks::<EVENT_BYTES>();
            for event in events {
                let at_ns = prepared.events.read(event)?;
                self.state.count(|tally| {
                    tally.events += 1;
                    tally.event.saturating_record(now.saturating_sub(at_ns));
                });
            }
            let read = events.len() * EVENT_BYTES;
            self.payload.drain(..read);
        }
        bail!("a stream ended before the load did")
    }

    fn close(&mut self) {
        self.state.tally.borrow_mut().open -= self.streams.len() as u64;
        self.streams.clear();
        self.filled = 0;
    }

    fn used(&mut self, bytes: usize) {
        self.buffer.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }

    async fn fill(&mut self) -> Result<()> {
        let (_, stream) = self.streams.get_mut(self.current).context("a connection")?;
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let read = stream.read(room).await.context("reading an answer")?;
        ensure!(read > 0, "the connection ended before the answer did");
        self.filled += read;
        Ok(())
    }
}

async fn connect(target: SocketAddr, source: usize) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if target.ip().is_loopback() {
        let last = u8::try_from(2 + source % SOURCES)?;
        socket.bind((IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0).into())?;
    }
    let stream = socket.connect(target).await.context("connecting")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
