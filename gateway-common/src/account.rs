//! Accounting of the TCP connections to engines: keys, values and limits of the kernel's maps, and every decision
//! that is taken over them. The kernel half and the user half compile the same lines.

/// Addresses of engines that one host can count.
pub const ENDPOINTS: usize = 256;
/// Gateways that may share one host's counts, and one place (0) for everybody else.
pub const OWNERS: usize = 8;
/// Connections of gateways that are open at once; beyond it they are counted as foreign.
pub const OWN_CONNECTIONS: usize = 65_536;
/// A stream that is silent for longer is over: two looks and a half.
pub const BUSY_WINDOW_NS: u64 = 250_000_000;
/// Bytes that a look finds moved since the one before, a tenth of a second ago.
const LOOK_NS: u64 = 90_000_000;
/// What two looks may be apart beyond that.
const JITTER_NS: u64 = 60_000_000;
/// Rows that each CPU has: by endpoint, side and owner.
pub const ROWS_PER_CPU: usize = ENDPOINTS * 2 * OWNERS;

/// An IPv6 address, or an IPv4 one in its IPv4-mapped form, in network order.
pub type Ip = [u8; 16];

/// The address of an engine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// All zero: any local address of the network namespace, for an engine that listens on all of them.
    pub ip: Ip,
    /// The network namespace's cookie where the address means something else in each namespace, else 0.
    pub netns: u64,
    pub port: u16,
    pub reserved: [u16; 3],
}

impl Key {
    /// The key of an address as a socket in namespace `netns` uses it.
    ///
    /// A cookie belongs to loopback addresses only: elsewhere a connecting socket carries its client's namespace,
    /// which is not the engine's.
    #[must_use]
    #[inline(always)]
    pub fn new(ip: Ip, port: u16, netns: u64) -> Self {
        let netns = if is_loopback(&ip) { netns } else { 0 };
        Self { ip, netns, port, reserved: [0; 3] }
    }

    /// The key of every local address of a namespace.
    #[must_use]
    #[inline(always)]
    pub fn any(port: u16, netns: u64) -> Self {
        Self { ip: [0; 16], netns, port, reserved: [0; 3] }
    }
}

/// What a [`Key`] leads to. Written by user halves under their common lock.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub slot: u32,
    /// Bit n: gateway n wants this endpoint counted.
    pub wanted_by: u32,
}

/// The client's end of a gateway's own connection, by which the engine's end is told from foreign ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Own {
    pub ip: Ip,
    pub slot: u32,
    pub port: u16,
    pub reserved: u16,
}

/// The end of a connection that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// The client's: requests are sent.
    Active = 0,
    /// The engine's: requests are received.
    Passive = 1,
}

/// The row of one CPU to which an endpoint's connections of one side and owner are booked.
#[must_use]
#[inline(always)]
pub fn row(cpu: u32, slot: u32, side: u8, owner: u8) -> u32 {
    let of_cpu = (slot * 2 + side as u32) * OWNERS as u32 + owner as u32;
    cpu * ROWS_PER_CPU as u32 + of_cpu
}

/// Sums of signed deltas; a gauge is the sum over all CPUs, because a connection may end on another than it began.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub open: i64,
    pub opened: i64,
    /// Connects that were never answered, or refused.
    pub failed: i64,
    /// Ended without an orderly close: a reset or a timeout.
    pub reset: i64,
    /// Of connections that have ended.
    pub received: i64,
    pub sent: i64,
    pub retransmits: i64,
    pub reserved: i64,
}

impl core::ops::AddAssign for Row {
    fn add_assign(&mut self, other: Self) {
        self.open = self.open.wrapping_add(other.open);
        self.opened = self.opened.wrapping_add(other.opened);
        self.failed = self.failed.wrapping_add(other.failed);
        self.reset = self.reset.wrapping_add(other.reset);
        self.received = self.received.wrapping_add(other.received);
        self.sent = self.sent.wrapping_add(other.sent);
        self.retransmits = self.retransmits.wrapping_add(other.retransmits);
    }
}

/// Where a socket is in its life, as far as counting goes.
pub mod stage {
    /// A gateway marked it as its own and has not connected it yet.
    pub const MARKED: u8 = 0;
    /// Its SYN is out.
    pub const CONNECTING: u8 = 1;
    /// Counted as open.
    pub const OPEN: u8 = 2;
}

/// What is kept with each counted socket, in socket-local storage.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    pub cookie: u64,
    /// The cookie of its network namespace.
    pub netns: u64,
    pub slot: u32,
    pub owner: u8,
    pub side: u8,
    pub stage: u8,
    /// 1 once a request byte was seen to be acknowledged (active side only).
    pub asked: u8,
    /// Bytes that had come in when the bytes went out that were last acknowledged.
    pub received_when_sent: u64,
    /// Bytes so far, at the last look.
    pub received: u64,
    pub sent: u64,
    /// When a look found more of them, CLOCK_MONOTONIC; 0: never.
    pub received_at_ns: u64,
    pub sent_at_ns: u64,
    /// Looks that found more of an answer since the last that found more of a request.
    pub answers: u64,
    /// The longest time between two of them.
    pub gap_ns: u64,
}

/// What the kernel knows of a TCP socket, at one look.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    pub received: u64,
    pub sent: u64,
    pub srtt_us: u32,
    pub retransmits: u32,
}

/// One line of what a look at all counted sockets yields.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    pub cookie: u64,
    pub slot: u32,
    pub owner: u8,
    pub side: u8,
    /// 1: load.
    pub busy: u8,
    pub reserved: u8,
    pub look: Look,
}

impl Socket {
    /// Bytes that went out were acknowledged. `received` bytes have come in, up to sequence number `next`; when we last
    /// sent, it was up to `next_when_sent`.
    ///
    /// The acknowledgement may ride on the very packet that brings what comes next: the first bytes of an answer, or
    /// the next request. Those do not precede what they acknowledge, and are taken off again.
    #[inline(always)]
    pub fn acknowledged(&mut self, received: u64, next: u32, next_when_sent: u32) {
        self.received_when_sent = received.saturating_sub(next.wrapping_sub(next_when_sent) as u64);
        self.asked = 1;
    }

    /// Takes a look's figures over and notes which have moved.
    #[inline(always)]
    pub fn look(&mut self, look: &Look, now_ns: u64) {
        let received = look.received != self.received;
        // The SYN counts as one byte of an active socket's stream, and no request has one byte.
        let sent = look.sent != self.sent && (self.sent > 1 || look.sent > 1);
        let (requested, answered) =
            if self.side == Side::Passive as u8 { (received, sent) } else { (sent, received) };
        self.received = look.received;
        self.sent = look.sent;
        if requested {
            // Answer bytes beside a request that waits are those of the answer before it.
            self.answers = (answered && !self.is_waiting()) as u64;
            self.gap_ns = 0;
        } else if answered {
            let gap_ns = now_ns.saturating_sub(self.answered_at_ns());
            if self.answers > 0 && gap_ns > self.gap_ns {
                self.gap_ns = gap_ns;
            }
            self.answers += 1;
        }
        if received {
            self.received_at_ns = now_ns;
        }
        if sent {
            self.sent_at_ns = now_ns;
        }
    }

    /// Whether the newest bytes are a request's: asked, and no answer byte since.
    ///
    /// A prefill moves nothing and is the heaviest load there is.
    #[must_use]
    #[inline(always)]
    pub fn is_waiting(&self) -> bool {
        if self.side == Side::Passive as u8 {
            self.received > self.received_when_sent
        } else {
            self.asked == 1 && self.received == self.received_when_sent
        }
    }

    /// What a look shows of it.
    #[must_use]
    #[inline(always)]
    pub fn sight(&self, look: Look, now_ns: u64) -> Sight {
        let busy = self.is_busy(now_ns) as u8;
        Sight {
            cookie: self.cookie,
            slot: self.slot,
            owner: self.owner,
            side: self.side,
            busy,
            reserved: 0,
            look,
        }
    }

    /// Whether it is load: waiting for an answer, or in the middle of a stream.
    ///
    /// Bytes that came in one go are an answer that is over: a kept connection at rest is no load. What comes in more is a
    /// stream, for as long as it is silent no longer than it was before.
    #[must_use]
    #[inline(always)]
    pub fn is_busy(&self, now_ns: u64) -> bool {
        self.is_waiting()
            || (self.answers > 1 && now_ns.saturating_sub(self.answered_at_ns()) <= self.pause_ns())
    }

    #[inline(always)]
    fn answered_at_ns(&self) -> u64 {
        if self.side == Side::Passive as u8 { self.sent_at_ns } else { self.received_at_ns }
    }

    #[inline(always)]
    fn pause_ns(&self) -> u64 {
        self.gap_ns.saturating_sub(JITTER_NS).clamp(LOOK_NS, BUSY_WINDOW_NS)
    }
}

/// Whether a socket that closes from TCP state `from` ended without an orderly close.
///
/// An orderly close leaves by LAST_ACK, CLOSING or the wait for the last FIN (FIN_WAIT2, TIME_WAIT).
#[must_use]
#[inline(always)]
pub fn is_reset(from: u32) -> bool {
    // ESTABLISHED, SYN_RECV, FIN_WAIT1, CLOSE_WAIT.
    matches!(from, 1 | 3 | 4 | 8)
}

/// 127.0.0.0/8 or ::1.
#[must_use]
#[inline(always)]
pub fn is_loopback(ip: &Ip) -> bool {
    let word = |i: usize| u32::from_ne_bytes([ip[i], ip[i + 1], ip[i + 2], ip[i + 3]]);
    if word(0) != 0 || word(4) != 0 {
        return false;
    }
    match word(8) {
        0 => word(12) == 1u32.to_be(),
        mapped if mapped == 0xffff_u32.to_be() => ip[12] == 127,
        _ => false,
    }
}

/// The IPv4-mapped form of an IPv4 address in network order.
#[must_use]
#[inline(always)]
pub fn mapped(ip4: [u8; 4]) -> Ip {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ip4[0], ip4[1], ip4[2], ip4[3]]
}

#[cfg(test)]
mod tests;
