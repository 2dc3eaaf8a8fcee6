//! A worker's connections to engines: makes them, and keeps those that wait for their next request.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Connection;
use crate::endpoint::Endpoint;
use crate::kernel::splice::Splice;

/// A connection idle for longer is closed by us: uvicorn closes at 5 s, and a request must not race with that.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Kept for each endpoint at most; a burst beyond it pays for connecting again.
const IDLE_PER_ENDPOINT: usize = 512;

/// Idle connections by endpoint. One for each worker: a connection never changes its thread.
#[derive(Debug, Default)]
pub struct Connections {
    /// `None`: no connection is made ready to be spliced.
    splice: Option<Arc<Splice>>,
    /// A tree: of the few endpoints there are, one is found in less time than its key would take to hash.
    idle: RefCell<BTreeMap<*const Endpoint, Idle>>,
}

#[derive(Debug)]
struct Idle {
    /// Keeps the key's address from being used again for another endpoint.
    _endpoint: Arc<Endpoint>,
    /// Oldest first, taken from the end: the warmest is used, the rest age out.
    connections: Vec<(Instant, Connection)>,
}

impl Connections {
    #[must_use]
    pub fn new(splice: Option<Arc<Splice>>) -> Self {
        Self { splice, idle: RefCell::default() }
    }

    /// A new connection.
    ///
    /// # Errors
    /// When the engine does not take it, or there are no descriptors.
    pub(super) async fn open(&self, endpoint: &Arc<Endpoint>) -> io::Result<Connection> {
        let splice = self.splice.as_ref().filter(|_| endpoint.splice.is_trusted());
        Connection::open(endpoint, splice).await
    }

    /// A kept connection that is open and quiet at this moment, which is `now`.
    #[must_use]
    pub fn take(&self, endpoint: &Arc<Endpoint>, now: Instant) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let kept = &mut idle.get_mut(&Arc::as_ptr(endpoint))?.connections;
        let oldest = now.checked_sub(IDLE_TIMEOUT)?;
        while let Some((since, connection)) = kept.pop() {
            if since < oldest {
                // Everything before it is older still.
                kept.clear();
                return None;
            }
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose answer was read to its end.
    pub fn put(&self, endpoint: &Arc<Endpoint>, mut connection: Connection) {
        connection.reused = true;
        let mut idle = self.idle.borrow_mut();
        let kept = idle
            .entry(Arc::as_ptr(endpoint))
            .or_insert_with(|| Idle { _endpoint: endpoint.clone(), connections: Vec::new() });
        if kept.connections.len() < IDLE_PER_ENDPOINT {
            kept.connections.push((Instant::now(), connection));
        }
    }

    /// Closes what has been idle for too long; called every second or so.
    pub fn sweep(&self) {
        let Some(oldest) = Instant::now().checked_sub(IDLE_TIMEOUT) else { return };
        self.idle.borrow_mut().retain(|_, idle| {
            let expired = idle.connections.partition_point(|(since, _)| *since < oldest);
            idle.connections.drain(..expired);
            !idle.connections.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::endpoint::Address;

    #[tokio::test]
    async fn a_connection_on_which_the_engine_spoke_unasked_or_left_carries_no_request() {
        let engine = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Arc::new(Endpoint::new(Address::Tcp(engine.local_addr().unwrap())));
        let connections = Connections::default();
        let kept = async || {
            let connection = connections.open(&endpoint).await.unwrap();
            connections.put(&endpoint, connection);
            engine.accept().unwrap().0
        };
        // Nothing is awaited behind what the engine does: all that tokio could say of the socket is older.
        let taken = || connections.take(&endpoint, Instant::now()).is_some();
        let silent = kept().await;
        assert!(taken());
        let mut speaks = kept().await;
        speaks.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        assert!(!taken());
        let leaves = kept().await;
        drop(leaves);
        assert!(!taken());
        drop(silent);
    }
}
