//! The arrays that both halves write, mapped: arming and looking cost no system call.
#![allow(unsafe_code, reason = "mmap(2); each use says why it is sound")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use penstock_common::splice::{Report, Slot, TAIL, TAILS, Wish};
use rustix::mm::{MapFlags, ProtFlags};

use crate::kernel::sys::from_bytes;

const WORDS: usize = size_of::<Slot>() / 8;
const REPORT: usize = std::mem::offset_of!(Slot, report) / 8;
const REPORT_WORDS: usize = size_of::<Report>() / 8;
const ARM: usize = std::mem::offset_of!(Report, arm) / 8;
const LAST: usize = std::mem::offset_of!(Report, last_ns) / 8;
const PASSED: usize = std::mem::offset_of!(Report, passed) / 8;
const TAILS_AT: usize = std::mem::offset_of!(Slot, tails) / 8;

/// Words of an array map, shared with the kernel half.
#[derive(Debug)]
struct Words {
    base: NonNull<u64>,
    len: usize,
}

// SAFETY: the mapping is shared memory that is only touched by atomic operations.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Maps `len` words from `first` on, which is the first of a page.
    fn map(map: BorrowedFd<'_>, first: usize, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice; a map that is too short is refused.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len * 8,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.as_fd(),
                first as u64 * 8,
            )
        }?;
        Ok(Self { base: NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?, len })
    }

    /// Panics beyond the end, which only an index of our own could reach.
    fn at(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.len, "a word beyond the mapping");
        // SAFETY: inside the mapping, which lives as long as `self`, and aligned, as it begins with a page.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(index)) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len * 8) };
    }
}

/// So many slots are mapped at once: whole pages, be they of 64 KiB.
const WINDOW: u32 = 256;
const _: () = assert!((WINDOW as usize * size_of::<Slot>()).is_multiple_of(64 << 10));

/// All slots. The kernel puts every page of a mapping of an array into the process's table at once, so a window is
/// mapped when the first slot in it is wanted.
#[derive(Debug)]
pub(super) struct Slots {
    map: OwnedFd,
    len: u32,
    windows: Box<[OnceLock<Words>]>,
}

impl Slots {
    pub(super) fn new(map: OwnedFd, len: u32) -> Self {
        let windows = (0..len.div_ceil(WINDOW)).map(|_| OnceLock::new()).collect();
        Self { map, len, windows }
    }

    /// To be called before anything else is done with a slot.
    pub(super) fn open(&self, slot: u32) -> io::Result<()> {
        let window = self.windows.get((slot / WINDOW) as usize).ok_or(io::ErrorKind::InvalidInput)?;
        if window.get().is_none() {
            let first = slot / WINDOW * WINDOW;
            let len = WINDOW.min(self.len - first);
            let words = Words::map(self.map.as_fd(), first as usize * WORDS, len as usize * WORDS)?;
            // Another worker may have been as fast; then this mapping is one too many, and goes.
            let _ = window.set(words);
        }
        Ok(())
    }

    /// Writes a wish, `arm` last: the kernel half reads that first.
    pub(super) fn wish(&self, slot: u32, wish: &Wish) {
        let words = [wish.generation, wish.want, wish.budget, wish.client, wish.since_ns];
        for (n, word) in words.into_iter().enumerate() {
            self.word(slot, n + 1).store(word, Relaxed);
        }
        self.word(slot, 0).store(wish.arm, Release);
    }

    pub(super) fn disarm(&self, slot: u32) {
        self.word(slot, 0).store(0, Release);
    }

    /// The report as it is now; each word is whole, the report as such only when nothing more is redirected. `arm` comes
    /// first: figures of a wish before it are gone by then.
    pub(super) fn report(&self, slot: u32) -> Report {
        let mut bytes = [0; REPORT_WORDS * 8];
        for (n, word) in bytes.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&self.word(slot, REPORT + n).load(Acquire).to_ne_bytes());
        }
        from_bytes(&bytes).unwrap_or_default()
    }

    /// When the last event passed, where the slot is armed and something did.
    pub(super) fn voice(&self, slot: u32) -> Option<u64> {
        self.windows.get((slot / WINDOW) as usize)?.get()?;
        let arm = self.word(slot, 0).load(Relaxed);
        let report = |n| self.word(slot, REPORT + n).load(Acquire);
        (arm != 0 && report(ARM) == arm && report(PASSED) != 0).then(|| report(LAST))
    }

    /// Appends what is kept of the last writes, the oldest first.
    pub(super) fn tails(&self, slot: u32, report: &Report, into: &mut Vec<u8>) {
        for back in (0..report.tailed.min(TAILS as u32)).rev() {
            let n = (report.tailed - 1 - back) as usize % TAILS;
            let len = (report.tail_len[n] as usize).min(TAIL);
            for at in (0..len).step_by(8) {
                let word = self.word(slot, TAILS_AT + (n * TAIL + at) / 8).load(Relaxed).to_ne_bytes();
                into.extend_from_slice(&word[..(len - at).min(8)]);
            }
        }
    }

    /// Panics where the slot was never opened.
    fn word(&self, slot: u32, n: usize) -> &AtomicU64 {
        let window = self.windows[(slot / WINDOW) as usize].get();
        window.expect("an open slot").at((slot % WINDOW) as usize * WORDS + n)
    }
}

/// The sign of life.
#[derive(Debug)]
pub(super) struct Alive(Words);

impl Alive {
    pub(super) fn map(map: BorrowedFd<'_>) -> io::Result<Self> {
        Words::map(map, 0, 1).map(Self)
    }

    pub(super) fn beat(&self, now_ns: u64) {
        self.0.at(0).store(now_ns, Relaxed);
    }
}
