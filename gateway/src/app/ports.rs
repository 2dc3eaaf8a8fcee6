//! Keeps the workers' listening sockets in step with the snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use anyhow::Context;
use tokio::sync::mpsc;

use crate::listener;
use crate::snapshot::Snapshot;
use crate::worker::{Command, InUse};

pub(super) struct Ports {
    workers: Vec<mpsc::Sender<Command>>,
    open: BTreeSet<SocketAddr>,
    /// Taken out by a reload; what came in on them may still be served.
    closing: Vec<(SocketAddr, Weak<()>)>,
}

/// Sockets bound for a snapshot that is not yet published.
pub(super) struct Prepared {
    opened: BTreeMap<SocketAddr, Vec<std::net::TcpListener>>,
    pub(super) closed: Vec<SocketAddr>,
}

impl Ports {
    pub(super) fn new(workers: Vec<mpsc::Sender<Command>>) -> Self {
        Self { workers, open: BTreeSet::new(), closing: Vec::new() }
    }

    /// Binds what `snapshot` adds. Nothing changes yet: a port that cannot be had keeps the old snapshot.
    pub(super) fn prepare(&self, snapshot: &Snapshot) -> anyhow::Result<Prepared> {
        let wanted: BTreeSet<SocketAddr> =
            snapshot.listeners.iter().flat_map(|listener| listener.addresses.iter().copied()).collect();
        anyhow::ensure!(
            !wanted.is_empty(),
            "no Gateway listener can be served: there is nothing to listen on"
        );
        let mut opened = BTreeMap::new();
        let mut lacking = None;
        for &address in wanted.difference(&self.open) {
            match listener::bind(address, self.workers.len(), self.addresses()) {
                Ok(sockets) => _ = opened.insert(address, sockets),
                Err(e) if address.ip().is_unspecified() && listener::lacks_family(&e) => {
                    lacking = Some((address, e))
                }
                Err(e) => return Err(e).with_context(|| format!("cannot listen on {address}")),
            }
        }
        let closed: Vec<_> = self.open.difference(&wanted).copied().collect();
        match lacking {
            Some((address, e)) if opened.is_empty() && closed.len() == self.open.len() => {
                Err(e).with_context(|| format!("cannot listen on {address}"))
            }
            _ => Ok(Prepared { opened, closed }),
        }
    }

    /// Hands the sockets to the workers and has the old ones closed.
    pub(super) async fn apply(&mut self, prepared: Prepared) {
        for (address, sockets) in prepared.opened {
            for (worker, socket) in self.workers.iter().zip(sockets) {
                // A worker that is gone has ended by a panic, which is reported where it is joined.
                let _ = worker.send(Command::Listen(socket)).await;
            }
            self.open.insert(address);
        }
        for address in prepared.closed {
            let in_use = InUse::default();
            self.closing.push((address, Arc::downgrade(&in_use)));
            for worker in &self.workers {
                let _ = worker.send(Command::Close(address, in_use.clone())).await;
            }
            self.open.remove(&address);
        }
    }

    /// Addresses that were taken out and are still in use.
    pub(super) fn closing(&self) -> impl Iterator<Item = SocketAddr> {
        self.closing.iter().filter(|(_, in_use)| in_use.strong_count() > 0).map(|(address, _)| *address)
    }

    /// Forgets what is no longer in use; whether there was any.
    pub(super) fn forget_closed(&mut self) -> bool {
        let before = self.closing.len();
        self.closing.retain(|(_, in_use)| in_use.strong_count() > 0);
        self.closing.len() < before
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.open.iter().copied()
    }

    pub(super) fn describe(&self) -> String {
        self.open.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}
