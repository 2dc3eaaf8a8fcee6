//! Keeps the workers' listening sockets in step with the snapshot.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::kernel::steer::Steer;
use crate::listener::{self, Inherited};
use crate::snapshot::Snapshot;
use crate::worker::{Command, InUse};

/// For a predecessor's program to let go of sockets.
const STEER_TRIES: u32 = 40;
const STEER_PAUSE: Duration = Duration::from_millis(25);

pub(super) struct Ports {
    workers: Vec<mpsc::Sender<Command>>,
    /// With a copy of each socket, for a successor. None on an address of IPv4 that an inherited socket of IPv6 covers.
    open: BTreeMap<SocketAddr, Vec<TcpListener>>,
    inherited: Inherited,
    /// `None`: the kernel chooses workers by hash.
    steer: Option<Steer>,
    /// Taken out by a reload; what came in on them may still be served.
    closing: Vec<(SocketAddr, Weak<()>)>,
}

/// Sockets bound for a snapshot that is not yet published.
pub(super) struct Prepared {
    opened: BTreeMap<SocketAddr, Opened>,
    pub(super) closed: Vec<SocketAddr>,
}

/// The sockets on one address.
#[derive(Default)]
struct Opened {
    for_workers: Vec<TcpListener>,
    copies: Vec<TcpListener>,
}

impl Ports {
    pub(super) fn new(workers: Vec<mpsc::Sender<Command>>, inherited: Inherited) -> Self {
        Self { workers, open: BTreeMap::new(), inherited, steer: None, closing: Vec::new() }
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
        for &address in wanted.iter().filter(|address| !self.open.contains_key(address)) {
            match self.bind(address, &wanted) {
                Ok(sockets) => _ = opened.insert(address, sockets),
                Err(e) if address.ip().is_unspecified() && listener::lacks_family(&e) => {
                    lacking = Some((address, e))
                }
                Err(e) => return Err(e).with_context(|| format!("cannot listen on {address}")),
            }
        }
        let closed: Vec<_> = self.addresses().filter(|address| !wanted.contains(address)).collect();
        match lacking {
            Some((address, e)) if opened.is_empty() && closed.len() == self.open.len() => {
                Err(e).with_context(|| format!("cannot listen on {address}"))
            }
            _ => Ok(Prepared { opened, closed }),
        }
    }

    fn bind(&self, address: SocketAddr, wanted: &BTreeSet<SocketAddr>) -> io::Result<Opened> {
        let any_ipv6 = SocketAddr::from(([0_u16; 8], address.port()));
        if wanted.contains(&any_ipv6) && self.inherited.covers(address) {
            return Ok(Opened::default());
        }
        let open = self.addresses().chain(self.inherited.addresses());
        let for_workers = listener::bind(address, self.workers.len(), open, self.inherited.on(address)?)?;
        let copies = for_workers.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
        Ok(Opened { for_workers, copies })
    }

    /// Hands the sockets to the workers and has the old ones closed.
    pub(super) async fn apply(&mut self, prepared: Prepared) {
        for (address, opened) in prepared.opened {
            for (worker, socket) in self.workers.iter().cycle().zip(opened.for_workers) {
                // A worker that is gone has ended by a panic, which is reported where it is joined.
                let _ = worker.send(Command::Listen(socket)).await;
            }
            if let Some(Err(error)) =
                self.steer.as_mut().map(|steer| steer.open(address, self.workers.len(), &opened.copies))
            {
                tracing::warn!(%address, %error, "new connections there go to workers by hash");
            }
            self.open.insert(address, opened.copies);
        }
        for address in prepared.closed {
            if let Some(steer) = &mut self.steer {
                steer.close(address);
            }
            // Before the workers' sockets, so that theirs is the last.
            self.open.remove(&address);
            let in_use = InUse::default();
            self.closing.push((address, Arc::downgrade(&in_use)));
            for worker in &self.workers {
                let _ = worker.send(Command::Close(address, in_use.clone())).await;
            }
        }
        // What a predecessor had and this snapshot has not is the predecessor's to close.
        self.inherited.settle();
    }

    /// Has new connections given to the workers with the fewest, from now on. A predecessor's program may still have the
    /// sockets for a moment.
    ///
    /// # Errors
    /// When that works on no address.
    pub(super) async fn steer(&mut self, mut steer: Steer) -> Result<(), String> {
        let mut failed = None;
        for (&address, copies) in &self.open {
            let mut tries = STEER_TRIES;
            while let Err(error) = steer.open(address, self.workers.len(), copies) {
                tries -= 1;
                if tries == 0 || error.kind() != io::ErrorKind::ResourceBusy {
                    failed = Some(format!("{address}: {error}"));
                    break;
                }
                sleep(STEER_PAUSE).await;
            }
        }
        if let Some(error) = failed {
            if steer.is_idle() {
                return Err(error);
            }
            tracing::warn!(%error, "new connections there go to workers by hash");
        }
        self.steer = Some(steer);
        Ok(())
    }

    /// Every listening socket.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.values().flatten().map(AsFd::as_fd)
    }

    /// Leaves these addresses to a successor, and closes the rest.
    pub(super) async fn let_go(&mut self, served: HashSet<SocketAddr>) {
        // The successor's program cannot have the sockets as long as ours does.
        self.steer = None;
        self.close_copies();
        let served = Arc::new(served);
        for worker in &self.workers {
            let _ = worker.send(Command::LetGo(served.clone())).await;
        }
    }

    /// Leaves the sockets to the workers alone, so that they are closed when those close them.
    pub(super) fn close_copies(&mut self) {
        self.open.clear();
        self.inherited = Inherited::default();
    }

    /// Sockets of a supervisor's that no listener uses.
    pub(super) fn unused(&self) -> impl Iterator<Item = SocketAddr> {
        self.inherited.unused(|address| self.open.contains_key(&address))
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
        self.open.keys().copied()
    }

    pub(super) fn describe(&self) -> String {
        self.open.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}
