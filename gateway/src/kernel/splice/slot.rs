//! One connection to an engine, as the user half sees it: armed and taken back by whoever relays its answers.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use penstock_common::splice::{GAP_BUCKETS, Reason, Report, Wish};

use super::{Client, Splice};
use crate::kernel::sys;

/// One connection to an engine; given back on drop.
pub struct Slot {
    splice: Arc<Splice>,
    index: u32,
    generation: u64,
    armed: Option<Armed>,
}

#[derive(Clone, Copy)]
struct Armed {
    arm: u64,
    /// Bytes that had been written to the client's socket.
    written: u64,
}

/// Whether the engine's end was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// It can be spliced.
    Bound,
    /// Another program holds its socket.
    Held,
    /// It is on another host, behind address translation, or the connection is not made yet.
    Unknown,
}

/// Under what a slot is armed.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub client: Client,
    /// Bytes of the engine's connection that the relay has taken, from the connection's first one on.
    pub taken: u64,
    /// Bytes that may be spliced before the relay sees one again.
    pub budget: u64,
    /// When the last event passed the relay, as [`now_ns`](super::now_ns) tells time.
    pub since_ns: u64,
}

/// What was spliced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spliced {
    pub bytes: u64,
    /// Those of them that are no payload.
    pub framing: u64,
    pub writes: u32,
    pub events: u64,
    /// When the last one passed, as [`now_ns`](super::now_ns) tells time.
    pub last_ns: u64,
    /// Gaps before the events, by [`GAP_BOUNDS_US`](super::GAP_BOUNDS_US).
    pub gaps: [u32; GAP_BUCKETS],
    pub gap_sum_us: u64,
    /// Why it ended. `None`: it did not, or the engine wrote nothing since.
    pub reason: Option<Reason>,
}

/// The client's socket has not taken what was spliced to it: its answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{spliced} bytes were spliced and the client's socket has taken {taken}")]
pub struct Unequal {
    pub spliced: u64,
    pub taken: u64,
}

impl Slot {
    pub(super) fn new(splice: Arc<Splice>, index: u32, generation: u64) -> Self {
        Self { splice, index, generation, armed: None }
    }

    /// Says whose [`Splice::voices`] it is; any number but 0.
    #[must_use]
    pub fn owned_by(self, owner: u64) -> Self {
        if let Some(cell) = self.splice.owners.get(self.index as usize) {
            cell.store(owner, Relaxed);
        }
        self
    }

    /// Whether the engine's end was found. Final a moment after the connection is made: before its first byte comes.
    #[must_use]
    pub fn binding(&self) -> Binding {
        let report = self.report();
        if report.bound == self.generation {
            Binding::Bound
        } else if report.held == self.generation {
            Binding::Held
        } else {
            Binding::Unknown
        }
    }

    /// Has whole events spliced from now on. To be called between two events and between two chunks, when all that was
    /// taken from the engine has been written to `client`, the client's socket; that is not to be written to until the
    /// slot is taken back.
    ///
    /// # Errors
    /// When the client's socket is gone.
    pub fn arm(&mut self, client: &impl AsFd, terms: &Terms) -> io::Result<()> {
        debug_assert!(self.armed.is_none(), "armed twice without having been taken back");
        let armed = Armed { arm: self.splice.unique(), written: sys::written(client.as_fd())? };
        let wish = Wish {
            arm: armed.arm,
            generation: self.generation,
            want: terms.taken,
            budget: terms.budget,
            client: terms.client.cookie,
            since_ns: terms.since_ns,
            reserved: [0; 2],
        };
        self.splice.slots.wish(self.index, &wish);
        self.armed = Some(armed);
        Ok(())
    }

    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    /// What has been spliced since the slot was armed: for the deadlines of streams that never wake the gateway.
    #[must_use]
    pub fn progress(&self) -> Spliced {
        self.armed.map_or_else(Spliced::default, |armed| spliced(&self.report(), armed.arm))
    }

    /// Has the engine's next write come here, which then says that it is over.
    pub fn stop(&self) {
        self.splice.slots.disarm(self.index);
    }

    /// Ends it. To be called when the engine's connection became readable or ended, before anything is written to
    /// the client. Appends the end of what was spliced to `tail`, where engines report their tokens.
    ///
    /// # Errors
    /// When the client's socket has taken more or less than was spliced: then the stream has a gap, or two authors.
    pub fn take(&mut self, client: &impl AsFd, tail: &mut Vec<u8>) -> Result<Spliced, Unequal> {
        let Some(armed) = self.armed.take() else { return Ok(Spliced::default()) };
        self.splice.slots.disarm(self.index);
        let report = self.report();
        let spliced = spliced(&report, armed.arm);
        if spliced.bytes == 0 {
            return Ok(spliced);
        }
        self.splice.slots.tails(self.index, &report, tail);
        if spliced.reason == Some(Reason::Unequal) {
            // Another author: how much is whose cannot be told.
            return Err(Unequal { spliced: spliced.bytes, taken: spliced.bytes });
        }
        // A client that is gone has nothing more to lose.
        let Ok(written) = sys::written(client.as_fd()) else { return Ok(spliced) };
        let taken = written.wrapping_sub(armed.written);
        if taken == spliced.bytes { Ok(spliced) } else { Err(Unequal { spliced: spliced.bytes, taken }) }
    }

    fn report(&self) -> Report {
        self.splice.slots.report(self.index)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("index", &self.index)
            .field("armed", &self.is_armed())
            .finish_non_exhaustive()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.stop();
        self.splice.put(self.index);
    }
}

fn spliced(report: &Report, arm: u64) -> Spliced {
    if report.arm != arm {
        // Not even looked at: the engine wrote nothing, or not through its socket's own calls.
        return Spliced::default();
    }
    Spliced {
        bytes: report.passed,
        framing: report.framing.into(),
        writes: report.writes,
        events: report.events,
        last_ns: report.last_ns,
        gaps: report.gaps,
        gap_sum_us: report.gap_sum_us,
        reason: Reason::of(report.over),
    }
}
