//! One look at all counted sockets of the host: reading the iterator runs its program once for each.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use penstock_common::account::Sight;

use crate::kernel::sys;

/// The iterator's link, and the bytes of the last look.
pub(super) struct Look {
    link: OwnedFd,
    bytes: Vec<u8>,
}

impl Look {
    pub(super) fn new(link: OwnedFd) -> Self {
        Self { link, bytes: Vec::new() }
    }

    /// All counted sockets, of whatever endpoint and network namespace.
    pub(super) fn look(&mut self) -> io::Result<Vec<Sight>> {
        self.bytes.clear();
        File::from(sys::start_iterator(self.link.as_fd())?).read_to_end(&mut self.bytes)?;
        Ok(self.bytes.chunks_exact(size_of::<Sight>()).filter_map(sys::from_bytes).collect())
    }
}

/// The clock of the programs.
pub(super) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
