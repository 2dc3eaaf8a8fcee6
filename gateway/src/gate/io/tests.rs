//! The gate under a real hyper server, over real sockets.

mod http1;
mod http2;
mod park;

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::hyper::body::{Body, Frame, Incoming, SizeHint};
use ::hyper::service::service_fn;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use super::*;
use crate::failure::{Reason, respond, respond_raw};
use crate::gate::head::check_h2;
use crate::gate::hyper::{LocalExec, hyper_http1_builder, hyper_http2_builder};

const LIMITS: GateLimits = GateLimits {
    head_timeout: Duration::from_secs(5),
    idle_timeout: Duration::from_secs(5),
    stall_timeout: Duration::from_secs(5),
};

/// More than the socket buffers of both sides hold.
const LARGE_BYTES: usize = 16 << 20;
/// A long stream of events, each sent by itself.
const TOKENS: usize = 5000;
const TOKEN_BYTES: usize = 300;

/// What the test service saw.
#[derive(Clone, Default)]
struct Seen {
    requests: Rc<Cell<usize>>,
    /// Requests to `/stuck` that were dropped before they had an answer.
    cancelled: Rc<Cell<usize>>,
    /// How often a connection was parked.
    parked: Rc<Cell<usize>>,
    /// Connections that are over.
    closed: Rc<Cell<usize>>,
    /// The body of the last request to `/kept`, of which nothing was read.
    kept: Rc<RefCell<Option<DeclaredBody<TcpStream>>>>,
}

/// A response body of `pieces` pieces, each handed over by itself; tells the gate when it is over.
struct Answered {
    piece: Bytes,
    pieces: usize,
    gate: Gate<TcpStream>,
}

impl Body for Answered {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.pieces == 0 {
            return Poll::Ready(None);
        }
        self.pieces -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.piece.clone()))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.piece.len() * self.pieces) as u64)
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.gate.answered();
    }
}

async fn answer(
    request: Request<Incoming>,
    gate: Gate<TcpStream>,
    seen: Seen,
) -> Result<Response<Answered>, Infallible> {
    seen.requests.set(seen.requests.get() + 1);
    gate.opened();
    let mut response = Response::new(Answered { piece: Bytes::new(), pieces: 1, gate: gate.clone() });
    let (parts, body) = request.into_parts();
    if parts.version == http::Version::HTTP_2
        && let Err(failure) = check_h2(&parts, !body.is_end_stream())
    {
        *response.status_mut() = failure.reason.status();
        return Ok(response);
    }
    match parts.uri.path() {
        "/stuck" => {
            struct Cancelled(Seen);
            impl Drop for Cancelled {
                fn drop(&mut self) {
                    self.0.cancelled.set(self.0.cancelled.get() + 1);
                }
            }
            let _cancelled = Cancelled(seen);
            std::future::pending::<()>().await;
        }
        "/kept" => *seen.kept.borrow_mut() = gate.take_body(),
        "/early" => *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE,
        "/large" => {
            // In one piece: hyper takes it whole and lets go of the body long before it is written.
            response.body_mut().piece = Bytes::from(vec![b'x'; LARGE_BYTES]);
        }
        "/tokens" => {
            response.body_mut().piece = Bytes::from(vec![b'x'; TOKEN_BYTES]);
            response.body_mut().pieces = TOKENS;
        }
        path => match collected(&gate, body).await {
            Ok(body) => response.body_mut().piece = [path.as_bytes(), b"=", &body].concat().into(),
            Err(_) => {
                let failure = gate.fault().unwrap_or_else(|| Failure::new(Reason::ClientGone, "gone"));
                *response.status_mut() = failure.reason.status();
                response.body_mut().piece = respond(&failure, Dialect::OpenAi).into_body();
            }
        },
    }
    Ok(response)
}

async fn collected(gate: &Gate<TcpStream>, body: Incoming) -> anyhow::Result<Bytes> {
    let Some(mut declared) = gate.take_body() else { return Ok(body.collect().await?.to_bytes()) };
    let mut all = BytesMut::new();
    while let Some(chunk) = poll_fn(|cx| declared.poll_chunk(cx)).await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all.freeze())
}

/// What the serving code does with a connection.
async fn serve(stream: TcpStream, limits: GateLimits, seen: Seen) {
    let _ = stream.set_nodelay(true);
    if let Ok(Some((protocol, io, gate))) = Gate::detect(stream, limits).await {
        let service = {
            let (gate, seen) = (gate.clone(), seen.clone());
            service_fn(move |request| answer(request, gate.clone(), seen.clone()))
        };
        match protocol {
            Protocol::Http1 => {
                let mut next = Some(io);
                while let Some(io) = next {
                    let mut connection = Box::pin(hyper_http1_builder().serve_connection(io, &service));
                    next = tokio::select! {
                        biased;
                        _ = connection.as_mut() => None,
                        () = gate.left() => None,
                        () = gate.quiet() => {
                            drop(connection);
                            seen.parked.set(seen.parked.get() + 1);
                            gate.next_io().await
                        }
                    };
                }
            }
            Protocol::Http2 => {
                let _ = hyper_http2_builder(LocalExec).serve_connection(io, service).await;
            }
        }
        let words = gate.refusal().map(|(failure, dialect)| respond_raw(&failure, dialect));
        gate.finish(words.as_deref()).await;
    }
    seen.closed.set(seen.closed.get() + 1);
}

/// Runs `client` against a server on this thread; each test has seconds.
fn with_server<F: Future<Output = ()>>(
    limits: GateLimits,
    client: impl FnOnce(std::net::SocketAddr, Seen) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Seen::default();
        let serving = seen.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(stream, limits, serving.clone()));
            }
        });
        tokio::time::timeout(Duration::from_secs(20), client(address, seen)).await.expect("in time");
    });
}

async fn until(mut reached: impl FnMut() -> bool) {
    while !reached() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// All that the server says until it closes.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    String::from_utf8_lossy(&all).into_owned()
}

/// What the server says, to the end of `last`.
async fn read_until(stream: &mut TcpStream, last: &str) -> String {
    let mut all = Vec::new();
    while !all.ends_with(last.as_bytes()) {
        let n = stream.read_buf(&mut all).await.unwrap();
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&all));
    }
    String::from_utf8_lossy(&all).into_owned()
}
