//! The writing half of an engine's connection: answers as the engine's behaviour says.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::answers::{Answer, answer};
use super::behaviour::{Behaviour, Then, pattern};
use super::ear::Heard;
use super::log::Seen;
use super::{Inner, log};

/// How long a connection is kept after an early answer, for the client to read it.
const LINGER: Duration = Duration::from_millis(500);

const STREAM: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Answers one request after the other; returns how the connection ends.
pub(super) async fn speak(
    socket: &mut OwnedWriteHalf,
    engine: &Arc<Inner>,
    connection: usize,
    mut heard: mpsc::UnboundedReceiver<Heard>,
) -> Then {
    // One subscription for the connection's life: a death between two answers is not missed.
    let mut deaths = engine.deaths.subscribe();
    loop {
        let left = engine.log.seen(|state| state.connections[connection].left.map(drop));
        let index = tokio::select! {
            heard = heard.recv() => match heard {
                Some(Heard::Request(index)) => index,
                Some(Heard::Nonsense) => {
                    _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
                    return Then::Close;
                }
                None => return Then::Close,
            },
            () = left => return Then::Close,
            _ = deaths.changed() => return Then::Reset,
        };
        let mut left = pin!(engine.log.seen(|state| state.connections[connection].left.map(drop)));
        let mut turn = Turn { socket, engine, index, close: false };
        // Penstock's own questions are not what tests misbehave on.
        let probe = engine.log.read(|state| state.requests[index].is_probe());
        let behaviour = if probe { Behaviour::Normal } else { engine.behaviour() };
        let then = tokio::select! {
            then = turn.take(behaviour) => match then {
                Ok(then) => then,
                // Nobody reads what is written: the ear is about to hear how it was left.
                Err(_) => {
                    left.await;
                    Then::Close
                }
            },
            () = &mut left => Then::Close,
            _ = deaths.changed() => Then::Reset,
        };
        if then != Then::Keep {
            return then;
        }
    }
}

/// One answer.
struct Turn<'a> {
    socket: &'a mut OwnedWriteHalf,
    engine: &'a Arc<Inner>,
    index: usize,
    /// The client asked for a close after this answer.
    close: bool,
}

impl Turn<'_> {
    async fn take(&mut self, behaviour: Behaviour) -> io::Result<Then> {
        if let Behaviour::AnswersEarly(status) | Behaviour::AnswersEarlyAndLeaves(status) = behaviour {
            let text =
                format!("HTTP/1.1 {status} Early\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly");
            self.socket.write_all(text.as_bytes()).await?;
            if matches!(behaviour, Behaviour::AnswersEarlyAndLeaves(_)) {
                return Ok(Then::Close);
            }
            // A lingering close: a reset at once could overtake the answer.
            self.socket.shutdown().await?;
            sleep(LINGER).await;
            return Ok(Then::Close);
        }
        if matches!(behaviour, Behaviour::ClosesReused) && self.is_reused() {
            return Ok(Then::Close);
        }
        let seen = self.whole_request().await;
        self.close = seen.head.field("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        match behaviour {
            Behaviour::Hangs => pending().await,
            Behaviour::ResetsBeforeAnswer => Ok(Then::Reset),
            Behaviour::ResetsAtWork(work) => {
                sleep(work).await;
                Ok(Then::Reset)
            }
            Behaviour::ClosesBeforeAnswer => Ok(Then::Close),
            Behaviour::Status(status) => {
                let body =
                    format!("{{\"error\":{{\"message\":\"status {status} of {}\"}}}}", self.engine.name);
                self.plain(status, "application/json", body.as_bytes(), &seen).await
            }
            Behaviour::Big(length) => {
                self.plain(200, "application/octet-stream", &pattern(length), &seen).await
            }
            Behaviour::Endless => self.endless().await,
            Behaviour::Writes(writes, then) => {
                for write in writes {
                    self.write_and_rest(&write).await?;
                }
                Ok(then)
            }
            Behaviour::Repeats(chunk, times) => {
                self.socket.write_all(STREAM).await?;
                for _ in 0..times {
                    self.write_and_rest(&chunk).await?;
                    self.engine.log.write(|state: &mut log::State| state.events_sent += 1);
                }
                self.socket.write_all(b"0\r\n\r\n").await?;
                self.engine.log.write(|state: &mut log::State| state.streams_ended += 1);
                Ok(Then::Keep)
            }
            Behaviour::Raw(bytes, then) => {
                self.socket.write_all(&bytes).await?;
                Ok(then)
            }
            Behaviour::Held => {
                self.engine.stepped().await;
                self.proper(&seen, &Behaviour::Normal).await
            }
            Behaviour::Slow(wait) => {
                sleep(wait).await;
                self.proper(&seen, &Behaviour::Normal).await
            }
            behaviour => self.proper(&seen, &behaviour).await,
        }
    }

    /// The pause is one behind two of three writes.
    async fn write_and_rest(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await?;
        if fastrand::u8(0..3) > 0 {
            sleep(Duration::from_micros(fastrand::u64(0..2_000))).await;
        }
        Ok(())
    }

    fn is_reused(&self) -> bool {
        self.engine.log.read(|state| {
            let connection = state.requests[self.index].connection;
            state.requests[..self.index].iter().any(|seen| seen.connection == connection)
        })
    }

    async fn whole_request(&self) -> Seen {
        self.engine
            .log
            .seen(|state| Some(&state.requests[self.index]).filter(|s| s.is_complete()).cloned())
            .await
    }

    async fn proper(&mut self, seen: &Seen, behaviour: &Behaviour) -> io::Result<Then> {
        match answer(&self.engine.name, &self.engine.model, &self.engine.words, seen) {
            Answer::Json(status, body) => {
                self.plain(status, "application/json", body.to_string().as_bytes(), seen).await
            }
            Answer::Stream(events) => self.stream(&events, behaviour).await,
        }
    }

    async fn plain(&mut self, status: u16, kind: &str, body: &[u8], seen: &Seen) -> io::Result<Then> {
        let close = if self.close { "Connection: close\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status} Reason\r\nContent-Type: {kind}\r\n{close}X-Engine: {}\r\nContent-Length: {}\r\n\r\n",
            self.engine.name,
            body.len()
        );
        self.socket.write_all(head.as_bytes()).await?;
        if seen.method() != "HEAD" {
            self.socket.write_all(body).await?;
        }
        Ok(self.after())
    }

    /// As vLLM does: the head alone, then one chunk for each event.
    async fn stream(&mut self, events: &[String], behaviour: &Behaviour) -> io::Result<Then> {
        let kept = match behaviour {
            Behaviour::ClosesKept => "Keep-Alive: timeout=5, max=100\r\n",
            _ if self.close => "Connection: close\r\n",
            _ => "",
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{kept}X-Engine: {}\r\n\
             Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n",
            self.engine.name
        );
        self.socket.write_all(head.as_bytes()).await?;
        for (count, event) in events.iter().enumerate() {
            match behaviour {
                Behaviour::ResetsAfter(after) if *after == count => {
                    // The bytes before must be on their way: a reset may overtake them.
                    sleep(LINGER / 10).await;
                    return Ok(Then::Reset);
                }
                Behaviour::Stepped if count > 0 => self.engine.stepped().await,
                _ if count > 0 && !self.engine.pace.is_zero() => sleep(self.engine.pace).await,
                _ => {}
            }
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            self.socket.write_all(chunk.as_bytes()).await?;
            self.engine.log.write(|state: &mut log::State| state.events_sent += 1);
        }
        self.socket.write_all(b"0\r\n\r\n").await?;
        self.engine.log.write(|state: &mut log::State| state.streams_ended += 1);
        Ok(if matches!(behaviour, Behaviour::ClosesKept) { Then::Close } else { self.after() })
    }

    async fn endless(&mut self) -> io::Result<Then> {
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.socket.write_all(head.as_bytes()).await?;
        let chunk = ["10000\r\n", &"x".repeat(1 << 16), "\r\n"].concat();
        loop {
            self.socket.write_all(chunk.as_bytes()).await?;
        }
    }

    fn after(&self) -> Then {
        if self.close { Then::Close } else { Then::Keep }
    }
}
