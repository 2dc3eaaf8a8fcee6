//! The netlink messages of sock_diag(7), as far as TCP needs them.
//!
//! Written by hand: one request and one answer of fixed layout, where a netlink crate would not parse the `tcp_info`
//! fields that are wanted any better. Layouts: `linux/inet_diag.h`, `linux/tcp.h`.

use penstock_common::account::{Ip, mapped};

const AF_INET: u8 = 2;

/// Every state but CLOSE, LISTEN, SYN_SENT, SYN_RECV, TIME_WAIT and NEW_SYN_RECV: what the programs count as open.
pub(super) const OPEN: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
pub(super) const LISTEN: u32 = 1 << 10;

const TCPDIAG_GETSOCK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const INET_DIAG_INFO: u16 = 2;
const REQ_BYTECODE: u16 = 1;

/// One socket of the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    pub local: (Ip, u16),
    pub remote: (Ip, u16),
    pub cookie: u64,
    /// `None` for what is no whole socket any more.
    pub info: Option<Info>,
}

/// From `struct tcp_info`.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::kernel) struct Info {
    pub sent_ago_ms: u32,
    pub received_ago_ms: u32,
    pub srtt_us: u32,
    pub retransmits: u32,
    pub sent: u64,
    pub received: u64,
}

/// A request for all TCP sockets in one of `states` that have one of `ports` at either end.
///
/// The older of the two requests: it takes IPv4 and IPv6 in one walk over the kernel's table, whose length, and not
/// the answer's, is most of the cost.
pub(super) fn request(states: u32, ports: &[u16]) -> Vec<u8> {
    let filter = filter(ports);
    let length = 16 + 60 + 4 + filter.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(TCPDIAG_GETSOCK.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([0, 0, 0, 1 << (INET_DIAG_INFO - 1)]);
    bytes.extend([0; 48]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend((4 + filter.len() as u16).to_ne_bytes());
    bytes.extend(REQ_BYTECODE.to_ne_bytes());
    bytes.extend(filter);
    bytes
}

/// Bytecode that accepts a socket with one of the ports at either end: the kernel then copies out nothing else.
fn filter(ports: &[u16]) -> Vec<u8> {
    const JMP: u8 = 1;
    const S_COND: u8 = 7;
    const D_COND: u8 = 8;
    const CONDITION: u16 = 12;
    const JUMP: u16 = 4;
    let total = ports.len() as u16 * 2 * (CONDITION + JUMP) + JUMP;
    let mut code: Vec<u8> = Vec::with_capacity(total.into());
    let op = |code: &mut Vec<u8>, what: u8, yes: u16, no: u16| {
        code.extend([what, yes as u8]);
        code.extend(no.to_ne_bytes());
    };
    for port in ports {
        for condition in [S_COND, D_COND] {
            op(&mut code, condition, CONDITION, CONDITION + JUMP);
            // Any family, no prefix of the address, this port.
            code.extend([0, 0, 0, 0]);
            code.extend(i32::from(*port).to_ne_bytes());
            // Met: to the very end, which accepts.
            let rest = total - code.len() as u16;
            op(&mut code, JMP, JUMP, rest);
        }
    }
    // None met: beyond the end, which refuses.
    op(&mut code, JMP, JUMP, 2 * JUMP);
    code
}

/// What a datagram of the answer says.
pub(super) enum Part {
    More,
    Done,
    /// An errno.
    Failed(i32),
}

/// Takes the sockets out of one datagram.
pub(super) fn parse(mut bytes: &[u8], into: &mut Vec<Listed>) -> Part {
    while let Some(header) = bytes.get(..16) {
        let length = u32_at(header, 0).unwrap_or(0) as usize;
        let Some(message) = bytes.get(16..length) else { return Part::Failed(libc::EBADMSG) };
        match u16_at(header, 4) {
            Some(NLMSG_DONE) => return Part::Done,
            Some(NLMSG_ERROR) => {
                return Part::Failed(
                    u32_at(message, 0).map_or(libc::EBADMSG, |e| e.cast_signed().wrapping_neg()),
                );
            }
            Some(TCPDIAG_GETSOCK) => into.extend(listed(message)),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Part::More
}

fn listed(message: &[u8]) -> Option<Listed> {
    let family = *message.first()?;
    let end = |port: usize, ip: usize| {
        let port = u16::from_be_bytes(message.get(port..port + 2)?.try_into().ok()?);
        let ip = match family {
            AF_INET => mapped(message.get(ip..ip + 4)?.try_into().ok()?),
            _ => message.get(ip..ip + 16)?.try_into().ok()?,
        };
        Some((ip, port))
    };
    Some(Listed {
        local: end(4, 8)?,
        remote: end(6, 24)?,
        cookie: u64::from(u32_at(message, 44)?) | u64::from(u32_at(message, 48)?) << 32,
        info: attribute(message.get(72..)?, INET_DIAG_INFO).and_then(info),
    })
}

fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(bytes, 0)?);
        let value = bytes.get(4..length)?;
        if u16_at(bytes, 2)? == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn info(bytes: &[u8]) -> Option<Info> {
    Some(Info {
        sent_ago_ms: u32_at(bytes, 44)?,
        received_ago_ms: u32_at(bytes, 52)?,
        srtt_us: u32_at(bytes, 68)?,
        retransmits: u32_at(bytes, 100)?,
        sent: u64_at(bytes, 120)?,
        received: u64_at(bytes, 128)?,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_filter_of_many_ports_stays_inside_an_attribute() {
        let ports: Vec<u16> = (1..=256).collect();
        assert_eq!(filter(&ports).len(), 256 * 32 + 4);
        assert!(request(OPEN, &ports).len() < usize::from(u16::MAX));
    }

    proptest! {
        #[test]
        fn no_datagram_is_too_ugly(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut into = Vec::new();
            let _ = parse(&bytes, &mut into);
            prop_assert!(into.len() <= 7);
        }
    }
}
