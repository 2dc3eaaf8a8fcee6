//! What a run cost: CPU and memory of each process, from procfs.

mod cpu;
mod machine;
mod memory;

pub(crate) use self::cpu::{Cpu, Cpus, Watched};
pub(crate) use self::machine::Machine;
pub(crate) use self::memory::Memory;

use std::collections::BTreeMap;
use std::fs;

/// A process and all that it started, itself first.
fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in processes() {
        if let Some(parent) = Stat::of(pid).map(|stat| stat.parent) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    found
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Of /proc/PID/stat, see proc_pid_stat(5).
struct Stat {
    parent: u32,
    flags: u32,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // A name may hold anything, brackets too; it ends at the last one.
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let flags = fields.nth(4)?.parse().ok()?;
        Some(Self { parent, flags })
    }
}
