//! One look at all counted sockets of the host: reading the iterator runs its program once for each.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use penstock_common::account::Sight;

use crate::kernel::sys;

/// The kernel hands out eight pages at a time and searches its place again with each read.
const BUFFER: usize = 64 * 1024;

/// The iterator's link, and a buffer for what it says.
pub(super) struct Look {
    link: OwnedFd,
    bytes: Vec<u8>,
}

impl Look {
    pub(super) fn new(link: OwnedFd) -> Self {
        Self { link, bytes: vec![0; BUFFER] }
    }

    /// All counted sockets, of whatever endpoint and network namespace.
    pub(super) fn look(&mut self) -> io::Result<Vec<Sight>> {
        let mut iterator = File::from(sys::start_iterator(self.link.as_fd())?);
        let mut sights = Vec::new();
        let mut have = 0;
        loop {
            let spare = self.bytes.get_mut(have..).unwrap_or_default();
            let read = iterator.read(spare)?;
            have += read;
            let whole = have - have % size_of::<Sight>();
            let (lines, rest) = self.bytes.split_at(whole);
            sights.extend(lines.chunks_exact(size_of::<Sight>()).filter_map(sys::from_bytes::<Sight>));
            if read == 0 {
                return Ok(sights);
            }
            let rest = rest.len().min(have - whole);
            self.bytes.copy_within(whole..whole + rest, 0);
            have = rest;
        }
    }
}
