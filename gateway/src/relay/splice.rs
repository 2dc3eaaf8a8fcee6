//! Splice on top of a relay: between two events, once all is written, the kernel is asked to carry the next ones itself.
//!
//! The client reads one chunked body, whoever wrote which part: see [`straight`](super::straight). Whatever the engine
//! writes that is not whole events arrives at the relay, which then takes the stream back.

use std::time::Instant;

use super::straight::Straight;
use super::tap::Tap;
use crate::endpoint::Endpoint;
use crate::failure::{Failure, Reason};
use crate::forward::Connection;
use crate::kernel::splice::{self, Binding, Client, Slot, Spliced, Terms, Unequal};
use crate::ledger::{Entry, Ledger, Unspliced};

/// Bytes per arm. What is spliced shows in the meters when the stream is taken back: after some 250 tokens at the latest.
const BUDGET: u64 = 64 << 10;
/// An arm that carried fewer writes was not worth its system calls.
const WORTHWHILE: u32 = 4;
/// Events that are relayed between two arms at most, where arms are worth nothing.
const WAIT_MAX: u64 = 1024;

/// One answer whose engine and client can be spliced.
pub struct Splicing {
    client: Client,
    ledger: Ledger,
    /// Events to be relayed before the next arm.
    wait: u64,
    /// How many that were the last time.
    waited: u64,
}

impl Splicing {
    #[must_use]
    pub fn new(client: Client, ledger: Ledger) -> Self {
        Self { client, ledger, wait: 0, waited: 0 }
    }

    /// What keeps the answers on a connection from being spliced.
    #[must_use]
    pub fn obstacle(connection: &Connection, endpoint: &Endpoint) -> Option<Unspliced> {
        if !endpoint.splice.is_trusted() {
            return Some(Unspliced::Anomaly);
        }
        match connection.slot.as_ref().map(Slot::binding) {
            None => Some(Unspliced::NoSlot),
            Some(Binding::Unknown) => Some(Unspliced::Remote),
            Some(Binding::Held) => Some(Unspliced::Held),
            Some(Binding::Bound) => None,
        }
    }

    /// So many events were relayed.
    pub(super) fn passed(&mut self, events: u64) {
        self.wait = self.wait.saturating_sub(events);
    }

    /// Arms, if hyper has written all that it was given. To be called between two events of which the last passed at
    /// `last`, with nothing in the connection's inbox.
    pub(super) fn arm(&mut self, connection: &mut Connection, straight: &Straight, last: Instant) {
        let taken = connection.taken();
        let Some(slot) = connection.slot.as_mut().filter(|slot| !slot.is_armed()) else { return };
        if self.wait > 0 {
            return;
        }
        if !straight.is_clear() {
            return straight.gate().wake_when_flushed();
        }
        let terms = Terms { client: self.client, taken, budget: BUDGET, since_ns: splice::ns_of(last) };
        // A client that is gone is noticed where it is read from.
        if let Some(Ok(())) = straight.gate().with_socket(|socket| slot.arm(socket, &terms)) {
            self.ledger.splices().armed();
        }
    }

    /// When the kernel last passed something on, since the stream is armed.
    pub(super) fn heard(connection: &Connection) -> Option<Instant> {
        let spliced = connection.slot.as_ref()?.progress();
        (spliced.bytes > 0).then(|| splice::instant_of(spliced.last_ns))
    }

    /// Takes the stream back, if it is armed, and books what was spliced.
    ///
    /// An error says that the client has not got what was spliced. It is sure only where the engine's connection has
    /// spoken since; elsewhere a write may be halfway through the kernel.
    pub(super) fn take(
        &mut self,
        connection: &mut Connection,
        straight: &Straight,
        tap: Option<&mut Tap>,
        entry: &mut Entry,
    ) -> Result<(), Unequal> {
        let Some(slot) = connection.slot.as_mut().filter(|slot| slot.is_armed()) else { return Ok(()) };
        let progress = slot.progress();
        let mut tail = Vec::new();
        // Without a socket there is no client, and nothing to compare.
        let taken = straight.gate().with_socket(|socket| slot.take(socket, &mut tail));
        let taken = taken.unwrap_or(Ok(progress.clone()));
        let spliced = taken.as_ref().unwrap_or(&progress);
        self.ledger.splices().handed_back(spliced.reason);
        self.pause(spliced);
        if spliced.bytes > 0 {
            entry.spliced(spliced);
            if let Some(tap) = tap {
                tap.skip(&tail);
            }
        }
        taken.map(drop)
    }

    /// A stream that cannot be spliced for long is left to the relay for twice as long each time.
    fn pause(&mut self, spliced: &Spliced) {
        let worthwhile = spliced.writes >= WORTHWHILE;
        self.waited = if worthwhile { 0 } else { (self.waited * 2 + 1).min(WAIT_MAX) };
        self.wait = self.waited;
    }
}

/// The kernel did not do what it said: no stream of this endpoint is spliced any more.
pub(super) fn distrust(endpoint: &Endpoint, unequal: Unequal) -> Failure {
    if endpoint.splice.lose() {
        tracing::error!(
            endpoint = %endpoint.label,
            %unequal,
            "splice: a client's answer does not add up; this endpoint is not spliced any more until the gateway starts anew"
        );
    }
    Failure::new(Reason::SpliceBroken, "the kernel lost bytes of the answer; it was cut short")
}
