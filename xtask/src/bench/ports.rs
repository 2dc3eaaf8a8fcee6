//! Ports for peers that cannot take a free one by themselves and say which.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use anyhow::{Context as _, Result};

const LOWEST: u16 = 10_000;
/// Where the kernel takes the ports of outgoing connections from; the load makes thousands, and each could have the port
/// that a peer is about to listen on.
const OUTGOING: &str = "/proc/sys/net/ipv4/ip_local_port_range";

static NEXT: AtomicU16 = AtomicU16::new(0);

/// An address that nobody listens on now, and that no outgoing connection gets.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let range = std::fs::read_to_string(OUTGOING).unwrap_or_default();
    let outgoing_from: u16 = range.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(32_768);
    let count = outgoing_from.saturating_sub(LOWEST).max(1);
    // Two benches at a time begin at different ports.
    let start = (std::process::id() % u32::from(count)) as u16;
    for _ in 0..count {
        let step = NEXT.fetch_add(1, Relaxed) % count;
        let port = LOWEST + (start + step) % count;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok((Ipv4Addr::LOCALHOST, port).into());
        }
    }
    None.with_context(|| format!("no free port from {LOWEST} to {outgoing_from}"))
}
