//! `penstock run --takeover`: a gateway that starts gets the listening sockets themselves from the one that runs.
//!
//! Over a Unix socket the running gateway sends a copy of each of its sockets, goes on serving, and stops accepting only
//! when its successor says that it serves. The sockets are one and the same, so what waits in their queues is lost to
//! neither. A successor that leaves before that word has changed nothing.
//!
//! ```text
//! successor                     running gateway
//! penstock takeover 1 ──────▶
//!                     ◀──────  S+socket S+socket … A   all of them; before one that stands in for a virtual address, V ADDRESS
//! serve ADDRESS …     ──────▶                          which of them it serves
//!                     ◀──────  D                       no longer accepts there: done
//! ```

mod place;
mod wire;

pub use place::own_folder as folder;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// For either side's next word: each has nothing to wait for in between.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Wait before accepting again after an error, as these do not end at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a line: more than every address of every listener takes.
const LINE_MAX: u64 = 256 << 10;
/// Sockets that one gateway gives: more than all workers have of all listeners.
const SOCKETS_MAX: usize = 64 << 10;

/// A listening socket that changes hands.
#[derive(Debug)]
pub struct Given<S> {
    pub socket: S,
    /// The virtual address that it stands in for; `None`: it is there for its own.
    pub stands_for: Option<SocketAddr>,
}

/// The running gateway's readiness to be taken over.
#[derive(Debug)]
pub struct Offer {
    listener: UnixListener,
    path: PathBuf,
}

/// One that asks for the sockets, as the running gateway sees it.
#[derive(Debug)]
pub struct Successor(BufReader<UnixStream>);

/// The running gateway, as its successor sees it.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

/// The process at the other end.
fn process(stream: &UnixStream) -> Option<u32> {
    stream.peer_cred().ok()?.pid()?.try_into().ok()
}

/// What came of a predecessor that was told to let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dismissed {
    /// It no longer accepts, and finishes what it has.
    LetsGo,
    /// It ended by itself, or was killed.
    Gone,
    /// It keeps its sockets and serves on.
    Refuses,
}

impl Offer {
    /// Lets itself be found under the address of the admin port. `succeeds`: whoever is found there has been taken over.
    ///
    /// # Errors
    /// When there is no place for the socket, or another gateway is found there.
    pub async fn open(admin: SocketAddr, succeeds: bool) -> io::Result<Self> {
        let path = place::make(admin)?;
        if !succeeds && UnixStream::connect(&path).await.is_ok() {
            let why = format!("another gateway offers itself at {}", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
        }
        let listener = place::bind(&path)?;
        Ok(Self { listener, path })
    }

    /// The next one of this user that asks. Cancel-safe.
    pub async fn next(&self) -> Successor {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match of_this_user(&stream) {
                    Ok(()) => return Successor(BufReader::new(stream)),
                    Err(error) => tracing::warn!(%error, "refused to be taken over"),
                },
                Err(error) => {
                    tracing::warn!(%error, "takeover: cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Is found no longer, where nobody has taken over.
    pub fn withdraw(self) {
        // Left behind it does no harm: nobody answers there.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Successor {
    /// Its process, by the number that it has for this one.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        process(self.0.get_ref())
    }

    /// Gives a copy of each socket.
    ///
    /// # Errors
    /// When it speaks another language, or leaves.
    pub async fn give<'a>(
        &mut self,
        sockets: impl IntoIterator<Item = Given<BorrowedFd<'a>>>,
    ) -> io::Result<()> {
        let greeting = self.line().await?;
        if greeting != wire::GREETING {
            return Err(io::Error::other(format!(
                "it speaks another version of this protocol: {greeting:?}"
            )));
        }
        for Given { socket, stands_for } in sockets {
            if let Some(address) = stands_for {
                wire::send_address(self.0.get_ref(), address).await?;
            }
            wire::send(self.0.get_ref(), wire::SOCKET, Some(socket)).await?;
        }
        wire::send(self.0.get_ref(), wire::ALL, None).await
    }

    /// Waits until it serves; answers with the addresses that it serves.
    ///
    /// # Errors
    /// When it leaves before that.
    pub async fn serves(&mut self) -> io::Result<HashSet<SocketAddr>> {
        let line = self.line().await?;
        let mut words = line.split(' ');
        if words.next() != Some(wire::SERVE) {
            return Err(io::Error::other(format!("it says {line:?}")));
        }
        words
            .map(|word| word.parse().map_err(|_| io::Error::other(format!("{word:?} is no address"))))
            .collect()
    }

    /// Says that its sockets are its own now.
    pub async fn let_go(self) {
        // It has what it needs, whether it hears this or not.
        let _ = wire::send(self.0.get_ref(), wire::LET_GO, None).await;
    }

    /// Says that nothing has changed hands.
    pub async fn refuse(self) {
        let _ = wire::send(self.0.get_ref(), wire::REFUSED, None).await;
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        (&mut self.0).take(LINE_MAX).read_line(&mut line).await?;
        match line.strip_suffix('\n') {
            Some(whole) => Ok(whole.to_owned()),
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it left")),
        }
    }
}

impl Predecessor {
    /// As [`Successor::process`].
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        process(&self.0)
    }

    /// The gateway that serves this admin address, with all of its sockets; `None` where there is none.
    ///
    /// # Errors
    /// When it is another user's, or does not give its sockets.
    pub async fn ask(admin: SocketAddr) -> io::Result<Option<(Self, Vec<Given<OwnedFd>>)>> {
        let path = place::of(admin)?;
        let mut stream = match UnixStream::connect(&path).await {
            Ok(stream) => stream,
            // No socket, or one that a killed gateway left behind.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
        };
        of_this_user(&stream)?;
        let process = stream.peer_cred()?.pid().and_then(Pid::from_raw);
        let process = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        match take_all(&mut stream).await {
            Ok(sockets) => Ok(Some((Self(stream), sockets))),
            Err(error) => {
                // Of a process that was killed this end closes first, and its ports a moment later.
                if is_about_the_end(&error)
                    && let Some(process) = process
                {
                    let _ = spawn_blocking(move || until_ended(&process)).await;
                }
                Err(error)
            }
        }
    }

    /// Says that these addresses are served here; the predecessor then lets go of them, and of all that it has.
    pub async fn dismiss(mut self, served: impl Iterator<Item = SocketAddr>) -> Dismissed {
        let mut line = String::from(wire::SERVE);
        for address in served {
            line.push(' ');
            line.push_str(&address.to_string());
        }
        line.push('\n');
        // Where this fails, a refusal that came before is still there to be read.
        let _ = self.0.write_all(line.as_bytes()).await;
        match wire::receive(&self.0).await {
            Ok(Some((wire::LET_GO, _))) => Dismissed::LetsGo,
            Ok(Some(_)) => Dismissed::Refuses,
            Ok(None) | Err(_) => Dismissed::Gone,
        }
    }
}

async fn take_all(stream: &mut UnixStream) -> io::Result<Vec<Given<OwnedFd>>> {
    stream.write_all(format!("{}\n", wire::GREETING).as_bytes()).await?;
    let (mut sockets, mut stands_for) = (Vec::new(), None);
    loop {
        match wire::receive(stream).await? {
            Some((wire::STANDS_FOR, None)) => stands_for = Some(wire::receive_address(stream).await?),
            Some((wire::SOCKET, Some(socket))) if sockets.len() < SOCKETS_MAX => {
                sockets.push(Given { socket, stands_for: stands_for.take() });
            }
            Some((wire::ALL, None)) => return Ok(sockets),
            Some(_) => return Err(io::Error::other("it does not give its sockets")),
            None => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it left before it gave them all"));
            }
        }
    }
}

/// Readable when the process has ended, and all that it had is closed.
fn until_ended(process: &OwnedFd) {
    let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    // A process that lives keeps its ports, and whoever binds them next is told.
    let _ = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&patience));
}

fn is_about_the_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn of_this_user(stream: &UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    if peer.uid() == geteuid().as_raw() {
        return Ok(());
    }
    let pid = peer.pid().map_or_else(|| "?".into(), |pid| pid.to_string());
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("process {pid} there is of user {}, and this one of {}", peer.uid(), geteuid().as_raw()),
    ))
}

#[cfg(test)]
mod tests;
