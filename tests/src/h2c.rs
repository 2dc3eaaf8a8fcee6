//! A client of HTTP/2 with prior knowledge, close to the frames.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::within;

/// One connection; streams are opened on it with [`H2::open`].
#[derive(Debug)]
pub struct H2 {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct H2Answer {
    pub head: Response<()>,
    pub body: Vec<u8>,
    pub trailers: Option<http::HeaderMap>,
}

impl H2Answer {
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.head.headers().get("x-penstock-reason")?.to_str().ok()
    }

    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl H2 {
    /// # Panics
    /// When nobody speaks HTTP/2 there.
    pub async fn connect(address: SocketAddr) -> Self {
        // What the protocol begins with (RFC 9113 section 6.9.2).
        Self::connect_with_window(address, 65_535).await
    }

    /// A client that takes so many bytes of each answer before it says that it wants more.
    ///
    /// # Panics
    /// When nobody speaks HTTP/2 there.
    pub async fn connect_with_window(address: SocketAddr, window: u32) -> Self {
        within("an HTTP/2 connection", async {
            let stream = TcpStream::connect(address).await.expect("connecting");
            // The library's guard against small DATA frames would end connections with many streams of events.
            let mut builder = h2::client::Builder::new();
            let handshake = builder.data_frame_budget(1 << 20).initial_window_size(window).handshake(stream);
            let (requests, connection) = handshake.await.expect("the HTTP/2 handshake");
            Self { requests, connection: tokio::spawn(connection) }
        })
        .await
    }

    /// Opens a stream. The fields are the caller's alone: nothing is added or checked.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn open(
        &self,
        request: Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let ready = self.requests.clone().ready();
        within("room for a stream", ready).await?.send_request(request, end)
    }

    /// Sends a request with its body in one piece and reads the whole answer.
    ///
    /// # Errors
    /// When the stream or the connection is reset.
    pub async fn ask(&self, request: Request<()>, body: &str) -> Result<H2Answer, h2::Error> {
        let (response, mut send) = self.open(request, false).await?;
        send.send_data(Bytes::copy_from_slice(body.as_bytes()), true)?;
        whole(response).await
    }

    /// Waits for the end of the connection.
    ///
    /// # Errors
    /// With what ended it, where that was an error.
    pub async fn closed(&mut self) -> Result<(), h2::Error> {
        within("the end of an HTTP/2 connection", &mut self.connection).await.expect("the connection's task")
    }
}

impl Drop for H2 {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A POST of JSON to a path.
///
/// # Panics
/// When the path is none.
#[must_use]
pub fn post(path: &str) -> Request<()> {
    let uri = format!("http://penstock.test{path}");
    let request = Request::builder().method(Method::POST).uri(uri).header("content-type", "application/json");
    request.body(()).expect("a valid request")
}

/// Reads an answer to its end.
///
/// # Errors
/// When the stream or the connection is reset.
pub async fn whole(response: ResponseFuture) -> Result<H2Answer, h2::Error> {
    let (head, mut stream) = within("the head of an HTTP/2 answer", response).await?.into_parts();
    let mut body = Vec::new();
    while let Some(bytes) = more(&mut stream).await? {
        body.extend_from_slice(&bytes);
    }
    let trailers = within("trailers", stream.trailers()).await?;
    Ok(H2Answer { head: Response::from_parts(head, ()), body, trailers })
}

/// The next bytes of an answer, and room for as many more.
///
/// # Errors
/// When the stream or the connection is reset.
pub async fn more(stream: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(bytes) = within("more of an HTTP/2 answer", stream.data()).await.transpose()? else {
        return Ok(None);
    };
    stream.flow_control().release_capacity(bytes.len())?;
    Ok(Some(bytes))
}
