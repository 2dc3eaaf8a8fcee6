//! Splice: what clients get is what engines wrote, byte for byte, whoever misbehaves. Needs root, and says so without.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod ends;
mod fuzz;
#[path = "../kernel/mod.rs"]
mod kernel;
mod life;
mod limits;
mod places;
mod relay;
mod stream;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Duration;

use kernel::{is_root, place, turn};
use penstock::kernel::splice::{Reason, Splice};
use relay::{Engine, Tally};

const REQUEST: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n\r\n";
const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n";

/// The programs, loaded, with a heart that beats.
struct Living(Arc<Splice>);

impl Living {
    fn load(slots: u32) -> Self {
        let splice = Splice::load(&place(), slots).unwrap();
        let heart: Weak<Splice> = Arc::downgrade(&splice);
        std::thread::spawn(move || {
            while let Some(splice) = heart.upgrade() {
                splice.beat();
                drop(splice);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self(splice)
    }
}

impl Deref for Living {
    type Target = Arc<Splice>;

    fn deref(&self) -> &Arc<Splice> {
        &self.0
    }
}

fn over(tally: &Tally, reason: Reason) -> u64 {
    tally.over[reason as usize]
}

fn chunk(payload: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", payload.len()).into_bytes();
    chunk.extend_from_slice(payload);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

fn read_request(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0; 256];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(n) if n > 0 => head.extend_from_slice(&byte[..n]),
            // Blocking or not: its send buffer became free, which wakes readers of a socket in a sockmap.
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => return false,
        }
    }
    true
}

fn listen(at: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(at).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn token() -> Vec<u8> {
    chunk(b"data: {\"choices\":[{\"delta\":{\"content\":\" token\"}}]}\n\n")
}
