//! A byte stream to an engine: TCP or a Unix socket, with the same few calls.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use crate::endpoint::{Address, Endpoint};
use crate::kernel::own;
use crate::kernel::splice::{Slot, Splice};

#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// With a slot where there is one: then its engine's end is found in the kernel, if it is on this host.
    pub(super) async fn connect(
        endpoint: &Arc<Endpoint>,
        splice: Option<&Arc<Splice>>,
    ) -> io::Result<(Self, Option<Slot>)> {
        match &endpoint.address {
            Address::Tcp(address) => {
                let socket = own::socket(*address)?;
                // A mark that fails leaves the connection to the relay.
                let slot = splice.and_then(|splice| splice.slot(&socket).ok().flatten());
                let stream = socket.connect(*address).await?;
                // A request head and a token event are small writes that must not wait for an ACK.
                stream.set_nodelay(true)?;
                Ok((Self::Tcp(stream), slot.map(|slot| slot.owned_by(endpoint.number()))))
            }
            Address::Unix(path) => Ok((Self::Unix(UnixStream::connect(path).await?), None)),
        }
    }

    /// Reads what is there; `Ok(0)` is the end. Makes no system call where nothing was reported.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut read = None;
            let mut receive = || {
                let n = rustix::net::recv(self, &mut *buffer, RecvFlags::DONTWAIT)?.0;
                read = Some(n);
                // All there was: what comes later wakes anew, so the next read need not find that out by a call.
                // Sound as in tokio's own `poll_read`, because epoll reports edges.
                if (1..buffer.len()).contains(&n) { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
            };
            let received = match self {
                Self::Tcp(stream) => stream.try_io(Interest::READABLE, &mut receive),
                Self::Unix(stream) => stream.try_io(Interest::READABLE, &mut receive),
            };
            match (read, received) {
                (Some(n), _) => return Poll::Ready(Ok(n)),
                (None, Err(e)) if e.kind() != ErrorKind::WouldBlock => return Poll::Ready(Err(e)),
                (None, _) => {}
            }
            match self {
                Self::Tcp(stream) => ready!(stream.poll_read_ready(cx))?,
                Self::Unix(stream) => ready!(stream.poll_read_ready(cx))?,
            }
        }
    }

    pub(super) fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            // Written first and waited for after: the socket is nearly always writable.
            let written = match self {
                Self::Tcp(stream) => stream.try_write_vectored(slices),
                Self::Unix(stream) => stream.try_write_vectored(slices),
            };
            match written {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
            match self {
                Self::Tcp(stream) => ready!(stream.poll_write_ready(cx))?,
                Self::Unix(stream) => ready!(stream.poll_write_ready(cx))?,
            }
        }
    }

    /// Whether nothing has been reported since the last read found nothing or took all there was.
    pub(super) fn is_silent(&self) -> bool {
        let reported = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, || Ok(())),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, || Ok(())),
        };
        reported.is_err()
    }

    /// Whether a connection kept idle is still good: open, and silent as it must be.
    ///
    /// Asks the kernel and not tokio, whose cached readiness may be older than the engine's FIN.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(rustix::net::recv(self.as_fd(), &mut byte, flags), Err(rustix::io::Errno::AGAIN))
    }

    /// Makes the coming close a reset, so that the engine can take nothing it got for a whole request.
    pub(super) fn reset_on_close(&self) {
        // Fails only on a socket that is gone already, which is what is wanted.
        let _ = SockRef::from(&self.as_fd()).set_linger(Some(Duration::ZERO));
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
