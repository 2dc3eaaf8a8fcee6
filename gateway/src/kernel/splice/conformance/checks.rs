//! What splice relies on, one function each. An answer is a note; an error keeps splice off.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use socket2::SockRef;

use super::line::{Line, PATIENCE};
use crate::kernel::splice::{Reason, Splice};

type Check = fn(&Arc<Splice>) -> Result<Option<String>, String>;

pub(super) static ALL: [(&str, Check); 7] = [
    ("byte-exact answers", answers),
    ("a slow reader", slow_reader),
    ("bytes in flight", in_flight),
    ("a client's reset", client_reset),
    ("an engine's reset", engine_reset),
    ("edge-triggered epoll", edges),
    ("FIONREAD", fionread),
];

const ANSWERS: usize = 40;

fn event(random: &mut Rng) -> Vec<u8> {
    let payload = format!("data: {}\n\n", "x".repeat(random.usize(0..600)));
    format!("{:x}\r\n{payload}\r\n", payload.len()).into_bytes()
}

/// Keep-alive answers, as engines write them and cut anywhere, with a budget that ends in the middle.
fn answers(splice: &Arc<Splice>) -> Result<Option<String>, String> {
    let mut random = Rng::with_seed(5);
    let mut line = Line::new(splice)?;
    for answer in 0..ANSWERS {
        let wild = answer % 4 == 3;
        let mut whole: Vec<Vec<u8>> = (0..random.usize(5..30)).map(|_| event(&mut random)).collect();
        if wild {
            whole.insert(3, b"007;a=\"b\"\r\n: ping\n\r\n".to_vec());
            whole.push(b"0\r\nx-sum: 1\r\n\r\n".to_vec());
            let bytes = whole.concat();
            let size = random.usize(1..300);
            whole = bytes.chunks(size).map(<[u8]>::to_vec).collect();
        } else {
            whole.push(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n".to_vec());
        }
        for write in whole {
            line.write(&write, true)?;
            // Everything that came here has been passed on: a new arm.
            line.relay()?;
            line.arm(if random.bool() { 2_000 } else { u64::MAX })?;
        }
        line.settle()?;
    }
    if line.spliced < 10_000 { Err(format!("only {} bytes were spliced", line.spliced)) } else { Ok(None) }
}

/// A client that reads nothing must stop the engine's writes from being spliced before its buffer is full.
fn slow_reader(splice: &Arc<Splice>) -> Result<Option<String>, String> {
    let mut random = Rng::with_seed(6);
    let mut line = Line::narrow(splice)?;
    line.arm(u64::MAX)?;
    for _ in 0..1000 {
        line.write(&event(&mut random), false)?;
        let reason = line.slot.progress().reason;
        if reason == Some(Reason::Full) || !line.slot.is_armed() {
            line.settle()?;
            line.arm(u64::MAX)?;
            line.write(&event(&mut random), true)?;
            return line.settle().map(|()| None);
        }
    }
    Err("a client's full send buffer is not seen".into())
}

/// What the engine wrote before the arm, and what the relay wrote, goes first.
fn in_flight(splice: &Arc<Splice>) -> Result<Option<String>, String> {
    let mut random = Rng::with_seed(7);
    let mut line = Line::new(splice)?;
    for _ in 0..50 {
        for n in 0..2 {
            let event = event(&mut random);
            let written = (&line.engine).write(&event).map_err(|e| e.to_string())?;
            line.due.extend_from_slice(&event[..written]);
            if n == 0 {
                line.arm(u64::MAX)?;
            }
        }
        let spliced = line.slot.progress();
        if spliced.bytes != 0 || spliced.reason != Some(Reason::Late) {
            return Err(format!("{} bytes overtook others", spliced.bytes));
        }
        line.settle()?;
    }
    Ok(None)
}

fn client_reset(splice: &Arc<Splice>) -> Result<Option<String>, String> {
    let mut random = Rng::with_seed(8);
    let mut line = Line::new(splice)?;
    line.arm(u64::MAX)?;
    line.write(&event(&mut random), true)?;
    line.settle()?;
    let Line { client, to_client, engine, slot, .. } = line;
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).map_err(|e| e.to_string())?;
    drop(client);
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if (&engine).write(&event(&mut random)).is_err() || slot.progress().reason.is_some() {
            drop(to_client);
            return Ok(None);
        }
    }
    Err("an engine goes on writing into a connection that was reset".into())
}

fn engine_reset(splice: &Arc<Splice>) -> Result<Option<String>, String> {
    let mut random = Rng::with_seed(9);
    let mut line = Line::new(splice)?;
    line.arm(u64::MAX)?;
    for _ in 0..5 {
        line.write(&event(&mut random), false)?;
    }
    let Line { mut client, to_client: _held, to_engine, engine, slot, due, .. } = line;
    let spliced = slot.progress().bytes;
    SockRef::from(&engine).set_linger(Some(Duration::ZERO)).map_err(|e| e.to_string())?;
    drop(engine);
    client.set_nonblocking(false).map_err(|e| e.to_string())?;
    client.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
    let mut got = vec![0; due.len()];
    client.read_exact(&mut got).map_err(|e| format!("what was written before is lost: {e}"))?;
    if got != due || spliced != due.len() as u64 {
        return Err(format!("{spliced} of {} bytes were spliced", due.len()));
    }
    match (&to_engine).read(&mut [0; 1]) {
        Err(e) if e.kind() != io::ErrorKind::WouldBlock => Ok(None),
        other => Err(format!("the relay does not see it: {other:?}")),
    }
}

/// Each of the sockets in a map wakes its owner for each new packet.
fn edges(splice: &Arc<Splice>) -> Result<Option<String>, String> {
    let line = Line::new(splice)?;
    for (name, from, to) in [
        ("the engine", &line.to_engine, &line.engine),
        ("the relay's client side", &line.client, &line.to_client),
    ] {
        let text = |e: rustix::io::Errno| e.to_string();
        let poll = epoll::create(CreateFlags::CLOEXEC).map_err(text)?;
        epoll::add(&poll, to, EventData::new_u64(1), EventFlags::IN | EventFlags::ET).map_err(text)?;
        for n in 0..20 {
            let mut from = from;
            from.write_all(b"x").map_err(|e| e.to_string())?;
            let mut events = Vec::with_capacity(4);
            let limit = Timespec { tv_sec: 0, tv_nsec: PATIENCE.subsec_nanos().into() };
            epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&limit)).map_err(text)?;
            if events.is_empty() {
                return Err(format!("{name} was not woken by packet {n}"));
            }
            let mut to = to;
            if n % 2 == 0 && to.read(&mut [0; 64]).ok() != Some(if n == 0 { 1 } else { 2 }) {
                return Err(format!("{name} was woken without its bytes"));
            }
        }
    }
    Ok(None)
}

/// Known to say 0 in 6.18 and some 6.12 and 6.6: no engine that we know asks.
fn fionread(splice: &Arc<Splice>) -> Result<Option<String>, String> {
    let line = Line::new(splice)?;
    (&line.to_engine).write_all(b"a request").map_err(|e| e.to_string())?;
    let end = Instant::now() + PATIENCE;
    let mut peeked = [0; 16];
    while line.engine.peek(&mut peeked).ok() != Some(9) {
        if Instant::now() > end {
            return Err("a request does not reach the engine".into());
        }
    }
    let said = rustix::io::ioctl_fionread(&line.engine).map_err(|e| e.to_string())?;
    Ok((said != 9).then(|| {
        format!("this kernel says {said} where 9 bytes wait; an engine that relies on it must not be spliced")
    }))
}
