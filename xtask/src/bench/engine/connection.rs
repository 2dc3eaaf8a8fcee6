//! One connection to an engine: request after request, until the other side leaves.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::super::answer::{Times, now_ns};
use super::super::ask::{Ask, HEADER, Reply};
use super::super::http::{Framing, Head};
use super::{Engine, Expected, STATS_PATH};

/// Grown to [`LARGE`] for bodies that do not fit: most connections are idle or small.
const SMALL: usize = 16 << 10;
const LARGE: usize = 256 << 10;

/// A request, read to its end.
enum Request {
    Asked {
        ask: Ask,
        expected: Arc<Expected>,
        times: Times,
        wrong: Option<String>,
    },
    /// Without our header: a probe, or the bench that wants to know the counts.
    Other {
        stats: bool,
    },
}

pub(super) async fn serve(stream: TcpStream, engine: Arc<Engine>) {
    // Whoever closes or breaks a connection sees it there; the load counts what was not answered.
    _ = Connection { stream, engine, buffer: vec![0; SMALL], filled: 0, last: None }.run().await;
}

struct Connection {
    stream: TcpStream,
    engine: Arc<Engine>,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were read and not yet used.
    filled: usize,
    /// Requests of one connection are mostly alike.
    last: Option<(Vec<u8>, Ask, Arc<Expected>)>,
}

impl Connection {
    async fn run(&mut self) -> Result<()> {
        self.stream.set_nodelay(true)?;
        let mut answer = Vec::with_capacity(1024);
        while let Some((request, close)) = self.request().await? {
            answer.clear();
            match request {
                Request::Other { stats } => self.other(stats, &mut answer)?,
                Request::Asked { wrong: Some(why), .. } => {
                    self.engine.wrong.fetch_add(1, Relaxed);
                    let head =
                        "HTTP/1.1 422 Unprocessable Content\r\nContent-Type: text/plain\r\nContent-Length";
                    answer.extend_from_slice(format!("{head}: {}\r\n\r\n{why}", why.len()).as_bytes());
                }
                Request::Asked { ask, expected, times, wrong: None } => {
                    self.engine.requests.fetch_add(1, Relaxed);
                    match ask.reply {
                        Reply::Events { every_us } => return self.events(&expected, every_us).await,
                        Reply::Json { after_us: 0 } => {}
                        Reply::Json { after_us } => sleep(Duration::from_micros(after_us.into())).await,
                    }
                    expected.json.write(times, &mut answer);
                }
            }
            self.stream.write_all(&answer).await?;
            if close {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next request, and whether it is the last; none at the connection's end.
    async fn request(&mut self) -> Result<Option<(Request, bool)>> {
        let length = loop {
            if let Some(head) = Head::find(self.buffer.get(..self.filled).unwrap_or_default())? {
                break head.len();
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        };
        let head_ns = now_ns();
        let (head_bytes, _) = self.buffer.split_at(length);
        let head = Head::find(head_bytes)?.context("a head was here")?;
        let framing = head.framing()?;
        let close = head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
        let Some(value) = head.header(HEADER) else {
            let stats = head.first_line().split(|byte| *byte == b' ').nth(1) == Some(STATS_PATH.as_bytes());
            self.body(framing, length, |_, _| true).await?;
            return Ok(Some((Request::Other { stats }, close)));
        };
        let known = self.last.as_ref().filter(|(last, ..)| last == value);
        let (ask, expected) = match known {
            Some((_, ask, expected)) => (*ask, Arc::clone(expected)),
            None => {
                let ask: Ask = std::str::from_utf8(value)?.parse()?;
                let expected = self.engine.expected(&ask)?;
                self.last = Some((value.to_vec(), ask, Arc::clone(&expected)));
                (ask, expected)
            }
        };
        let (same, bytes) = self.body(framing, length, |at, piece| expected.body.has(at, piece)).await?;
        let times = Times { head_ns, end_ns: now_ns() };
        self.engine.bytes.fetch_add(bytes as u64, Relaxed);
        let wrong = if ask.pool != self.engine.pool {
            Some(format!("pool {} got a request for {}", self.engine.pool.name(), ask.pool.name()))
        } else if !same || bytes != expected.body.len() {
            Some(format!("a body of {bytes} bytes is not the one of {} that was sent", expected.body.len()))
        } else {
            None
        };
        Ok(Some((Request::Asked { ask, expected, times, wrong }, close)))
    }

    /// Reads a body to its end: whether each piece was as it should be, and how many bytes there were.
    async fn body(
        &mut self,
        mut framing: Framing,
        mut used: usize,
        is: impl Fn(usize, &[u8]) -> bool,
    ) -> Result<(bool, usize)> {
        if matches!(framing, Framing::Length(length) if length > SMALL) && self.buffer.len() < LARGE {
            self.buffer.resize(LARGE, 0);
        }
        let (mut same, mut at) = (true, 0);
        loop {
            while used < self.filled && !framing.done() {
                let piece = framing.take(self.buffer.get(used..self.filled).unwrap_or_default())?;
                same = same && is(at, piece.payload);
                at += piece.payload.len();
                used += piece.used;
            }
            if framing.done() {
                break;
            }
            (used, self.filled) = (0, 0);
            if self.fill().await? == 0 {
                bail!("the other side left within a body");
            }
        }
        self.buffer.copy_within(used..self.filled, 0);
        self.filled -= used;
        Ok((same, at))
    }

    async fn fill(&mut self) -> Result<usize> {
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let read = self.stream.read(room).await?;
        self.filled += read;
        Ok(read)
    }

    /// Events until the client leaves.
    async fn events(&mut self, expected: &Expected, every_us: u32) -> Result<()> {
        let head =
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.stream.write_all(head).await?;
        let mut ticks = interval(Duration::from_micros(every_us.into()));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut chunk = Vec::with_capacity(256);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // A client that left is noticed at once; one that says more than its request is done as well.
                _ = self.stream.readable() => match self.stream.try_read(&mut [0]) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    _ => return Ok(()),
                },
            }
            chunk.clear();
            expected.events.write_chunk(now_ns(), &mut chunk);
            self.stream.write_all(&chunk).await?;
        }
    }

    fn other(&self, stats: bool, answer: &mut Vec<u8>) -> Result<()> {
        let body = if stats {
            serde_json::to_string(&self.engine.stats())?
        } else {
            format!(
                r#"{{"object":"list","data":[{{"id":"{}","object":"model"}}]}}"#,
                self.engine.pool.model()
            )
        };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length";
        answer.extend_from_slice(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes());
        Ok(())
    }
}
