//! A worker: one thread with a runtime of its own, its own sockets of each listener, its own engine connections.

mod accept;
mod connection;
mod flag;
mod rooms;

use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, interval, sleep, timeout};

use self::accept::Socket;
use self::flag::Flag;
use self::rooms::Rooms;
use crate::admit::Budget;
use crate::forward::Connections;
use crate::gate::io::sweep_pieces;
use crate::kernel::give_memory_back;
use crate::kernel::splice::Splice;
use crate::kernel::steer::Seat;
use crate::ledger::{self, Ledger, RefusedConnection};
use crate::pick::HotCold;
use crate::route::{OpenConnections, Tables};

/// How long the last answers may take to leave after the drain's end.
const FLUSH: Duration = Duration::from_millis(250);

/// When so many more connections are parked, what they left is worth the time to give it back: several MiB.
const LEFT_BY: u32 = 256;

/// What all workers and the control side share.
#[derive(Clone)]
pub struct Shared {
    /// What is routed by now; swapped whole.
    pub tables: Arc<ArcSwap<Tables>>,
    pub ledger: Ledger,
    pub budget: Budget,
    pub phase: watch::Receiver<Phase>,
    /// Connections that one worker may hold.
    pub connections_per_worker: u32,
    /// `None`: every byte of an answer passes the relay.
    pub splice: Option<Arc<Splice>>,
}

/// Where the process stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// No new connections; what is in flight goes on.
    Draining,
    /// Out of time: what is left is cut.
    Ended,
}

/// What the control side asks of a worker.
pub enum Command {
    /// Under this address, which is the socket's own or one that it stands in for.
    Listen(SocketAddr, TcpListener),
    /// Serve what is queued on this address, then stop listening there; its connections end with the answer that
    /// they wait for.
    Close(SocketAddr, InUse),
    /// Another process has sockets on these addresses and accepts what is queued: stop accepting at once. Close what
    /// listens elsewhere. Connections end where their clients do not notice.
    LetGo(Arc<HashSet<SocketAddr>>),
}

/// Held while anything that came in on a closed address is still served.
pub type InUse = Arc<()>;

/// A running worker, as the control side sees it.
pub struct Handle {
    /// Closed when the worker ends, however it does.
    pub commands: mpsc::Sender<Command>,
    /// Connections of clients that it serves.
    pub connections: Arc<AtomicU32>,
    pub thread: JoinHandle<()>,
}

/// Starts a worker, which publishes its load at `seat`.
///
/// # Errors
/// When its runtime or its thread cannot be made: descriptors or threads have run out.
pub fn start(index: usize, shared: Shared, seat: Option<Seat>) -> io::Result<Handle> {
    let (commands, inbox) = mpsc::channel(64);
    // Here and not on its thread, so that the one who starts it learns of an error.
    let runtime = runtime(seat.as_ref()).build()?;
    let connections = Arc::<AtomicU32>::default();
    let shown = connections.clone();
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        runtime.block_on(LocalSet::new().run_until(Worker::new(shared, shown, seat).run(inbox)));
    })?;
    Ok(Handle { commands, connections, thread })
}

fn runtime(seat: Option<&Seat>) -> tokio::runtime::Builder {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all();
    if let Some(seat) = seat.cloned() {
        let same = seat.clone();
        // Before each look for events, also where there is more to do: that the loop comes round is what shows.
        builder.on_thread_park(move || seat.rests()).on_thread_unpark(move || same.begins());
    }
    builder
}

/// What the requests of one worker share.
pub struct Worker {
    pub shared: Shared,
    pub engines: Rc<Connections>,
    pub picker: HotCold,
    rooms: Rooms,
    /// Written by this thread alone.
    connections: Arc<AtomicU32>,
    /// Where the kernel half reads how many; `None`: it chooses by hash.
    seat: Option<Seat>,
    /// Connections that wait without hyper, and how many it were when memory was last given back.
    parked: Cell<u32>,
    parked_before: Cell<u32>,
    /// Told when the last connection has gone.
    idle: Notify,
    /// When an attempt to accept a connection last failed.
    starved: Cell<Option<Instant>>,
    /// A successor has the listening sockets.
    succeeded: Flag,
    /// The phase of [`Shared`], as this thread's tasks read it.
    draining: Flag,
    ended: Flag,
}

impl Worker {
    fn new(shared: Shared, connections: Arc<AtomicU32>, seat: Option<Seat>) -> Rc<Self> {
        let engines = Rc::new(Connections::new(shared.splice.clone()));
        Rc::new(Self {
            shared,
            seat,
            engines,
            picker: HotCold,
            rooms: Rooms::default(),
            connections,
            parked: Cell::default(),
            parked_before: Cell::default(),
            idle: Notify::new(),
            starved: Cell::default(),
            succeeded: Flag::default(),
            draining: Flag::default(),
            ended: Flag::default(),
        })
    }

    async fn run(self: Rc<Self>, mut commands: mpsc::Receiver<Command>) {
        let mut phase = self.shared.phase.clone();
        let mut sweep = interval(Duration::from_secs(1));
        let mut accepting = accept::Accepting::new(self.clone());
        loop {
            tokio::select! {
                Some(command) = commands.recv() => accepting.obey(command),
                _ = sweep.tick() => {
                    self.engines.sweep();
                    self.give_memory_back();
                }
                _ = phase.wait_for(|phase| *phase != Phase::Serving) => break,
            }
        }
        self.draining.set();
        accepting.drain().await;
        tokio::select! {
            () = self.until_idle() => {}
            // The sender lives as long as the process; without it the end has come too.
            _ = phase.wait_for(|phase| *phase == Phase::Ended) => {
                self.ended.set();
                let _ = timeout(FLUSH, self.until_idle()).await;
            }
        }
    }

    /// What many connections held before they were parked lies between what lives: malloc keeps it until it is told.
    fn give_memory_back(&self) {
        let parked = self.parked.get();
        let before = self.parked_before.get().min(parked);
        let parked_enough = parked >= before + LEFT_BY;
        self.parked_before.set(if parked_enough { parked } else { before });
        if sweep_pieces() || parked_enough {
            // Not on this thread, which has requests to serve; without a thread it is for another time.
            let _ = std::thread::Builder::new().name("memory".into()).spawn(give_memory_back);
        }
    }

    /// Whether the drain is out of time.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended.is_set()
    }

    /// Ready when the drain is out of time.
    pub async fn ended(&self) {
        self.ended.wait().await;
    }

    /// Ready when the drain is out of time and its refusals have had time to leave.
    async fn ended_and_answered(&self) {
        self.ended().await;
        sleep(FLUSH / 2).await;
    }

    /// Whether a successor serves new connections: clients may go there as soon as they have their answer.
    #[must_use]
    pub fn is_succeeded(&self) -> bool {
        self.succeeded.is_set()
    }

    /// Ready when the drain has begun.
    async fn draining(&self) {
        self.draining.wait().await;
    }

    /// Ready when a connection from this socket shall end: the drain has begun, or a reload took the socket out.
    async fn leaving(&self, socket: &Socket) {
        tokio::select! {
            // In this order: else each look, of which every request has two, draws a number.
            biased;
            () = self.draining() => {}
            () = socket.closing() => {}
        }
    }

    /// As [`Self::leaving`], and also ready when there is a successor: where a goodbye loses no request.
    async fn leaving_politely(&self, socket: &Socket) {
        tokio::select! {
            () = self.leaving(socket) => {}
            () = self.succeeded.wait() => {}
        }
    }

    /// Ready when the drain has lasted for `time`.
    async fn drained_for(&self, time: Duration) {
        self.draining().await;
        sleep(time).await;
    }

    async fn until_idle(&self) {
        while self.connections.load(Relaxed) > 0 {
            self.idle.notified().await;
        }
    }

    fn set_connections(&self, connections: u32) {
        self.connections.store(connections, Relaxed);
        if let Some(seat) = &self.seat {
            seat.serves(connections);
        }
    }

    /// Serves a connection in a task of its own, unless the process or the listener holds as many as it may.
    fn serve(self: &Rc<Self>, stream: tokio::net::TcpStream, peer: SocketAddr, socket: &Rc<Socket>) {
        let held = match Open::new(self, socket.address) {
            Ok(held) => held,
            Err(why) => return self.shared.ledger.process().connection_refused(why),
        };
        let socket = socket.clone();
        // A socket of both families speaks of IPv4 in addresses of IPv6.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        spawn_local(async move {
            connection::serve(&held.worker, stream, peer, &socket).await;
            drop(held);
        });
    }
}

/// Counts one client connection while it lives.
struct Open {
    worker: Rc<Worker>,
    at_listener: Arc<OpenConnections>,
    _counted: ledger::Connection,
}

impl Open {
    fn new(worker: &Rc<Worker>, local: SocketAddr) -> Result<Self, RefusedConnection> {
        if worker.connections.load(Relaxed) >= worker.shared.connections_per_worker {
            return Err(RefusedConnection::ProcessFull);
        }
        let limit = connection::policy(worker, local).max_connections;
        let at_listener = worker.shared.tables.load().at(local).map(|table| table.open().clone());
        let at_listener = at_listener.unwrap_or_default();
        take(&at_listener, limit).ok_or(RefusedConnection::ListenerFull)?;
        worker.set_connections(worker.connections.load(Relaxed) + 1);
        let counted = worker.shared.ledger.connection();
        Ok(Self { worker: worker.clone(), at_listener, _counted: counted })
    }
}

/// Takes first and looks then: workers that accept at once must not all see the last free place.
fn take(open: &OpenConnections, limit: Option<u32>) -> Option<()> {
    let before = open.fetch_add(1, Relaxed);
    if limit.is_some_and(|limit| before >= limit) {
        open.fetch_sub(1, Relaxed);
        return None;
    }
    Some(())
}

impl Drop for Open {
    fn drop(&mut self) {
        self.at_listener.fetch_sub(1, Relaxed);
        let left = self.worker.connections.load(Relaxed) - 1;
        self.worker.set_connections(left);
        if left == 0 {
            self.worker.idle.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_take_at_once_never_go_over_the_limit() {
        let (open, held) = (OpenConnections::default(), OpenConnections::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if take(&open, Some(3)).is_some() {
                            let now = held.fetch_add(1, Relaxed) + 1;
                            assert!(now <= 3, "{now} at once");
                            held.fetch_sub(1, Relaxed);
                            open.fetch_sub(1, Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(open.load(Relaxed), 0);
        assert!(take(&open, None).is_some() && take(&open, Some(0)).is_none());
    }
}
