//! Words between a gateway and its successor: lines in one direction, single bytes in the other, and with a byte there
//! may come a descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The successor's first line. Another number: another protocol.
pub(super) const GREETING: &str = "penstock takeover 1";
/// The first word of its second line.
pub(super) const SERVE: &str = "serve";

/// Comes with a socket.
pub(super) const SOCKET: u8 = b'S';
/// The next socket stands in for the address that follows, up to the end of the line.
pub(super) const STANDS_FOR: u8 = b'V';
/// These were all.
pub(super) const ALL: u8 = b'A';
/// Does not accept any more.
pub(super) const LET_GO: u8 = b'D';
/// Has waited for too long, and goes on as before.
pub(super) const REFUSED: u8 = b'N';

/// Bytes of an address: those of the longest one of IPv6, with its scope and port.
const ADDRESS_MAX: usize = 64;

pub(super) async fn send(stream: &UnixStream, word: u8, socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
    stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let sockets = socket.as_slice();
            if !sockets.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(sockets)) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            sendmsg(stream, &[IoSlice::new(&[word])], &mut ancillary, SendFlags::NOSIGNAL)?;
            Ok(())
        })
        .await
}

/// Says for which address the next socket stands.
pub(super) async fn send_address(stream: &UnixStream, address: SocketAddr) -> io::Result<()> {
    for byte in [STANDS_FOR].into_iter().chain(address.to_string().into_bytes()).chain([b'\n']) {
        send(stream, byte, None).await?;
    }
    Ok(())
}

/// The rest of what [`send_address`] says.
pub(super) async fn receive_address(stream: &UnixStream) -> io::Result<SocketAddr> {
    let mut text = String::new();
    while let Some((byte, None)) = receive(stream).await? {
        match byte {
            b'\n' => return text.parse().map_err(|_| io::Error::other(format!("{text:?} is no address"))),
            _ if text.len() < ADDRESS_MAX => text.push(byte.into()),
            _ => break,
        }
    }
    Err(io::Error::other("it says half an address"))
}

/// The next word; `None`: the other side has ended.
pub(super) async fn receive(stream: &UnixStream) -> io::Result<Option<(u8, Option<OwnedFd>)>> {
    stream
        .async_io(Interest::READABLE, || {
            let mut word = [0];
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            // One byte: what came with the next one stays with it.
            let got =
                recvmsg(stream, &mut [IoSliceMut::new(&mut word)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
            if got.bytes == 0 {
                return Ok(None);
            }
            let socket = ancillary.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
                _ => None,
            });
            Ok(Some((word[0], socket)))
        })
        .await
}
