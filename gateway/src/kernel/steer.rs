//! The user half of steering: loads the program, puts it before the sockets of each listener, and lets each worker publish
//! its load.
//!
//! It proves itself before it is used: connections to sockets of our own must go where they are steered. Nothing is pinned:
//! the program ends with the sockets that it is before.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, ReusePortSockArray};
use aya::programs::{ProgramError, SkReuseport, SkReuseportError};
use penstock_common::steer::{Address, GROUPS, Group, Table, WORKERS, word};
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::object::{self, full, map_data, of_map, take};
use super::sys::{Pod, Words};
use super::wire;

/// Of a proof. By hash, all of them would go to one of two sockets once in 128 times.
const PROOFS: usize = 8;
/// For a connection over the loopback.
const PATIENCE: Duration = Duration::from_secs(1);

/// The loaded program and its maps.
pub struct Steer {
    ebpf: Ebpf,
    listening: ReusePortSockArray<MapData>,
    groups: HashMap<MapData, Pod<Address>, Pod<Group>>,
    words: Arc<Words>,
    /// Which part of `listening` has the sockets of an address.
    open: BTreeMap<SocketAddr, u32>,
}

/// Where one worker publishes its load.
#[derive(Clone, Debug)]
pub struct Seat {
    words: Arc<Words>,
    first: usize,
}

impl Steer {
    /// Loads the program, and proves it.
    ///
    /// # Errors
    /// When this host or this process cannot, with what is missing.
    pub fn load() -> Result<Self, String> {
        let mut steer = Self::verified()?;
        steer.prove().map_err(|e| format!("it does not steer: {e}"))?;
        Ok(steer)
    }

    fn verified() -> Result<Self, String> {
        let mut ebpf = object::load(object::loader(&["LISTENING"]).btf(None))?;
        let listening = take(&mut ebpf, "LISTENING")?.try_into().map_err(|e| full("LISTENING", &e))?;
        let groups = take(&mut ebpf, "GROUPS")?.try_into().map_err(|e| full("GROUPS", &e))?;
        let workers = take(&mut ebpf, "WORKERS")?;
        let words = Words::map(map_data(&workers)?.fd().as_fd(), size_of::<Table>() / 8)
            .map_err(|e| e.to_string())?;
        let mut steer = Self { ebpf, listening, groups, words: Arc::new(words), open: BTreeMap::new() };
        let program = steer.ebpf.program_mut("steer").ok_or("the object has no program `steer`")?;
        let program: &mut SkReuseport = program.try_into().map_err(|e| full("the program `steer`", &e))?;
        program.load().map_err(|e| full("the kernel refuses the program `steer`", &e))?;
        // Those of the other programs, which are not loaded here.
        let others: Vec<String> = steer.ebpf.maps().map(|(name, _)| name.to_owned()).collect();
        others.iter().for_each(|name| drop(steer.ebpf.take_map(name)));
        Ok(steer)
    }

    /// Where worker `number` publishes its load.
    #[must_use]
    pub fn seat(&self, number: usize) -> Seat {
        Seat { words: self.words.clone(), first: number * word::COUNT }
    }

    /// Steers the connections to an address over so many workers; worker n has the nth of its sockets. Any more of them get
    /// none.
    ///
    /// # Errors
    /// When they are no group, there is no room, or another gateway's program still has the sockets
    /// ([`io::ErrorKind::ResourceBusy`]); they then go by hash.
    pub fn open(&mut self, address: SocketAddr, workers: usize, sockets: &[TcpListener]) -> io::Result<()> {
        let is_free = |slot: &u32| self.open.values().all(|used| used != slot);
        let slot = (0..GROUPS as u32).find(is_free);
        let slot = slot.ok_or_else(|| io::Error::other(format!("at most {GROUPS} addresses are steered")))?;
        self.open.insert(address, slot);
        let done = self.fill(address, slot * WORKERS as u32, sockets.get(..workers).unwrap_or(sockets));
        if done.is_err() {
            self.close(address);
        }
        done
    }

    fn fill(&mut self, address: SocketAddr, first: u32, sockets: &[TcpListener]) -> io::Result<()> {
        let Some(any) = sockets.first() else { return Err(io::Error::other("it has no socket of its own")) };
        if !SockRef::from(any).reuse_port()? {
            return Err(io::Error::other("it was passed by a supervisor, and its workers share it"));
        }
        let program: &SkReuseport = match self.ebpf.program("steer") {
            Some(program) => program.try_into().map_err(io::Error::other)?,
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        // First: it takes the place of a predecessor's program, which then lets go of the sockets.
        program.attach(any).map_err(of_program)?;
        for (index, socket) in (first..).zip(sockets.iter().take(WORKERS)) {
            self.listening.set(index, socket, 0).map_err(of_map)?;
        }
        let workers = sockets.len().min(WORKERS) as u32;
        self.groups.insert(key(address), Pod(Group { first, workers }), 0).map_err(of_map)
    }

    /// Leaves an address to the hash, and its sockets to others.
    pub fn close(&mut self, address: SocketAddr) {
        let Some(slot) = self.open.remove(&address) else { return };
        // What is not there need not be removed.
        let _ = self.groups.remove(&key(address));
        for index in (slot * WORKERS as u32..).take(WORKERS) {
            if self.listening.clear_index(&index).is_err() {
                break;
            }
        }
    }

    /// Whether no address is steered.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// [`Counts::rehearse`](super::Counts::rehearse), and whether connections go where they are steered.
    ///
    /// # Errors
    /// What the kernel says, or that one went elsewhere.
    pub fn prove(&mut self) -> io::Result<()> {
        let any = listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = any.local_addr()?;
        let sockets = [any, listen(address)?];
        self.open(address, 2, &sockets)?;
        let (full, free) = (self.seat(0), self.seat(1));
        full.serves(u32::MAX);
        let steered = (0..PROOFS).try_fold(0, |steered, _| {
            let _client = TcpStream::connect_timeout(&address, PATIENCE)?;
            Ok(steered + usize::from(sockets[1].accept().is_ok()))
        });
        self.close(address);
        [full, free].iter().for_each(Seat::clear);
        match steered {
            Ok(PROOFS) => Ok(()),
            Ok(steered) => {
                Err(io::Error::other(format!("{steered} of {PROOFS} connections went where they should")))
            }
            Err(e) => Err(e),
        }
    }
}

impl Drop for Steer {
    fn drop(&mut self) {
        for address in self.open.keys().copied().collect::<Vec<_>>() {
            self.close(address);
        }
    }
}

impl Seat {
    /// So many connections are open.
    pub fn serves(&self, connections: u32) {
        self.store(word::OPEN, connections.into());
    }

    /// The loop goes to work.
    pub fn begins(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let now_ns = now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned();
        self.store(word::BUSY_SINCE, now_ns);
    }

    /// The loop has come round: what it was given is taken in.
    pub fn rests(&self) {
        if let Some(given) = self.words.get(self.first + word::GIVEN) {
            self.store(word::SETTLED, given.load(Relaxed));
        }
        self.store(word::BUSY_SINCE, 0);
    }

    fn clear(&self) {
        (0..word::COUNT).for_each(|word| self.store(word, 0));
    }

    fn store(&self, word: usize, value: u64) {
        if let Some(cell) = self.words.get(self.first + word) {
            cell.store(value, Relaxed);
        }
    }
}

/// Has the program verified and proved, and drops it again.
pub(super) fn verified() -> Result<String, String> {
    let steer = Steer::load()?;
    match steer.ebpf.program("steer") {
        Some(aya::programs::Program::SkReuseport(program)) => {
            let tag = program.info().map_err(|e| full("steer", &e))?.tag();
            Ok(format!("the verifier accepts it, and connections go where it steers them: steer {tag:016x}"))
        }
        _ => Err("the object has no program `steer`".into()),
    }
}

fn key(address: SocketAddr) -> Pod<Address> {
    let (ip, port) = wire(&address);
    Pod(Address { ip, port, reserved: 0 })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(PROOFS as i32)?;
    Ok(socket.into())
}

/// What the kernel said, without aya's words around it.
fn of_program(error: ProgramError) -> io::Error {
    match error {
        ProgramError::SkReuseportError(SkReuseportError::SetsockoptError { io_error, .. }) => io_error,
        error => io::Error::other(error),
    }
}
