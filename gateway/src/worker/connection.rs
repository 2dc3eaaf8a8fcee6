//! One client connection: the gate in front, hyper behind it, and an orderly end.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::service::service_fn;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::Worker;
use super::accept::Socket;
use super::rooms::Answering;
use crate::failure;
use crate::forward::forwarded_for;
use crate::gate::hyper::{LocalExec, hyper_http1_builder, hyper_http2_builder};
use crate::gate::io::{Gate, GateIo, GateLimits, Protocol};
use crate::relay::Rest;
use crate::request::{self, Client};
use crate::snapshot::ClientPolicy;

/// A connection that was accepted before the drain may still send its first request for so long.
const LAST_CALL: Duration = Duration::from_millis(100);

/// Serves `stream` until either side ends it.
pub(super) async fn serve(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, socket: &Socket) {
    let local = socket.address;
    let limits = limits(worker, local);
    let detected = tokio::select! {
        biased;
        detected = Gate::detect(stream, limits) => detected,
        () = worker.drained_for(LAST_CALL) => return,
    };
    let Ok(Some((protocol, io, gate))) = detected else { return };
    let client = Rc::new(Client {
        worker: worker.clone(),
        gate: gate.clone(),
        peer,
        forwarded_for: forwarded_for(peer.ip()),
        local,
        reset: Cell::new(false),
        spliced: OnceCell::new(),
        heir: RefCell::default(),
    });
    let service = service_fn(|request| Answering::new(&client, request));
    match protocol {
        Protocol::Http1 => {
            let mut next = Some(io);
            while let Some(io) = next {
                // Boxed, because it goes when the connection is parked.
                let mut connection = Box::pin(hyper_http1_builder().serve_connection(io, &service));
                next = tokio::select! {
                    // First: a request that has arrived is taken in before the connection is told to end.
                    biased;
                    _ = connection.as_mut() => None,
                    () = gate.left() => None,
                    () = gate.quiet() => {
                        drop(connection);
                        parked(worker, &gate, socket).await
                    }
                    rest = rest(&client) => {
                        drop(connection);
                        ended(&client, rest).await.then(|| gate.io())
                    }
                    () = worker.leaving(socket) => {
                        connection.as_mut().graceful_shutdown();
                        until_ended(&client, connection).await;
                        None
                    }
                };
            }
        }
        Protocol::Http2 => {
            // Boxed: it would make every connection as large as itself.
            let mut connection = Box::pin(hyper_http2_builder(LocalExec).serve_connection(io, service));
            tokio::select! {
                biased;
                _ = connection.as_mut() => {}
                () = worker.leaving_politely(socket) => {
                    connection.as_mut().graceful_shutdown();
                    until_ended(&client, connection).await;
                }
            }
        }
    }
    if client.reset.get() {
        return gate.reset();
    }
    // A head that the gate refused has never reached hyper: its answer is written here.
    let refused = gate.refusal().map(|(failure, dialect)| {
        request::refuse_head(&client, &failure);
        failure::respond_raw(&failure, dialect)
    });
    gate.finish(refused.as_deref()).await;
}

/// Waits for the next request without hyper; `None`: there will not be one.
async fn parked(worker: &Worker, gate: &Gate<TcpStream>, socket: &Socket) -> Option<GateIo<TcpStream>> {
    let next = async {
        tokio::select! {
            biased;
            io = gate.next_io() => io,
            () = worker.leaving(socket) => None,
        }
    };
    without_hyper(worker, next).await
}

/// Ready when an answer needs hyper no longer: with the rest of it. To be polled behind hyper.
async fn rest(client: &Client) -> Rest {
    let answer = poll_fn(|_| client.heir.borrow().take().map_or(Poll::Pending, Poll::Ready)).await;
    Rest::new(answer, client.gate.clone())
}

/// Writes the rest of an answer; whether the connection may carry another.
async fn ended(client: &Client, rest: Rest) -> bool {
    let ended = async {
        tokio::select! {
            biased;
            whole = rest => whole,
            () = client.gate.left() => false,
            () = client.worker.ended_and_answered() => false,
        }
    };
    without_hyper(&client.worker, ended).await
}

/// Counts the connection as one whose hyper has left memory to be given back, while this lasts.
async fn without_hyper<T>(worker: &Worker, until: impl Future<Output = T>) -> T {
    worker.parked.set(worker.parked.get() + 1);
    let output = until.await;
    worker.parked.set(worker.parked.get() - 1);
    output
}

fn limits(worker: &Worker, local: SocketAddr) -> GateLimits {
    let policy = policy(worker, local);
    GateLimits {
        head_timeout: policy.head_timeout,
        idle_timeout: policy.idle_timeout,
        stall_timeout: policy.stream_idle_timeout,
    }
}

/// Serves on while the drain lasts and there is something to serve: a client that does not answer the goodbye is
/// not waited for. What is in flight at the drain's end is dropped with the connection, and cut.
async fn until_ended<C: Future>(client: &Client, connection: C) {
    let quiet = async {
        let mut looks = 0;
        while looks < 2 {
            sleep(LAST_CALL).await;
            looks = if client.gate.is_idle() { looks + 1 } else { 0 };
        }
    };
    tokio::select! {
        biased;
        _ = connection => {}
        () = client.gate.left() => {}
        () = quiet => {}
        () = client.worker.ended_and_answered() => {}
    }
}

/// What holds before a request names its host: the policy of the address's least specific listener.
pub(super) fn policy(worker: &Worker, local: SocketAddr) -> ClientPolicy {
    let tables = worker.shared.tables.load();
    let routes = tables.at(local).and_then(|table| table.all().last());
    routes.map_or_else(ClientPolicy::default, |routes| routes.listener().client.clone())
}
