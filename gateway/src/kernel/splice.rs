//! The user half of splice: an engine's events go into the client's socket without waking the gateway.
//!
//! A connection to an engine takes a [`Slot`] before it connects. Once the relay has taken everything that the engine
//! sent, and the client's socket has everything that the relay wrote, the slot is armed; from then on each write of the
//! engine that is whole events goes to the client. The first other write ends that, whatever it is: it arrives here, in
//! order and whole. So nothing is waited for but the engine's connection: when it becomes readable, or ends, the slot is
//! taken back, and the relay goes on between two chunks.
//!
//! Nothing is pinned: killed or not, the gateway takes its programs with it.

mod conformance;
mod memory;
mod programs;
mod slot;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aya::Ebpf;
pub use penstock_common::splice::{GAP_BOUNDS_US, GAP_BUCKETS, Reason, SLOTS};
use penstock_common::splice::{Mark, Wish};

pub use self::conformance::{Outcome, conformance};
pub use self::slot::{Binding, Slot, Spliced, Terms, Unequal};
use rustix::time::{ClockId, clock_gettime};
use socket2::SockRef;

use self::memory::{Alive, Slots};
use super::account::Place;
use super::sys;

/// A slot rests before another connection gets it: longer than any run of a program that still holds it.
const REST: Duration = Duration::from_secs(1);

/// The loaded programs and their maps; one for the whole gateway.
pub struct Splice {
    slots: Slots,
    alive: Alive,
    marks: OwnedFd,
    clients: OwnedFd,
    free: Mutex<Free>,
    /// Of each slot; 0: nobody who asks for its voice.
    owners: Box<[AtomicU64]>,
    /// Generations and arms; never 0, never twice.
    next: AtomicU64,
    tags: String,
    _ebpf: Ebpf,
}

/// Slots that nobody has.
struct Free {
    /// Given back, the longest free first, and when.
    resting: VecDeque<(u32, Instant)>,
    /// Never used: their memory is not even mapped.
    fresh: Range<u32>,
}

/// A client's connection that can be spliced to. It needs no release: the kernel forgets it with the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    cookie: u64,
}

impl Splice {
    /// Loads and attaches the programs, with room for this many connections to engines.
    ///
    /// # Errors
    /// When this host or this process cannot, with what is missing.
    pub fn load(place: &Place, slots: u32) -> Result<Arc<Self>, String> {
        Self::load_at(&place.cgroup, slots)
    }

    fn load_at(cgroup: &Path, slots: u32) -> Result<Arc<Self>, String> {
        let mut ebpf = programs::load(slots)?;
        programs::attach(&mut ebpf, cgroup)?;
        let map = |name| programs::map(&ebpf, name);
        let splice = Self {
            slots: Slots::new(map("SLOTS")?, slots),
            alive: Alive::map(map("ALIVE")?.as_fd()).map_err(|e| e.to_string())?,
            marks: map("MARKS")?,
            clients: map("CLIENTS")?,
            free: Mutex::new(Free { resting: VecDeque::new(), fresh: 0..slots }),
            owners: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            next: AtomicU64::new(1),
            tags: programs::tags(&mut ebpf)?,
            _ebpf: ebpf,
        };
        splice.beat();
        Ok(Arc::new(splice))
    }

    /// Shows life. Without it nothing is spliced any more after two seconds.
    pub fn beat(&self) {
        self.alive.beat(now_ns());
    }

    /// Which programs these are.
    #[must_use]
    pub fn tags(&self) -> &str {
        &self.tags
    }

    /// Tells of each armed slot whose it is and when its last event passed: such an engine lives, although no byte of it
    /// comes here.
    pub fn voices(&self, mut tell: impl FnMut(u64, u64)) {
        for (index, owner) in (0..).zip(&self.owners) {
            let owner = owner.load(Relaxed);
            if owner != 0
                && let Some(last_ns) = self.slots.voice(index)
            {
                tell(owner, last_ns);
            }
        }
    }

    /// Makes the calls that are still to come, to no effect.
    ///
    /// # Errors
    /// What the kernel says to them: a refusal where this thread's privileges do not do.
    pub fn rehearse(self: &Arc<Self>) -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let socket = TcpStream::connect(listener.local_addr()?)?;
        self.client(&socket)?;
        self.slot(&socket).map(drop)
    }

    /// A slot for a socket that is about to connect to an engine; costs one system call. `None`: all are taken.
    ///
    /// # Errors
    /// When the kernel does not take the mark, or gives no memory.
    pub fn slot(self: &Arc<Self>, socket: &impl AsFd) -> io::Result<Option<Slot>> {
        let Some(index) = self.take() else { return Ok(None) };
        self.slots.open(index).inspect_err(|_| self.rest(index))?;
        let generation = self.unique();
        let slot = Slot::new(self.clone(), index, generation);
        self.slots.wish(index, &Wish { generation, ..Wish::default() });
        sys::store(self.marks.as_fd(), socket.as_fd(), &Mark { generation, slot: index, reserved: 0 })?;
        Ok(Some(slot))
    }

    /// Makes a client's connection known; once for each, before the first answer that may be spliced to it.
    ///
    /// # Errors
    /// When the kernel does not take it: it is no TCP socket, or speaks TLS in the kernel.
    pub fn client(&self, socket: &impl AsFd) -> io::Result<Client> {
        // A limit on what is not sent yet would make the kernel refuse what the send buffer has room for.
        SockRef::from(socket).set_tcp_notsent_lowat(u32::MAX)?;
        let cookie = sys::socket_option_u64(socket.as_fd(), libc::SO_COOKIE)?;
        sys::enter(self.clients.as_fd(), cookie, socket.as_fd())?;
        Ok(Client { cookie })
    }

    /// A slot that is given back.
    fn put(&self, index: u32) {
        if let Some(owner) = self.owners.get(index as usize) {
            owner.store(0, Relaxed);
        }
        self.slots.wish(index, &Wish::default());
        self.rest(index);
    }

    fn rest(&self, index: u32) {
        self.free().resting.push_back((index, Instant::now()));
    }

    fn take(&self) -> Option<u32> {
        let mut free = self.free();
        match free.resting.front() {
            Some((_, since)) if since.elapsed() >= REST => free.resting.pop_front().map(|(slot, _)| slot),
            _ => free.fresh.next(),
        }
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unique(&self) -> u64 {
        self.next.fetch_add(1, Relaxed)
    }
}

impl fmt::Debug for Splice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Splice").field("tags", &self.tags).finish_non_exhaustive()
    }
}

/// CLOCK_MONOTONIC, as the kernel half tells time.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Has the programs verified and this kernel tested, and drops them again.
pub(super) fn verified() -> Result<String, String> {
    let cgroup = Place::cgroup()?;
    let splice = Splice::load_at(&cgroup, conformance::SLOTS)?;
    match conformance::conformance(&splice, None) {
        Outcome { failed: Some(why), .. } => Err(format!("this kernel fails the self-test: {why}")),
        Outcome { took, notes, .. } => {
            let took = took.unwrap_or_default().as_millis();
            let notes: String = notes.iter().map(|note| format!("; {note}")).collect();
            Ok(format!("the verifier accepts them and this kernel passes the self-test, in {took} ms{notes}"))
        }
    }
}

/// A moment as the kernel half tells time.
#[must_use]
pub fn ns_of(at: Instant) -> u64 {
    now_ns().saturating_sub(u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// The other way round.
#[must_use]
pub fn instant_of(ns: u64) -> Instant {
    let now = Instant::now();
    now.checked_sub(Duration::from_nanos(now_ns().saturating_sub(ns))).unwrap_or(now)
}
