//! The end of a connection: last words, then time for the client to read them.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{End, Gate, Side};

/// How long a client has to read the last words. Closing with unread input resets the connection, which can
/// destroy an answer on its way (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);
/// What is read and discarded meanwhile, at most.
const LINGER_BYTES: u64 = 16 << 20;
/// GOAWAY without an error.
const NO_ERROR: u32 = 0;

impl<S: AsyncRead + AsyncWrite + Unpin> Gate<S> {
    /// Closes the connection, after hyper is done with it. `last_words`, the answer to a
    /// [refused head](Self::refusal), are written first; on HTTP/2, GOAWAY is where the gate itself ends it.
    pub async fn finish(&self, last_words: Option<&[u8]>) {
        let (stream, goaway, lingers) = {
            let mut inner = self.0.borrow_mut();
            let goaway = match (&inner.side, &inner.end) {
                (Side::Http2(frames), Some(End::Idle)) => frames.goaway(NO_ERROR),
                (Side::Http2(frames), Some(End::Http2(violation))) => frames.goaway(violation.code()),
                _ => None,
            };
            (inner.stream.take(), goaway, !matches!(inner.end, Some(End::Eof | End::Idle)))
        };
        let Some(mut stream) = stream else { return };
        let closing = async {
            if let Some(words) = last_words.or(goaway.as_deref()) {
                stream.write_all(words).await?;
            }
            stream.shutdown().await?;
            if lingers {
                discard(&mut stream).await?;
            }
            io::Result::Ok(())
        };
        // A client that does not wait for the end is no one's concern.
        let _ = timeout(LINGER, closing).await;
    }
}

impl Gate<TcpStream> {
    /// Whether the client has closed its side, also behind bytes that hyper has not asked for.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.borrow().is_gone()
    }

    /// The client's socket; `None` once the connection is finished.
    pub fn with_socket<T>(&self, f: impl FnOnce(&TcpStream) -> T) -> Option<T> {
        self.0.borrow().stream.as_ref().map(f)
    }

    /// Resets the connection instead: for a response that broke off where its end would look whole, because it is
    /// framed by the end of the connection.
    pub fn reset(&self) {
        if let Some(stream) = self.0.borrow_mut().stream.take() {
            // Where this fails, the stream is closed as it is dropped.
            let _ = stream.set_zero_linger();
        }
    }
}

async fn discard<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut input = stream.take(LINGER_BYTES);
    let mut scratch = vec![0; 16 << 10];
    while input.read(&mut scratch).await? > 0 {}
    Ok(())
}
