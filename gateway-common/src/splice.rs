//! Splice: an engine's events go into the client's socket without passing the gateway. Keys, values and limits of the
//! kernel's maps, and every decision that is taken over them; both halves compile the same lines.
//!
//! The kernel half redirects whole writes that are whole chunks of whole events, and passes everything else on to the
//! gateway, whose framing machine goes on from there. So no framing state crosses between the halves: what is
//! spliced begins and ends between two chunks, and the end of a message is always seen by the gateway.

mod chunks;
#[cfg(test)]
mod tests;

use crate::account::{Ip, is_loopback};

pub use chunks::{
    CHUNKS_PER_WRITE, Chunk, Kind, MIN_CHUNK, WINDOW, Whole, ends_event, kind, size_line, whole,
};

/// Connections to engines that can be spliced at once; beyond it they are relayed.
pub const SLOTS: usize = 8192;
/// Bytes of one write, a power of two: the verifier follows offsets of less than 16 bits, and a token is small.
pub const MAX_WRITE: u32 = 32 << 10;
/// What is kept of the end of a write. llama.cpp's usage begins 379 bytes before it.
pub const TAIL: usize = 512;
/// Shorter writes leave the tails alone, so that `[DONE]` does not push the usage out.
pub const MIN_TAILED: u32 = 64;
/// Tails of the last writes: usage may be followed by one more event.
pub const TAILS: usize = 2;
/// A gateway that has not shown life for so long gets all bytes itself.
pub const STALE_NS: u64 = 2_000_000_000;
/// What the kernel may add to a write in the books of the client's send buffer, per buffer that it fills.
const OVERHEAD: u32 = 4096;
/// Upper bounds in µs of the gaps between events; one bucket more.
pub const GAP_BOUNDS_US: [u64; GAP_BUCKETS - 1] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 150_000, 200_000, 500_000, 1_000_000,
    2_500_000, 10_000_000,
];
pub const GAP_BUCKETS: usize = 15;

/// A connection from this host to itself, by which its two ends find each other.
///
/// Equal addresses meet in different network namespaces; the two initial sequence numbers, random and known to the
/// two ends alone, do not.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    pub client: Ip,
    pub engine: Ip,
    /// The network namespace's cookie where the address means something else in each namespace, else 0.
    pub netns: u64,
    pub client_port: u16,
    pub engine_port: u16,
    /// The first sequence numbers behind the SYN.
    pub client_first: u32,
    pub engine_first: u32,
    pub reserved: u32,
}

impl Pair {
    /// The pair as either end sees it: `netns` is that end's.
    #[must_use]
    #[inline(always)]
    pub fn new(client: (Ip, u16, u32), engine: (Ip, u16, u32), netns: u64) -> Self {
        Self {
            client: client.0,
            engine: engine.0,
            netns: if is_loopback(&engine.0) { netns } else { 0 },
            client_port: client.1,
            engine_port: engine.1,
            client_first: client.2,
            engine_first: engine.2,
            reserved: 0,
        }
    }
}

/// Which slot a connection has; on the gateway's socket before it connects.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Never 0 and never the same again.
    pub generation: u64,
    pub slot: u32,
    pub reserved: u32,
}

/// What the kernel half keeps with an engine's end, out of reach of other connections: one cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    pub generation: u64,
    /// Of this socket.
    pub cookie: u64,
    pub slot: u32,
    /// The sequence number of the first byte that the engine sends.
    pub first: u32,
    /// The wish that is being followed, or was last; with what it says, for the slot may have got another owner.
    pub arm: u64,
    pub client: u64,
    pub budget: u64,
    pub want: u32,
    /// The client's sequence number behind what it was sent, once `begun`.
    pub expected: u32,
    pub begun: u32,
    pub reserved: u32,
}

/// What the user half wants of a slot. It writes `arm` last, and nothing else while `arm` is not 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// 0: pass everything. Else a number that is never the same again.
    pub arm: u64,
    pub generation: u64,
    /// Bytes of the engine that the user half has taken; the kernel half redirects only while there are no others.
    pub want: u64,
    /// Bytes that may be redirected.
    pub budget: u64,
    /// Cookie of the client's socket.
    pub client: u64,
    /// When the last event passed userspace, CLOCK_MONOTONIC.
    pub since_ns: u64,
    pub reserved: [u64; 2],
}

/// What the kernel half did for a slot's wish.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The wish that all of this belongs to.
    pub arm: u64,
    /// Bytes redirected.
    pub passed: u64,
    pub events: u64,
    /// Of the last event.
    pub last_ns: u64,
    pub gap_sum_us: u64,
    pub writes: u32,
    /// Why no more is redirected: a [`Reason`], or 0.
    pub over: u32,
    /// Writes that left a tail.
    pub tailed: u32,
    /// Those of `passed` that are no payload.
    pub framing: u32,
    /// By the number of the write that left it, modulo [`TAILS`].
    pub tail_len: [u32; TAILS],
    /// On the second cache line.
    pub gaps: [u32; GAP_BUCKETS],
    pub reserved: u32,
    /// On the third, which only the making of a connection touches: generation whose engine's end was found and can be spliced.
    pub bound: u64,
    /// Generation whose engine's end was found, and cannot: another program holds it.
    pub held: u64,
    pub padding: [u64; 6],
}

/// One element of the mapped array: one connection to an engine. Each half writes cache lines of its own.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Slot {
    pub wish: Wish,
    pub report: Report,
    pub tails: [[u8; TAIL]; TAILS],
}

const _: () = assert!(size_of::<Wish>() == 64 && size_of::<Report>() == 192 && size_of::<Bound>() == 64);

/// Why a write went to the gateway instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// The engine had sent bytes that the gateway had not taken.
    Late = 1,
    /// Not whole chunks of whole events; the end of the message is the usual case.
    Shape = 2,
    Budget = 3,
    /// The client's send buffer may not take it.
    Full = 4,
    /// The client's socket is closed, or was never registered.
    Gone = 5,
    /// The gateway shows no life.
    Stale = 6,
    /// The client's socket took other bytes than it was sent.
    Unequal = 7,
}

impl Reason {
    #[must_use]
    pub const fn of(word: u32) -> Option<Self> {
        Some(match word {
            1 => Self::Late,
            2 => Self::Shape,
            3 => Self::Budget,
            4 => Self::Full,
            5 => Self::Gone,
            6 => Self::Stale,
            7 => Self::Unequal,
            _ => return None,
        })
    }

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Shape => "shape",
            Self::Budget => "budget",
            Self::Full => "full",
            Self::Gone => "gone",
            Self::Stale => "stale",
            Self::Unequal => "unequal",
        }
    }
}

/// The client's socket, at one look.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffer {
    /// Its limit and what is in it, as the kernel books them.
    pub limit: i32,
    pub queued: i32,
    /// The next sequence number.
    pub next: u32,
}

impl Bound {
    /// Takes a wish over.
    #[inline(always)]
    pub fn follow(&mut self, wish: &Wish) {
        self.arm = wish.arm;
        self.client = wish.client;
        self.budget = wish.budget;
        self.want = wish.want as u32;
        self.begun = 0;
    }

    /// Whether a write of `len` bytes may be looked into. `sent`: bytes that the engine's socket has sent before it;
    /// `passed`: those redirected under this wish; `silent_ns`: since the gateway showed life.
    ///
    /// # Errors
    /// Why not.
    #[inline(always)]
    pub fn admits(&self, sent: u32, passed: u64, len: u32, silent_ns: u64) -> Result<(), Reason> {
        if sent != self.want {
            // What is redirected never counts as sent: one byte beside it ends the wish for good.
            Err(Reason::Late)
        } else if !(MIN_CHUNK..=MAX_WRITE).contains(&len) {
            Err(Reason::Shape)
        } else if passed + len as u64 > self.budget {
            Err(Reason::Budget)
        } else if silent_ns > STALE_NS {
            Err(Reason::Stale)
        } else {
            Ok(())
        }
    }

    /// Whether the client's socket is where the last write left it, and surely takes `len` bytes more.
    ///
    /// A write that it took in part would come again from the engine, behind our back; and an engine that
    /// does not block would spin, because its own socket stays writable.
    ///
    /// # Errors
    /// Why not.
    #[inline(always)]
    pub fn fits(&self, buffer: Buffer, len: u32) -> Result<(), Reason> {
        if self.begun != 0 && buffer.next != self.expected {
            Err(Reason::Unequal)
        } else if buffer.queued as i64 + len as i64 * 2 + OVERHEAD as i64 > buffer.limit as i64 {
            Err(Reason::Full)
        } else {
            Ok(())
        }
    }
}

impl Report {
    /// Begins anew for a wish. `arm` is to follow once the rest can be seen: the user half reads it first, at any time,
    /// and must not find the figures of the last wish under it.
    #[inline(always)]
    pub fn begin(&mut self, wish: &Wish) {
        self.passed = 0;
        self.framing = 0;
        self.events = 0;
        self.last_ns = wish.since_ns;
        self.gap_sum_us = 0;
        self.writes = 0;
        self.over = 0;
        self.gaps = [0; GAP_BUCKETS];
        self.tail_len = [0; TAILS];
        self.tailed = 0;
    }

    /// Books a redirected write. Its events share the gap before them evenly: whoever waited for them waited once.
    #[inline(always)]
    pub fn book(&mut self, len: u32, whole: Whole, now_ns: u64) {
        let events = whole.events;
        self.passed += len as u64;
        self.framing += whole.framing;
        self.writes += 1;
        if events == 0 {
            return;
        }
        let gap_us = now_ns.saturating_sub(self.last_ns) / 1000;
        self.last_ns = now_ns;
        self.events += events as u64;
        self.gap_sum_us += gap_us;
        let each = if events == 1 { gap_us } else { gap_us / events as u64 };
        // Counted up to the bucket, which the verifier can follow.
        let mut bucket = 0;
        while bucket < GAP_BUCKETS - 1 && each > GAP_BOUNDS_US[bucket] {
            bucket += 1;
        }
        self.gaps[bucket] += events;
    }
}
