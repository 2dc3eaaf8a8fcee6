//! Keeps the workers' listening sockets in step with the snapshot.

mod away;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::time::sleep;

pub(super) use self::away::Virtual;
use crate::kernel::steer::Steer;
use crate::listener::{self, Inherited};
use crate::snapshot::Snapshot;
use crate::takeover::Given;
use crate::worker::{Command, InUse};

/// For a predecessor's program to let go of sockets.
const STEER_TRIES: u32 = 40;
const STEER_PAUSE: Duration = Duration::from_millis(25);

pub(super) struct Ports {
    workers: Vec<mpsc::Sender<Command>>,
    /// None on an address of IPv4 that an inherited socket of IPv6 covers, two where sockets stand in for one that this host
    /// has not yet.
    open: BTreeMap<SocketAddr, Vec<Group>>,
    away: Virtual,
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

/// Sockets of one address for the workers, and what is kept of them.
type Opened = Vec<(Vec<TcpListener>, Group)>;

/// Sockets that share a port.
struct Group {
    /// The address that they serve, or where they stand in for it.
    at: SocketAddr,
    /// One of each, for a successor.
    copies: Vec<TcpListener>,
}

impl Group {
    fn of(sockets: &[TcpListener]) -> io::Result<Option<Self>> {
        let Some(first) = sockets.first() else { return Ok(None) };
        let copies = sockets.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
        Ok(Some(Self { at: first.local_addr()?, copies }))
    }
}

impl Ports {
    pub(super) fn new(workers: Vec<mpsc::Sender<Command>>, inherited: Inherited, away: Virtual) -> Self {
        Self { workers, open: BTreeMap::new(), away, inherited, steer: None, closing: Vec::new() }
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
            return Ok(Vec::new());
        }
        let open = self.addresses().chain(self.groups().map(|(_, group)| group.at));
        let open = open.chain(self.inherited.addresses()).chain(self.closing());
        let workers = self.workers.len();
        let mut sets = Vec::new();
        let is_away = match listener::bind(address, workers, open, self.inherited.on(address)?) {
            Ok(sockets) => {
                sets.push(sockets);
                // net.ipv4.ip_nonlocal_bind lets it listen for the day that this host gets the address.
                self.away.works().is_ok() && !listener::is_here(address)
            }
            Err(e) if listener::is_away(&e) && !address.ip().is_unspecified() => true,
            Err(e) => return Err(e),
        };
        if is_away {
            sets.push(self.away.bind(address, workers, self.inherited.standing_for(address)?)?);
        }
        let mut opened = Vec::new();
        for sockets in sets {
            if let Some(group) = Group::of(&sockets)? {
                opened.push((sockets, group));
            }
        }
        Ok(opened)
    }

    /// Hands the sockets to the workers and has the old ones closed.
    pub(super) async fn apply(&mut self, prepared: Prepared) {
        for (address, opened) in prepared.opened {
            let mut groups = Vec::new();
            for (for_workers, group) in opened {
                self.serve(address, for_workers, &group).await;
                groups.push(group);
            }
            self.open.insert(address, groups);
        }
        for address in prepared.closed {
            self.away.close(address);
            // Before the workers' sockets, so that theirs is the last.
            for group in self.open.remove(&address).unwrap_or_default() {
                if let Some(steer) = &mut self.steer {
                    steer.close(group.at);
                }
                self.hide(&group);
            }
            let in_use = InUse::default();
            self.closing.push((address, Arc::downgrade(&in_use)));
            for worker in &self.workers {
                let _ = worker.send(Command::Close(address, in_use.clone())).await;
            }
        }
        // What a predecessor had and this snapshot has not is the predecessor's to close.
        self.inherited.settle();
    }

    /// Has new clients go elsewhere, before the workers close the sockets of a group.
    fn hide(&self, group: &Group) {
        // A supervisor's copies are the same sockets, and stay for whoever it starts next.
        if !self.inherited.addresses().any(|passed| passed == group.at) {
            listener::hide(&group.copies);
        }
    }

    /// Hands the sockets of a group to the workers, and has connections come there.
    async fn serve(&mut self, address: SocketAddr, for_workers: Vec<TcpListener>, group: &Group) {
        for (worker, socket) in self.workers.iter().cycle().zip(for_workers) {
            // A worker that is gone has ended by a panic, which is reported where it is joined.
            let _ = worker.send(Command::Listen(address, socket)).await;
        }
        if let Some(Err(error)) =
            self.steer.as_mut().map(|steer| steer.open(group.at, self.workers.len(), &group.copies))
        {
            tracing::warn!(%address, %error, "new connections there go to workers by hash");
        }
        if group.at != address {
            self.away.open(address, group.at);
        }
    }

    /// Has new connections given to the workers with the fewest, from now on. A predecessor's program may still have the
    /// sockets for a moment.
    ///
    /// # Errors
    /// When that works on no address.
    pub(super) async fn steer(&mut self, mut steer: Steer) -> Result<(), String> {
        let mut failed = None;
        for (address, group) in self.groups() {
            let mut tries = STEER_TRIES;
            while let Err(error) = steer.open(group.at, self.workers.len(), &group.copies) {
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
    pub(super) fn sockets(&self) -> impl Iterator<Item = Given<BorrowedFd<'_>>> {
        self.groups().flat_map(|(address, group)| {
            let stands_for = (group.at != address).then_some(address);
            group.copies.iter().map(move |copy| Given { socket: copy.as_fd(), stands_for })
        })
    }

    fn groups(&self) -> impl Iterator<Item = (SocketAddr, &Group)> {
        self.open.iter().flat_map(|(&address, groups)| groups.iter().map(move |group| (address, group)))
    }

    /// Keeps interception in step with the host; answers with the connects that were intercepted so far, where any can be.
    pub(super) fn follow(&mut self) -> Option<u64> {
        self.away.follow()
    }

    /// Intercepts nothing of another gateway's while it serves, too.
    pub(super) fn spare(&mut self, process: Option<u32>) {
        self.away.spare(process);
    }

    /// Whether connects to addresses that this host has not come here, or why they do not.
    pub(super) fn intercepts(&self) -> Result<(), String> {
        self.away.works()
    }

    /// Leaves these addresses to a successor, and closes the rest.
    pub(super) async fn let_go(&mut self, served: HashSet<SocketAddr>) {
        // The successor's program cannot have the sockets as long as ours does.
        self.steer = None;
        for (_, group) in self.groups().filter(|(address, _)| !served.contains(address)) {
            self.hide(group);
        }
        self.close_copies();
        let served = Arc::new(served);
        for worker in &self.workers {
            let _ = worker.send(Command::LetGo(served.clone())).await;
        }
    }

    /// Leaves the sockets to the workers alone, so that they are closed when those close them.
    pub(super) fn close_copies(&mut self) {
        // First: a connect that is sent to a closed socket would be refused.
        self.away.close_all();
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

    /// Those that other hosts can reach.
    pub(super) fn public(&self) -> impl Iterator<Item = SocketAddr> {
        self.groups().map(|(_, group)| group.at).filter(|at| !at.ip().is_loopback())
    }

    pub(super) fn describe(&self) -> String {
        let one = |(address, groups): (&SocketAddr, &Vec<Group>)| match groups
            .iter()
            .any(|group| group.at != *address)
        {
            true => format!("{address} (intercepted)"),
            false => address.to_string(),
        };
        self.open.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}
