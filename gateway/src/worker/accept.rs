//! A worker's listening sockets: accepts, and empties the queue before one is closed.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

use super::{Command, Worker};

/// Out of descriptors or memory: accepting again at once would spin.
const BREATH: Duration = Duration::from_millis(50);

pub(super) struct Accepting {
    worker: Rc<Worker>,
    sockets: HashMap<SocketAddr, Socket>,
}

struct Socket {
    close: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Accepting {
    pub(super) fn new(worker: Rc<Worker>) -> Self {
        Self { worker, sockets: HashMap::new() }
    }

    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Listen(listener) => {
                if let Err(e) = self.listen(listener) {
                    tracing::error!(error = %e, "a worker cannot use a listening socket");
                }
            }
            Command::Close(address) => {
                if let Some(socket) = self.sockets.remove(&address) {
                    let _ = socket.close.send(());
                }
            }
        }
    }

    /// Closes every socket; ready when what was queued on them has been taken in.
    pub(super) async fn drain(self) {
        for (_, socket) in self.sockets {
            let _ = socket.close.send(());
            let _ = socket.task.await;
        }
    }

    fn listen(&mut self, listener: StdListener) -> io::Result<()> {
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let (close, closed) = oneshot::channel();
        let task = spawn_local(accept(self.worker.clone(), listener, address, closed));
        self.sockets.insert(address, Socket { close, task });
        Ok(())
    }
}

async fn accept(
    worker: Rc<Worker>,
    listener: TcpListener,
    address: SocketAddr,
    mut closed: oneshot::Receiver<()>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut closed => break,
        };
        match accepted {
            Ok((stream, peer)) => worker.serve(stream, peer, address),
            // The client left between its SYN and now.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(e) => {
                tracing::warn!(%address, error = %e, "cannot accept a connection");
                sleep(BREATH).await;
            }
        }
    }
    // Closing the socket would reset what the kernel has already accepted for us.
    if let Ok(queue) = listener.into_std() {
        while let Ok((stream, peer)) = queue.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                worker.serve(stream, peer, address);
            }
        }
    }
}
