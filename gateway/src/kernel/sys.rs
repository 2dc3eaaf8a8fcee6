//! The few system calls that aya has no call for, the memory that the kernel half writes, and descriptors that are known
//! by number alone: all unsafe code of the user half is here.
#![allow(
    unsafe_code,
    reason = "bpf(2), mmap(2), raw netlink, LISTEN_FDS, malloc_trim(3); each use says why it is sound"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use penstock_common::account::{Entry, Key, Own, ROWS_PER_CPU, Row, Side, Sight, Socket, row};
use penstock_common::intercept::{Dialled, Target};
use penstock_common::splice::{Mark, Report};
use penstock_common::steer::{Address, Group};

const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_ITER_CREATE: libc::c_long = 33;
const BPF_TRACE_ITER: u32 = 28;

/// Calls bpf(2).
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a live, initialised structure, and pointers inside it
    // that the callers below keep alive over the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn bpf_fd<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    let fd = i32::try_from(bpf(command, attributes)?).map_err(io::Error::other)?;
    // SAFETY: the call succeeded, so the descriptor is open and nobody else's. The kernel sets close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a link of an iterator program over one map, which aya cannot: its `Iter::attach` names no map.
pub(super) fn link_iterator(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        info: u64,
        info_len: u32,
        reserved: u32,
    }
    let info = map.as_raw_fd().cast_unsigned();
    bpf_fd(
        BPF_LINK_CREATE,
        &Attributes {
            program: program.as_raw_fd().cast_unsigned(),
            target: 0,
            attach_type: BPF_TRACE_ITER,
            flags: 0,
            info: (&raw const info).addr() as u64,
            info_len: 4,
            reserved: 0,
        },
    )
}

/// Pins what a descriptor of the BPF subsystem refers to.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes =
        Attributes { path: path.as_ptr().addr() as u64, fd: fd.as_raw_fd().cast_unsigned(), flags: 0 };
    bpf(BPF_OBJ_PIN, &attributes).map(drop)
}

/// Opens a pin.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes: [u64; 2] = [path.as_ptr().addr() as u64, 0];
    bpf_fd(BPF_OBJ_GET, &attributes)
}

/// Starts one run of a linked iterator; reading the descriptor runs it.
pub(super) fn start_iterator(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attributes: [u32; 2] = [link.as_raw_fd().cast_unsigned(), 0];
    bpf_fd(BPF_ITER_CREATE, &attributes)
}

/// Writes a socket's entry in a map of socket-local storage, whose key is the descriptor.
pub(super) fn store<T: Plain>(map: BorrowedFd<'_>, socket: BorrowedFd<'_>, value: &T) -> io::Result<()> {
    update(map, &socket.as_raw_fd(), value)
}

/// Puts a socket into a map of sockets.
pub(super) fn enter(map: BorrowedFd<'_>, key: u64, socket: BorrowedFd<'_>) -> io::Result<()> {
    update(map, &key, &socket.as_raw_fd())
}

/// Both must be of the sizes that the map was made with.
fn update<K, V>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        map: u32,
        reserved: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let attributes = Attributes {
        map: map.as_raw_fd().cast_unsigned(),
        reserved: 0,
        key: std::ptr::from_ref(key).addr() as u64,
        value: std::ptr::from_ref(value).addr() as u64,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_ELEM, &attributes).map(drop)
}

/// The value of a u64 socket option.
pub(super) fn socket_option_u64(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<u64> {
    let mut value = 0u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: both pointers are to live locals of the sizes that are given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// The cookie of the network namespace that this process is in.
pub(super) fn netns_cookie() -> io::Result<u64> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    socket_option_u64(socket.as_fd(), libc::SO_NETNS_COOKIE)
}

/// Bytes that were ever written to a TCP socket, but for a constant; an error once it is closed or reset, which throws
/// its queue away. What is acknowledged and what is not, read as of one moment: the kernel's count of bytes that it
/// sent has those twice that it could not send at once.
pub(super) fn written(socket: BorrowedFd<'_>) -> io::Result<u64> {
    const TRIES: u32 = 64;
    let mut acknowledged = acknowledged(socket)?;
    for _ in 0..TRIES {
        let mut queued: libc::c_int = 0;
        // SAFETY: the pointer is to a live local of the type that this request writes (tcp_ioctl in net/ipv4/tcp.c).
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let before = std::mem::replace(&mut acknowledged, self::acknowledged(socket)?);
        if before == acknowledged {
            return Ok(acknowledged.wrapping_add(u64::from(queued.unsigned_abs())));
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Bytes that the peer of a TCP socket has acknowledged.
fn acknowledged(socket: BorrowedFd<'_>) -> io::Result<u64> {
    const CLOSED: u8 = 7;
    // An offset in `struct tcp_info`, which only grows; libc's is the one of 2004. The state comes first.
    const BYTES_ACKED: usize = 120;
    let mut info = [0u8; BYTES_ACKED + 8];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: both pointers are to live locals of the sizes that are given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if info[0] == CLOSED {
        return Err(io::ErrorKind::NotConnected.into());
    }
    let bytes = info.last_chunk::<8>().copied().unwrap_or_default();
    Ok(u64::from_ne_bytes(bytes))
}

/// Moves this thread into a network namespace of its own, with loopback up.
pub(super) fn own_network() -> io::Result<()> {
    // SAFETY: takes no pointer; the namespace is the thread's, and descriptors stay what they are.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: all zeros are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads one `ifreq`, which is live.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A netlink socket that asks about sockets.
pub(super) fn sock_diag_socket() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = unsafe {
        libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_SOCK_DIAG)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The descriptors that a supervisor passed to this process, by `LISTEN_FDS`: so many from 3 on (sd_listen_fds(3)); a
/// second call gets none. Call it before anything else opens a descriptor.
#[must_use]
pub fn passed(count: u16) -> Vec<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    const FIRST: i32 = 3;
    if TAKEN.swap(true, Relaxed) {
        return Vec::new();
    }
    let take = |number| {
        // SAFETY: takes no pointer, and changes the flags of this one descriptor; one that is not open is refused.
        let is_open = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
        // SAFETY: open, passed to this process for it to have, and by the flag above claimed but once.
        is_open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
    };
    (FIRST..FIRST + i32::from(count)).filter_map(take).collect()
}

/// Values that cross between the halves as bytes: any bytes are a valid value, and none of them is padding.
pub(super) trait Plain: Copy {}
impl Plain for Key {}
impl Plain for Entry {}
impl Plain for Own {}
impl Plain for Sight {}
impl Plain for Row {}
impl Plain for Socket {}
impl Plain for Mark {}
impl Plain for Report {}
impl Plain for Address {}
impl Plain for Dialled {}
impl Plain for Target {}
impl Plain for Group {}

/// The value that `bytes` are; `None` where the length differs.
pub(super) fn from_bytes<T: Plain>(bytes: &[u8]) -> Option<T> {
    // SAFETY: `Plain` admits any bytes, the length is checked, and the read needs no alignment.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// A value as aya's maps take it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pod<T: Plain>(pub T);
// SAFETY: `Plain` says that any bytes are a value and no byte is padding.
unsafe impl<T: Plain + 'static> aya::Pod for Pod<T> {}

/// The rows that the kernel half adds to, mapped: read without a system call.
#[derive(Debug)]
pub(super) struct Rows {
    base: NonNull<Row>,
    len: usize,
}

// SAFETY: the mapping is shared memory that is only touched by atomic operations.
unsafe impl Send for Rows {}

impl Rows {
    /// Maps the first `len` rows of an array map.
    pub(super) fn map(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags};
        // SAFETY: a new mapping at an address of the kernel's choice; a map that is too short is refused.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len * size_of::<Row>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.as_fd(),
                0,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    /// The row as it is now; each of its fields is whole, the row as such is not.
    pub(super) fn get(&self, index: u32) -> Row {
        let cell = |n| self.cell(index, n).map_or(0, |cell| cell.load(Relaxed));
        Row {
            open: cell(0),
            opened: cell(1),
            failed: cell(2),
            reset: cell(3),
            received: cell(4),
            sent: cell(5),
            retransmits: cell(6),
            reserved: 0,
        }
    }

    /// What all CPUs booked to an endpoint's connections of one side and owner.
    pub(super) fn sum(&self, slot: u32, side: Side, owner: u8) -> Row {
        let mut sum = Row::default();
        for cpu in 0..self.cpus() {
            sum += self.get(row(cpu, slot, side as u8, owner));
        }
        sum
    }

    pub(super) fn cpus(&self) -> u32 {
        (self.len / ROWS_PER_CPU) as u32
    }

    pub(super) fn clear(&self, index: u32) {
        for n in 0..size_of::<Row>() / 8 {
            if let Some(cell) = self.cell(index, n) {
                cell.store(0, Relaxed);
            }
        }
    }

    fn cell(&self, index: u32, field: usize) -> Option<&AtomicI64> {
        let index = usize::try_from(index).ok().filter(|index| *index < self.len)?;
        // SAFETY: inside the mapping, which lives as long as `self`; a row is eight aligned i64.
        Some(unsafe { AtomicI64::from_ptr(self.base.as_ptr().add(index).cast::<i64>().add(field)) })
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len * size_of::<Row>()) };
    }
}

/// The value of an array map, mapped: words that both halves write at any time, each whole.
#[derive(Debug)]
pub(super) struct Words {
    base: NonNull<u64>,
    len: usize,
}

// SAFETY: the mapping is shared memory that is only touched by atomic operations.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Maps the first `len` words of an array map.
    pub(super) fn map(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags};
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; a map that is too short is refused.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len * 8, protection, MapFlags::SHARED, map.as_fd(), 0)
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    pub(super) fn get(&self, index: usize) -> Option<&AtomicU64> {
        // SAFETY: inside the mapping, which lives as long as `self` and begins at a page.
        (index < self.len).then(|| unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(index)) })
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len * 8) };
    }
}

/// Gives the pages back to the system that malloc keeps between what is in use. Takes milliseconds where there are many.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: any thread may call it at any time: it takes malloc's own locks and moves nothing.
    unsafe {
        libc::malloc_trim(0);
    }
}
