//! Memory of a process tree.

use std::fs;

use serde::{Deserialize, Serialize};

use super::tree;

/// In bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) rss: u64,
    /// What several processes share is divided among them.
    pub(crate) pss: u64,
}

impl Memory {
    pub(crate) fn of(roots: &[u32]) -> Self {
        let all = roots.iter().flat_map(|root| tree(*root)).filter_map(read);
        all.fold(Self::default(), |sum, one| Self { rss: sum.rss + one.rss, pss: sum.pss + one.pss })
    }
}

fn read(pid: u32) -> Option<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let bytes = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    };
    Some(Memory { rss: bytes("Rss:")?, pss: bytes("Pss:")? })
}
