//! Listening sockets that were there before this process: passed by a supervisor (`LISTEN_FDS`), or taken over from the
//! gateway that ran before. Each says itself where it listens.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use socket2::{SockRef, Type};

/// What has been inherited, and from whom.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The supervisor keeps its copy: for as long as we live, too, nobody else can have the address.
    passed: Vec<Found>,
    taken: Vec<Found>,
}

#[derive(Debug)]
struct Found {
    address: SocketAddr,
    /// The virtual address that it stands in for.
    stands_for: Option<SocketAddr>,
    /// An IPv6 socket on all addresses that takes IPv4 as well.
    takes_ipv4: bool,
    socket: TcpListener,
}

impl Inherited {
    /// Sockets of a supervisor's; one that does not listen for TCP is left alone, and said so.
    #[must_use]
    pub fn passed(sockets: Vec<OwnedFd>) -> Self {
        Self { passed: found(sockets.into_iter().map(|socket| (socket, None))), taken: Vec::new() }
    }

    /// Adds those of a predecessor, each with the virtual address that it stands in for.
    pub fn take_over(&mut self, sockets: impl Iterator<Item = (OwnedFd, Option<SocketAddr>)>) {
        self.taken = found(sockets);
    }

    /// Lets go of what was taken over and is not in use.
    pub fn settle(&mut self) {
        self.taken.clear();
    }

    /// Copies of the sockets on this address.
    ///
    /// # Errors
    /// When descriptors have run out.
    pub fn on(&self, address: SocketAddr) -> io::Result<Vec<TcpListener>> {
        let here = |found: &&Found| found.address == address && found.stands_for.is_none();
        self.all().filter(here).map(|found| found.socket.try_clone()).collect()
    }

    /// Copies of the sockets that stand in for this address.
    ///
    /// # Errors
    /// As [`Self::on`].
    pub fn standing_for(&self, address: SocketAddr) -> io::Result<Vec<TcpListener>> {
        let stands = |found: &&Found| found.stands_for == Some(address);
        self.all().filter(stands).map(|found| found.socket.try_clone()).collect()
    }

    /// Whether clients of this IPv4 address come in by a socket of IPv6 that is inherited.
    #[must_use]
    pub fn covers(&self, address: SocketAddr) -> bool {
        let any = |found: &Found| found.takes_ipv4 && found.address.port() == address.port();
        address.is_ipv4() && address.ip().is_unspecified() && self.all().any(any)
    }

    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.all().map(|found| found.address)
    }

    /// What a supervisor passed and none of `used` is.
    pub fn unused(&self, used: impl Fn(SocketAddr) -> bool) -> impl Iterator<Item = SocketAddr> {
        self.passed.iter().map(|found| found.address).filter(move |address| !used(*address))
    }

    fn all(&self) -> impl Iterator<Item = &Found> {
        self.passed.iter().chain(&self.taken)
    }
}

fn found(sockets: impl Iterator<Item = (OwnedFd, Option<SocketAddr>)>) -> Vec<Found> {
    let look = |(socket, stands_for)| match Found::new(socket, stands_for) {
        Ok(found) => Some(found),
        Err(error) => {
            tracing::warn!(%error, "an inherited descriptor is left alone");
            None
        }
    };
    sockets.filter_map(look).collect()
}

impl Found {
    fn new(socket: OwnedFd, stands_for: Option<SocketAddr>) -> io::Result<Self> {
        let look = SockRef::from(&socket);
        if look.r#type()? != Type::STREAM || !look.is_listener()? {
            return Err(io::Error::other("it does not listen for connections"));
        }
        let address = look.local_addr()?.as_socket().ok_or_else(|| io::Error::other("it is not of TCP"))?;
        let takes_ipv4 = address.is_ipv6() && address.ip().is_unspecified() && !look.only_v6()?;
        super::make_ours(look)?;
        Ok(Self { address, stands_for, takes_ipv4, socket: socket.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_found_by_the_address_that_they_listen_on() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let other = SocketAddr::from(([127, 0, 0, 1], 1));
        let copies = [socket.try_clone().unwrap(), socket.try_clone().unwrap()];
        let mut inherited = Inherited::passed(vec![socket.into()]);
        let away = SocketAddr::from(([198, 18, 0, 1], 80));
        inherited.take_over(copies.into_iter().map(OwnedFd::from).zip([None, Some(away)]));
        assert_eq!((inherited.on(address).unwrap().len(), inherited.on(other).unwrap().len()), (2, 0));
        assert_eq!((inherited.on(away).unwrap().len(), inherited.standing_for(away).unwrap().len()), (0, 1));
        inherited.settle();
        assert_eq!(inherited.on(address).unwrap().len(), 1);
        assert_eq!(inherited.unused(|_| false).collect::<Vec<_>>(), [address]);
        assert!(!inherited.covers(address) && inherited.unused(|used| used == address).next().is_none());
    }

    #[test]
    fn one_socket_of_ipv6_may_stand_for_all_addresses_of_ipv4() {
        let Ok(socket) = TcpListener::bind("[::]:0") else { return eprintln!("NOT RUN: no IPv6 here") };
        let port = socket.local_addr().unwrap().port();
        let takes_ipv4 = !SockRef::from(&socket).only_v6().unwrap();
        let inherited = Inherited::passed(vec![socket.into()]);
        let all = SocketAddr::from(([0, 0, 0, 0], port));
        assert_eq!(inherited.covers(all), takes_ipv4);
        assert!(
            !inherited.covers(([127, 0, 0, 1], port).into())
                && !inherited.covers(([0, 0, 0, 0], port ^ 1).into())
        );
    }

    #[test]
    fn what_does_not_listen_is_left_alone() {
        let bound = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let inherited = Inherited::passed(vec![bound.into(), client.into(), file.into()]);
        assert_eq!(inherited.addresses().count(), 0);
    }
}
