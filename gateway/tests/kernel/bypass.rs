//! Six instructions that put whatever one socket writes into another's receive queue: what a bypass of TCP would rest on.
#![allow(unsafe_code, reason = "bpf(2), as the gateway's own object has no such program, and splice(2)")]

use std::io::{self, PipeWriter};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_MAP_TYPE_SOCKMAP: u32 = 15;
const BPF_PROG_TYPE_SK_MSG: u32 = 16;
const BPF_SK_MSG_VERDICT: u32 = 7;
const BPF_F_INGRESS: u64 = 1;
const MSG_REDIRECT_MAP: u64 = 60;

/// Everything ends when this is dropped, a moment later.
pub(crate) struct Bypass {
    _held: [OwnedFd; 3],
}

impl Bypass {
    /// What `from` writes from now on goes into the queue that `into` reads.
    pub(crate) fn between(from: &TcpStream, into: &TcpStream) -> Self {
        let (writers, readers) = (sockmap(), sockmap());
        let program = program(&readers);
        let attach = [number(&writers), number(&program), BPF_SK_MSG_VERDICT, 0];
        bpf(BPF_PROG_ATTACH, &attach).unwrap();
        put(&readers, into);
        put(&writers, from);
        Self { _held: [writers, readers, program] }
    }
}

/// Moves what one call moves.
pub(crate) fn splice(from: &TcpStream, into: &PipeWriter) -> io::Result<usize> {
    let (none, most) = (std::ptr::null_mut(), 1 << 16);
    // SAFETY: both descriptors are open, and no offset is given.
    let count = unsafe { libc::splice(from.as_raw_fd(), none, into.as_raw_fd(), none, most, 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// With room for one socket.
fn sockmap() -> OwnedFd {
    opened(bpf(BPF_MAP_CREATE, &[BPF_MAP_TYPE_SOCKMAP, 4, 4, 1]).unwrap())
}

fn put(map: &OwnedFd, socket: &TcpStream) {
    let (key, value) = (0u32, number(socket));
    let update = [number(map).into(), address(&key), address(&value), 0];
    bpf(BPF_MAP_UPDATE_ELEM, &update).unwrap();
}

fn program(readers: &OwnedFd) -> OwnedFd {
    let mov = |register: u64, value: u64| 0xb7 | register << 8 | value << 32;
    // r2 = the map, by its descriptor.
    let map = 0x18 | 2 << 8 | 1 << 12 | u64::from(number(readers)) << 32;
    let code = [map, 0, mov(3, 0), mov(4, BPF_F_INGRESS), 0x85 | MSG_REDIRECT_MAP << 32, 0x95];
    let license = *b"GPL\0";
    let count = code.len() as u64;
    // Type and count share the first word.
    let load = [u64::from(BPF_PROG_TYPE_SK_MSG) | count << 32, address(&code), address(&license)];
    opened(bpf(BPF_PROG_LOAD, &load).unwrap())
}

fn number(fd: &impl AsRawFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(of: &T) -> u64 {
    std::ptr::from_ref(of).addr() as u64
}

fn opened(fd: libc::c_long) -> OwnedFd {
    // SAFETY: bpf(2) has just opened it, for nobody else.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a live array of numbers, and what the callers keep alive
    // behind the addresses in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
