//! A request's body as it reaches the upload: from the gate, or, where its length is not declared, from hyper.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use tokio::net::TcpStream;

use crate::gate::io::DeclaredBody;

pub enum ClientBody {
    Declared(DeclaredBody<TcpStream>),
    Coming(Incoming),
}

/// The client is gone, or what it sends is no body.
#[derive(Debug)]
pub struct BrokenOff;

impl ClientBody {
    /// The next chunk, or an empty one where there were trailers: those of a request are dropped, as RFC 9110 section
    /// 6.5.1 allows, because no engine reads any. `None` after the last.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        Poll::Ready(match self {
            Self::Declared(body) => ready!(body.poll_chunk(cx)).map(|chunk| chunk.map_err(|_| BrokenOff)),
            Self::Coming(body) => ready!(Pin::new(body).poll_frame(cx))
                .map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()).map_err(|_| BrokenOff)),
        })
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        match self {
            Self::Declared(body) => body.bytes() == 0,
            Self::Coming(body) => body.is_end_stream(),
        }
    }

    /// How long it will be.
    pub(super) fn declared(&self) -> Option<u64> {
        match self {
            Self::Declared(body) => Some(body.bytes()),
            Self::Coming(body) => body.size_hint().exact(),
        }
    }
}
