//! A worker's listening sockets: accepts, and before one is closed takes in whoever has reached it.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep};

use super::flag::Flag;
use super::{Command, InUse, Worker};
use crate::ledger::RefusedConnection;

/// Out of descriptors or memory: accepting again at once would spin.
const BREATH: Duration = Duration::from_millis(50);

/// After so long without a failure to accept, the next one is news.
const CALM: Duration = Duration::from_secs(10);

pub(super) struct Accepting {
    worker: Rc<Worker>,
    /// Most often one on each address; more where they were inherited from a gateway with more workers.
    sockets: HashMap<SocketAddr, Vec<Open>>,
    /// Told to close, and still accepting what had begun.
    closing: Vec<JoinHandle<()>>,
}

/// For handshakes that had begun when a socket was hidden: a round trip, and a repeated packet.
const HANDSHAKE: Duration = Duration::from_secs(1);

/// A listening socket, and the task that accepts from it.
type Open = (Rc<Socket>, JoinHandle<()>);

/// One listening socket, as its connections know it; they hold it as long as they live.
pub(super) struct Socket {
    /// Of the listener in the manifests.
    pub(super) address: SocketAddr,
    closing: Flag,
    /// Its queue is another process's.
    let_go: Flag,
    in_use: Cell<Option<InUse>>,
}

impl Socket {
    fn new(address: SocketAddr) -> Self {
        Self { address, closing: Flag::default(), let_go: Flag::default(), in_use: Cell::default() }
    }

    /// Ready when it is to be closed.
    pub(super) async fn closing(&self) {
        self.closing.wait().await;
    }
}

impl Accepting {
    pub(super) fn new(worker: Rc<Worker>) -> Self {
        Self { worker, sockets: HashMap::new(), closing: Vec::new() }
    }

    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Listen(address, listener) => {
                if let Err(e) = self.listen(address, listener) {
                    tracing::error!(error = %e, "a worker cannot use a listening socket");
                }
            }
            Command::Close(address, in_use) => {
                self.closing.retain(|task| !task.is_finished());
                for (socket, task) in self.sockets.remove(&address).into_iter().flatten() {
                    socket.in_use.set(Some(in_use.clone()));
                    socket.closing.set();
                    self.closing.push(task);
                }
            }
            Command::LetGo(served) => {
                for (address, sockets) in self.sockets.drain() {
                    let is_served = served.contains(&address);
                    for (socket, task) in sockets {
                        if is_served {
                            socket.let_go.set()
                        } else {
                            socket.closing.set()
                        }
                        self.closing.push(task);
                    }
                }
                self.worker.succeeded.set();
            }
        }
    }

    /// Closes every socket; ready when what was queued on them has been taken in.
    pub(super) async fn drain(self) {
        for (socket, task) in self.sockets.into_values().flatten() {
            socket.closing.set();
            let _ = task.await;
        }
        for task in self.closing {
            let _ = task.await;
        }
    }

    fn listen(&mut self, address: SocketAddr, listener: StdListener) -> io::Result<()> {
        let socket = Rc::new(Socket::new(address));
        let listener = TcpListener::from_std(listener)?;
        let task = spawn_local(accept(self.worker.clone(), listener, socket.clone()));
        self.sockets.entry(socket.address).or_default().push((socket, task));
        Ok(())
    }
}

async fn accept(worker: Rc<Worker>, listener: TcpListener, socket: Rc<Socket>) {
    tokio::select! {
        () = serve_all(&worker, &listener, &socket) => {}
        () = socket.let_go.wait() => return,
        () = socket.closing() => {}
    }
    tokio::select! {
        () = serve_all(&worker, &listener, &socket) => {}
        () = sleep(HANDSHAKE) => {}
        // Nothing else listens then that a handshake could have met instead.
        () = worker.draining() => {}
    }
    // Closing the socket would reset what the kernel has already accepted for us.
    if let Ok(queue) = listener.into_std() {
        while let Ok((stream, peer)) = queue.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                worker.serve(stream, peer, &socket);
            }
        }
    }
}

/// Accepts for as long as it is asked.
async fn serve_all(worker: &Rc<Worker>, listener: &TcpListener, socket: &Rc<Socket>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => worker.serve(stream, peer, socket),
            // The client left between its SYN and now.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(e) => {
                if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                    worker.shared.ledger.process().connection_refused(RefusedConnection::NoDescriptor);
                }
                let before = worker.starved.replace(Some(Instant::now()));
                if before.is_none_or(|before| before.elapsed() > CALM) {
                    tracing::warn!(address = %socket.address, error = %e, "connections cannot be accepted");
                }
                sleep(BREATH).await;
            }
        }
    }
}
