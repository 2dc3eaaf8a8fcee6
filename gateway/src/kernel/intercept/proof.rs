//! Whether this very kernel does what interception relies on: tried at start, with connects between sockets of our own.

use std::io;
use std::mem::offset_of;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::time::Duration;

use penstock_common::intercept::Control;

use super::Intercept;

/// For a connection over the loopback.
const PATIENCE: Duration = Duration::from_secs(1);

impl Intercept {
    /// Learns which process we are, and tries everything while our own connects are still meant.
    pub(super) fn prove(&mut self) -> io::Result<()> {
        self.mean(self.cgroups.whole(), &[]);
        let four = Pair::on(([127, 0, 0, 1], 0).into())?;
        let asked = self.seen(four.dialled)?;
        if asked != four.dialled {
            return Err(io::Error::other(format!("it reads {} as {asked}", four.dialled)));
        }
        let own = self.get(offset_of!(Control, asked_by));
        self.try_pair(&four, four.dialled)?;
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        // A host without IPv6 has no such clients.
        if let Ok(six) = Pair::on(([0, 0, 0, 0, 0, 0, 0, 1], 0).into()) {
            self.try_pair(&six, six.dialled)?;
            self.try_pair(&four, SocketAddrV6::new(mapped, four.dialled.port(), 0, 0).into())?;
        }
        self.set(offset_of!(Control, own), own);
        self.redirect(four.dialled, four.target)?;
        let landed = four.connect(four.dialled);
        self.forget(four.dialled);
        if landed?.0 != four.dialled {
            return Err(io::Error::other("it takes the gateway's own connects too"));
        }
        self.set(offset_of!(Control, intercepted), 0);
        Ok(())
    }

    /// `dialled` may be another form of the pair's.
    fn try_pair(&mut self, pair: &Pair, dialled: SocketAddr) -> io::Result<()> {
        self.redirect(pair.dialled, pair.target)?;
        let landed = pair.connect(dialled);
        self.forget(pair.dialled);
        let (at, shown) = landed?;
        if at != pair.target || shown != dialled {
            return Err(io::Error::other(format!(
                "a connect to {dialled}, to be sent to {}, came to {at} and shows {shown}",
                pair.target
            )));
        }
        Ok(())
    }
}

/// Two listening sockets: connects to the one shall come to the other.
struct Pair {
    dialled: SocketAddr,
    target: SocketAddr,
    sockets: [TcpListener; 2],
}

impl Pair {
    fn on(any: SocketAddr) -> io::Result<Self> {
        let sockets = [TcpListener::bind(any)?, TcpListener::bind(any)?];
        sockets.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
        Ok(Self { dialled: sockets[0].local_addr()?, target: sockets[1].local_addr()?, sockets })
    }

    /// Where a connect came to, and what it shows its client for its peer.
    fn connect(&self, to: SocketAddr) -> io::Result<(SocketAddr, SocketAddr)> {
        let client = TcpStream::connect_timeout(&to, PATIENCE)?;
        let came = self.sockets.iter().find(|socket| socket.accept().is_ok());
        let came = came.ok_or_else(|| io::Error::other(format!("a connect to {to} came to neither")))?;
        Ok((came.local_addr()?, client.peer_addr()?))
    }
}
