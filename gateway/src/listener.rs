//! Listening sockets: one for each worker on each address, so that the kernel spreads connections over workers.

mod inherited;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

pub use inherited::Inherited;

/// Connections that the kernel queues for a socket; it lowers this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// No network device has this index.
const NO_DEVICE: Option<NonZeroU32> = NonZeroU32::new(i32::MAX.cast_unsigned());

/// A socket on `address` for each of `workers`, or more where `inherited`, those that are there already, are more; `open`
/// is what this process and those before it listen on.
///
/// # Errors
/// When the address is taken (also by another process that would share it), not local, or not permitted.
pub fn bind(
    address: SocketAddr,
    workers: usize,
    open: impl IntoIterator<Item = SocketAddr>,
    inherited: Vec<TcpListener>,
) -> io::Result<Vec<TcpListener>> {
    // SO_REUSEPORT would let two gateways of one user share the port and each get half of the clients. Where a
    // socket of our own has the port, it keeps others out, and would fail this too.
    if !open.into_iter().any(|open| overlap(open, address)) {
        drop(socket(address, false)?);
    }
    let had = inherited.len();
    let mut sockets = inherited;
    while sockets.len() < workers {
        let another = socket(address, true).and_then(|bound| bound.listen(BACKLOG));
        sockets.push(match sockets.len().checked_rem(had) {
            // It lets no other join it: then its workers take turns at one socket.
            Some(turn) => another.or_else(|_| sockets[turn].try_clone())?,
            None => another?,
        });
    }
    Ok(sockets)
}

/// Has new clients find other sockets than these, or none; a handshake that has begun still ends here. Just closing one would
/// reset or lose that client, also where another socket waits for it on a wider or a narrower address.
///
/// The lookup passes over a listener that is bound to another device than the packet's (`compute_score` in
/// net/ipv4/inet_hashtables.c), and the request that a SYN left keeps the device that it had.
pub fn hide(sockets: &[TcpListener]) {
    for socket in sockets {
        // Before Linux 5.7 that takes CAP_NET_RAW: then what had begun may be lost, and nothing else. The option is of
        // SOL_SOCKET, for either family.
        let _ = SockRef::from(socket).bind_device_by_index_v4(NO_DEVICE);
    }
}

/// Whether binding failed because the host has no such address family: then the other family serves alone.
#[must_use]
pub fn lacks_family(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Whether binding failed because this host has not the address.
#[must_use]
pub fn is_away(e: &io::Error) -> bool {
    e.raw_os_error() == Some(libc::EADDRNOTAVAIL)
}

/// Whether this host has the address, or a route that delivers what comes for it here. Nothing is sent.
#[must_use]
pub fn is_here(address: SocketAddr) -> bool {
    if address.ip().is_unspecified() || address.ip().is_loopback() {
        return true;
    }
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    // Only who talks to itself does so under the other one's address.
    let from = std::net::UdpSocket::bind(any).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address.ip())
}

/// Whether two sockets on these addresses could get the same client. An IPv6 socket of ours takes no IPv4.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let ips = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && ips
}

struct Bound(Socket);

impl Bound {
    fn listen(self, backlog: i32) -> io::Result<TcpListener> {
        self.0.listen(backlog)?;
        Ok(self.0.into())
    }
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    make_ours(SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    Ok(Bound(socket))
}

fn make_ours(socket: SockRef<'_>) -> io::Result<()> {
    // Accepted sockets inherit it: token events are small writes.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::time::Duration;

    fn free() -> SocketAddr {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        bind(any, 1, [], vec![]).unwrap()[0].local_addr().unwrap()
    }

    #[test]
    fn each_worker_gets_a_socket_and_a_second_process_none() {
        let port = free();
        let sockets = bind(port, 3, [], vec![]).unwrap();
        assert_eq!(sockets.len(), 3);
        assert!(TcpStream::connect(port).is_ok());
        assert_eq!(bind(port, 1, [], vec![]).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_port_of_our_own_is_had_on_a_wider_and_on_a_narrower_address() {
        let one = free();
        let all = SocketAddr::from(([0, 0, 0, 0], one.port()));
        let narrow = bind(one, 2, [], vec![]).unwrap();
        let wide = bind(all, 2, [one], vec![]).unwrap();
        drop(narrow);
        assert_eq!(bind(one, 2, [all], vec![]).unwrap().len(), 2);
        drop(wide);
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], one.port()));
        assert!(!overlap(one, elsewhere) && !overlap(all, ([0_u16; 8], one.port()).into()));
    }

    /// A client that connects over and over, and how often it was served.
    fn keeps_connecting(port: SocketAddr, stop: &AtomicBool) -> io::Result<u32> {
        let mut served = 0;
        while !stop.load(Relaxed) {
            let mut client = TcpStream::connect(port)?;
            client.set_read_timeout(Some(Duration::from_secs(20)))?;
            client.read_exact(&mut [0])?;
            // It resets: ports in TIME_WAIT would run out.
            SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
            served += 1;
        }
        Ok(served)
    }

    fn serve_all(sockets: &[TcpListener], served: &mut Vec<TcpStream>) {
        for socket in sockets {
            while let Ok((mut client, _)) = socket.accept() {
                client.write_all(b"!").unwrap();
                served.push(client);
            }
        }
    }

    #[test]
    fn nobody_is_lost_while_sockets_that_are_hidden_before_they_are_closed_come_and_go() {
        let narrow = free();
        let wide = SocketAddr::from(([0, 0, 0, 0], narrow.port()));
        let stop = AtomicBool::new(false);
        let mut sockets = bind(narrow, 2, [], vec![]).unwrap();
        let served = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| keeps_connecting(narrow, &stop))).collect();
            let mut hidden = std::collections::VecDeque::new();
            for turn in 0..100 {
                let next = if turn % 2 == 0 { wide } else { narrow };
                let before = std::mem::replace(&mut sockets, bind(next, 2, [narrow], vec![]).unwrap());
                hide(&before);
                hidden.push_back(before);
                let mut served = Vec::new();
                for _ in 0..20 {
                    std::thread::sleep(Duration::from_micros(200));
                    hidden.iter().chain([&sockets]).for_each(|sockets| serve_all(sockets, &mut served));
                }
                // Longer than any client is between its SYN and its place in the queue.
                hidden.drain(..hidden.len().saturating_sub(20));
            }
            stop.store(true, Relaxed);
            while clients.iter().any(|client| !client.is_finished()) {
                hidden.iter().chain([&sockets]).for_each(|sockets| serve_all(sockets, &mut Vec::new()));
            }
            clients.into_iter().map(|client| client.join().unwrap().unwrap()).min()
        });
        assert!(served.is_some_and(|served| served > 10), "{served:?}");
    }

    #[test]
    fn who_was_hidden_is_refused_newcomers_and_keeps_those_that_wait() {
        for any in [SocketAddr::from(([127, 0, 0, 1], 0)), ([0, 0, 0, 0, 0, 0, 0, 1], 0).into()] {
            let Ok(sockets) = bind(any, 1, [], vec![]) else { continue };
            let port = sockets[0].local_addr().unwrap();
            let waits = TcpStream::connect(port).unwrap();
            hide(&sockets);
            assert_eq!(TcpStream::connect(port).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!(sockets[0].accept().unwrap().1, waits.local_addr().unwrap());
        }
    }

    #[test]
    fn what_is_here_is_told_from_what_is_away() {
        for here in
            [SocketAddr::from(([127, 0, 0, 1], 80)), ([127, 8, 9, 1], 80).into(), ([0, 0, 0, 0], 80).into()]
        {
            assert!(is_here(here), "{here}");
        }
        assert!(!is_here(([198, 18, 7, 7], 80).into()) && !is_here("[2001:db8::7]:80".parse().unwrap()));
    }

    #[test]
    fn inherited_sockets_are_all_used_and_joined_by_as_many_as_are_missing() {
        let port = free();
        let inherited = bind(port, 3, [], vec![]).unwrap();
        let copies =
            |count: usize| inherited[..count].iter().map(|socket| socket.try_clone().unwrap()).collect();
        assert_eq!(bind(port, 2, [port], copies(3)).unwrap().len(), 3);
        assert_eq!(bind(port, 5, [port], copies(3)).unwrap().len(), 5);
    }

    #[test]
    fn a_socket_that_admits_no_other_is_shared_by_all_workers() {
        let lonely = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = lonely.local_addr().unwrap();
        let sockets = bind(port, 3, [port], vec![lonely]).unwrap();
        assert!(sockets.len() == 3 && sockets.iter().all(|socket| socket.local_addr().unwrap() == port));
        assert_eq!(bind(port, 1, [], vec![]).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
