//! The reading half of an engine's connection: takes requests apart, strictly, and notes how the other side leaves.

use std::sync::Arc;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;

use super::log::{Left, Log, Seen};
use super::strict;
use crate::wire::{Body, Head, Piece, head_end};

/// What the answering half is told: a request's place in the log, as soon as its head is there, or that the
/// bytes were no request.
pub(super) enum Heard {
    Request(usize),
    Nonsense,
}

pub(super) async fn listen(
    mut socket: OwnedReadHalf,
    log: Arc<Log>,
    connection: usize,
    heard: mpsc::UnboundedSender<Heard>,
) {
    let mut reading = Reading { log: log.clone(), connection, heard, buffer: Vec::new(), open: None };
    let mut bytes = vec![0; 64 * 1024];
    let left = loop {
        match socket.read(&mut bytes).await {
            Ok(0) => break Left::Fin,
            Err(_) => break Left::Reset,
            Ok(count) => {
                reading.buffer.extend_from_slice(&bytes[..count]);
                if let Err(why) = reading.advance() {
                    log.write(|state| state.violations.push(why));
                    _ = reading.heard.send(Heard::Nonsense);
                    reading.buffer.clear();
                }
            }
        }
    };
    log.write(|state| state.connections[connection].left = Some((left, Instant::now())));
}

struct Reading {
    log: Arc<Log>,
    connection: usize,
    heard: mpsc::UnboundedSender<Heard>,
    buffer: Vec<u8>,
    /// The request whose body is being read.
    open: Option<(usize, Body)>,
}

impl Reading {
    fn advance(&mut self) -> Result<(), String> {
        loop {
            if let Some((index, mut body)) = self.open.take() {
                match body.take(&mut self.buffer)? {
                    Some(Piece::Bytes(bytes)) => self.log.write(|state| {
                        let seen = &mut state.requests[index];
                        seen.first_body_at.get_or_insert_with(Instant::now);
                        seen.body.extend(bytes);
                    }),
                    Some(Piece::End(trailers)) => {
                        self.log.write(|state| {
                            state.requests[index].trailers = trailers;
                            state.requests[index].complete_at = Some(Instant::now());
                        });
                        continue;
                    }
                    None => {
                        self.open = Some((index, body));
                        return Ok(());
                    }
                }
                self.open = Some((index, body));
                continue;
            }
            if self.buffer.starts_with(b"\r\n") || self.buffer.starts_with(b"\n") {
                return Err("an empty line before a request".into());
            }
            let Some(end) = head_end(&self.buffer) else {
                // With bare line feeds the end of the head may never show; the engine has seen enough.
                let bare = self.buffer.windows(2).any(|two| two[1] == b'\n' && two[0] != b'\r');
                return if bare { Err("a bare LF in a head".into()) } else { Ok(()) };
            };
            let raw: Vec<u8> = self.buffer.drain(..end).collect();
            self.begin(Head::parse(&raw))?;
        }
    }

    fn begin(&mut self, head: Head) -> Result<(), String> {
        let framing = strict::judge(&head)?;
        let index = self.log.write(|state| {
            state.requests.push(Seen {
                connection: self.connection,
                head,
                body: Vec::new(),
                trailers: Vec::new(),
                head_at: Instant::now(),
                first_body_at: None,
                complete_at: None,
            });
            state.requests.len() - 1
        });
        self.open = Some((index, Body::new(framing)));
        _ = self.heard.send(Heard::Request(index));
        Ok(())
    }
}
