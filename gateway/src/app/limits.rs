//! What the host grants the process: cores, descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A GPU host's cores belong to its engines: more workers than this must be asked for.
const DEFAULT_WORKERS: usize = 4;
/// Descriptors for files, the admin port, listeners and probes.
const RESERVED_DESCRIPTORS: u64 = 256;
/// Client connections where descriptors are not limited at all.
const MOST_CONNECTIONS: u64 = 1 << 20;

/// Workers where none are asked for: the standard library counts affinity and cgroup quota.
pub(super) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(DEFAULT_WORKERS)
}

/// Raises the soft limit of open files to the hard one; returns how many client connections that allows.
pub(super) fn raise_open_files() -> std::io::Result<u32> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let descriptors = limit.maximum.unwrap_or(MOST_CONNECTIONS * 2);
    // Each client's request may hold one engine connection.
    let connections = (descriptors.saturating_sub(RESERVED_DESCRIPTORS) / 2).clamp(16, MOST_CONNECTIONS);
    Ok(u32::try_from(connections).unwrap_or(u32::MAX))
}
