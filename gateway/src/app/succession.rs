//! One gateway after another on the same sockets: what the successor does, and what its predecessor does.

use std::collections::HashSet;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::Gateway;
use crate::admin::{self, AdminState};
use crate::listener::Inherited;
use crate::takeover::{Dismissed, Given, Offer, PATIENCE, Predecessor, Successor};

/// Kept connections may ask once more for so long, and are told with the answer to go elsewhere. An idle one is then
/// closed, which a request may cross.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// How often it is looked whether any connection is left.
const LOOK: Duration = Duration::from_millis(50);

/// The admin port, before it is served.
pub(super) struct Admin {
    pub(super) address: SocketAddr,
    socket: TcpListener,
}

/// The admin port while it is served.
pub(super) struct Serving {
    address: SocketAddr,
    /// For a successor.
    copy: Option<TcpListener>,
    stop: Option<oneshot::Sender<()>>,
}

impl Admin {
    pub(super) fn bind(address: SocketAddr, inherited: &Inherited) -> io::Result<Self> {
        let socket = match inherited.on(address)?.pop() {
            Some(socket) => socket,
            None => TcpListener::bind(address)?,
        };
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "the admin port has no authentication and other hosts can reach it");
        }
        Ok(Self { address, socket })
    }

    pub(super) fn serve(self, state: AdminState) -> io::Result<Serving> {
        let copy = self.socket.try_clone()?;
        let listener = tokio::net::TcpListener::from_std(self.socket)?;
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(admin::serve(listener, state, stopped));
        Ok(Serving { address: self.address, copy: Some(copy), stop: Some(stop) })
    }
}

impl Serving {
    pub(super) fn sockets(&self) -> impl Iterator<Item = Given<BorrowedFd<'_>>> {
        self.copy.iter().map(|copy| Given { socket: copy.as_fd(), stands_for: None })
    }

    /// Stops accepting where the successor does.
    fn let_go(&mut self, served: &HashSet<SocketAddr>) {
        if served.contains(&self.address) {
            self.copy = None;
            self.stop = None;
        }
    }
}

/// Asks the gateway that runs, if one does, for its sockets.
pub(super) async fn ask(admin: SocketAddr, inherited: &mut Inherited) -> Option<Predecessor> {
    // Once for the sockets, and once for the end of one that is killed meanwhile.
    let asked = timeout(2 * PATIENCE, Predecessor::ask(admin)).await;
    match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(Some((predecessor, sockets))) => {
            tracing::info!(sockets = sockets.len(), "the gateway that runs gives its sockets");
            inherited.take_over(sockets.into_iter().map(|given| (given.socket, given.stands_for)));
            Some(predecessor)
        }
        Ok(None) => {
            tracing::info!(%admin, "no gateway runs with this admin address: there is nothing to take over");
            None
        }
        Err(error) => {
            // If it lives, it has its ports, and we cannot have them.
            tracing::warn!(%error, "the gateway that runs does not give its sockets");
            None
        }
    }
}

/// Tells the predecessor that all is served here; whether there was one. The error is the code to exit with, when
/// it goes on.
pub(super) async fn dismiss(
    predecessor: Option<Predecessor>,
    served: impl Iterator<Item = SocketAddr>,
) -> Result<bool, ExitCode> {
    let Some(predecessor) = predecessor else { return Ok(false) };
    match timeout(PATIENCE, predecessor.dismiss(served)).await {
        Ok(Dismissed::LetsGo) => {
            tracing::info!("taken over: the gateway before finishes what it has, and exits")
        }
        Ok(Dismissed::Gone) => tracing::warn!("the gateway before has ended; its sockets are served here"),
        Ok(Dismissed::Refuses) | Err(_) => {
            tracing::error!("the gateway before goes on serving; this one drains and exits");
            return Err(ExitCode::FAILURE);
        }
    }
    Ok(true)
}

/// Lets itself be taken over; says why where it cannot.
pub(super) async fn offer(admin: SocketAddr, succeeds: bool) -> Option<Offer> {
    let offer = Offer::open(admin, succeeds).await;
    offer.inspect_err(|error| tracing::warn!(%error, "this gateway cannot be taken over (--takeover)")).ok()
}

/// The next successor; never, where nobody can find this gateway.
pub(super) async fn asked(offer: Option<&Offer>) -> Successor {
    match offer {
        Some(offer) => offer.next().await,
        None => pending().await,
    }
}

/// Gives a successor the sockets, and waits until it serves. `None`: it did not come so far, and nothing has changed.
pub(super) async fn give<'a>(
    mut successor: Successor,
    sockets: impl IntoIterator<Item = Given<BorrowedFd<'a>>>,
) -> Option<(Successor, HashSet<SocketAddr>)> {
    let taken = timeout(PATIENCE, async {
        successor.give(sockets).await?;
        successor.serves().await
    });
    match taken.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(served) => Some((successor, served)),
        Err(error) => {
            tracing::warn!(%error, "a successor asked for the sockets and does not serve; this gateway goes on");
            successor.refuse().await;
            None
        }
    }
}

impl Gateway {
    /// What a predecessor need not serve any more.
    pub(super) fn served(&self) -> impl Iterator<Item = SocketAddr> {
        self.ports.addresses().chain([self.admin.address])
    }

    /// Leaves new connections to the successor, and lets kept ones come to their end.
    pub(super) async fn let_go(&mut self, (successor, served): (Successor, HashSet<SocketAddr>)) {
        tracing::info!("a successor serves; this gateway finishes what it has");
        self.supervisor.status("a successor serves; this gateway finishes what it has");
        // The place is the successor's.
        self.offer = None;
        self.admin.let_go(&served);
        self.ports.let_go(served).await;
        successor.let_go().await;
        let until = Instant::now() + LAST_REQUESTS;
        while self.ledger.process().connections() > 0 && Instant::now() < until {
            if timeout(LOOK, self.signals.stop()).await.is_ok() {
                break;
            }
        }
    }
}
