//! What an engine saw: each connection and request, to the byte and with its times.

use std::time::Instant;

use tokio::sync::watch;

use crate::wire::Head;
use crate::within;

/// One request, as far as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Counts the engine's connections from 0.
    pub connection: usize,
    pub head: Head,
    /// The content, without its framing.
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    pub head_at: Instant,
    pub first_body_at: Option<Instant>,
    /// When the last byte of the request came; `None`: the engine never had a complete request.
    pub complete_at: Option<Instant>,
}

impl Seen {
    #[must_use]
    pub fn method(&self) -> &str {
        self.head.word(0)
    }

    #[must_use]
    pub fn path(&self) -> &str {
        self.head.word(1)
    }

    /// A question about the engine itself.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.method() == "GET" && matches!(self.path(), "/v1/models" | "/health" | "/metrics")
    }

    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete_at.is_some()
    }
}

/// How the other side left a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Fin,
    Reset,
}

#[derive(Clone, Debug, Default)]
pub struct Connection {
    pub left: Option<(Left, Instant)>,
}

#[derive(Clone, Debug, Default)]
pub struct State {
    pub connections: Vec<Connection>,
    pub requests: Vec<Seen>,
    /// Why strict engines would have answered 400.
    pub violations: Vec<String>,
    /// Events of streamed answers that were written.
    pub events_sent: usize,
    /// Such answers that were written to their end.
    pub streams_ended: usize,
}

impl State {
    /// The requests with a body. (GETs may be Penstock's own questions.)
    pub fn posts(&self) -> impl Iterator<Item = &Seen> {
        self.requests.iter().filter(|seen| seen.method() == "POST")
    }

    /// How the connection of a POST was left.
    #[must_use]
    pub fn left(&self, seen: &Seen) -> Option<(Left, Instant)> {
        self.connections.get(seen.connection)?.left
    }
}

/// Written by an engine's connections, awaited by tests.
#[derive(Debug)]
pub struct Log(watch::Sender<State>);

impl Default for Log {
    fn default() -> Self {
        Self(watch::Sender::new(State::default()))
    }
}

impl Log {
    pub(super) fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut result = None;
        self.0.send_modify(|state| result = Some(change(state)));
        result.expect("send_modify always calls")
    }

    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.borrow())
    }

    /// Waits until something was seen, without a deadline.
    pub(super) async fn seen<T>(&self, mut find: impl FnMut(&State) -> Option<T>) -> T {
        let mut changes = self.0.subscribe();
        loop {
            if let Some(found) = find(&changes.borrow_and_update()) {
                return found;
            }
            changes.changed().await.expect("the sender is in self");
        }
    }

    /// Waits until something was seen.
    ///
    /// # Panics
    /// When it is not seen in time.
    pub async fn until<T>(&self, what: &str, find: impl FnMut(&State) -> Option<T>) -> T {
        within(what, self.seen(find)).await
    }
}
