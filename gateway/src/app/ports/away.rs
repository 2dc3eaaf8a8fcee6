//! Addresses of Gateways that this host has not: sockets on the loopback stand in for them, and what its processes connect
//! to there is sent to those.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use crate::kernel::intercept::Intercept;
use crate::listener;

pub(in crate::app) struct Virtual(Result<Intercept, String>);

impl Virtual {
    /// With the program that sends connects here, or why there is none.
    pub(in crate::app) fn new(program: Result<Intercept, String>) -> Self {
        Self(program)
    }

    /// Sockets that stand in for an address, one for each of `workers`; `inherited` are those of a predecessor. None where
    /// this host has no such address family: nobody can connect there.
    ///
    /// # Errors
    /// When nothing would send connects there, or somebody else's program sends them elsewhere.
    pub(super) fn bind(
        &self,
        address: SocketAddr,
        workers: usize,
        inherited: Vec<TcpListener>,
    ) -> io::Result<Vec<TcpListener>> {
        let program = self.0.as_ref().map_err(|why| {
            let why = format!("this host has no such address, and connects to it are not intercepted: {why}");
            io::Error::new(io::ErrorKind::AddrNotAvailable, why)
        })?;
        let mut sockets = inherited;
        let is_new = sockets.is_empty();
        if is_new {
            sockets = match listener::bind(SocketAddr::new(loopback(address), 0), 1, [], Vec::new()) {
                Err(e) if listener::lacks_family(&e) => {
                    tracing::warn!(%address, error = %e, "this host has no such address family; nobody is served there");
                    return Ok(Vec::new());
                }
                bound => bound?,
            };
        }
        let Some(first) = sockets.first() else { return Ok(Vec::new()) };
        let at = first.local_addr()?;
        let seen = program.seen(address)?;
        if seen != address && (is_new || seen != at) {
            let why = format!(
                "connects to it are already sent to {seen}, by another gateway or another eBPF program of this host"
            );
            return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
        }
        listener::bind(at, workers, [at], sockets)
    }

    /// Sends what is connected to `address` to the sockets at `at`.
    pub(super) fn open(&mut self, address: SocketAddr, at: SocketAddr) {
        let Ok(program) = &mut self.0 else { return };
        match program.redirect(address, at) {
            Ok(()) => tracing::info!(%address, %at, "connects of this host's processes there come here"),
            Err(error) => tracing::error!(%address, %error, "connects there cannot be intercepted"),
        }
    }

    pub(super) fn close(&mut self, address: SocketAddr) {
        if let Ok(program) = &mut self.0 {
            program.forget(address);
        }
    }

    /// Lets all connects go where they went before there was a gateway; earlier ones go on.
    pub(super) fn close_all(&mut self) {
        if let Ok(program) = &mut self.0 {
            program.forget_all();
        }
    }

    /// Leaves the connects of this process alone, another gateway's.
    pub(super) fn spare(&mut self, process: Option<u32>) {
        if let Ok(program) = &mut self.0 {
            program.spare(process);
        }
    }

    /// Looks up whose connects are meant; answers with how many were intercepted so far.
    pub(super) fn follow(&mut self) -> Option<u64> {
        let program = self.0.as_mut().ok()?;
        program.follow();
        Some(program.intercepted())
    }

    /// Whether the program is at work, or why it is not.
    pub(super) fn works(&self) -> Result<(), String> {
        self.0.as_ref().map(drop).map_err(Clone::clone)
    }
}

fn loopback(address: SocketAddr) -> IpAddr {
    if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}
