//! What the host grants the process: cores, descriptors, sockets.

use std::env;
use std::os::fd::OwnedFd;

use anyhow::{Context, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A GPU host's cores belong to its engines: more workers than this must be asked for.
const DEFAULT_WORKERS: usize = 4;
/// Descriptors for files, the admin port, listeners and probes.
const RESERVED_DESCRIPTORS: u64 = 256;
/// What a start takes at most, the kernel half and its self-test included: some 50, and a few clients.
const START_DESCRIPTORS: u64 = 96;
/// Runtime, listeners and connections to engines of a worker.
const WORKER_DESCRIPTORS: u64 = 16;
/// Client connections where descriptors are not limited at all.
const MOST_CONNECTIONS: u64 = 1 << 20;

/// Workers where none are asked for: the standard library counts affinity and cgroup quota.
pub(super) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(DEFAULT_WORKERS)
}

/// Raises the soft limit of open files to the hard one; returns how many client connections that allows.
///
/// # Errors
/// When a start with so many workers and passed sockets would run out of descriptors: it would end anywhere, in a library's
/// panic too, or on a lower rung of the kernel half for no reason of the kernel's.
pub(super) fn raise_open_files(workers: usize, passed: usize) -> anyhow::Result<u32> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("cannot raise the limit of open files")?;
    let descriptors = limit.maximum.unwrap_or(MOST_CONNECTIONS * 2);
    let takes = START_DESCRIPTORS + WORKER_DESCRIPTORS * workers as u64 + passed as u64;
    ensure!(
        descriptors >= takes,
        "the limit of open files is {descriptors}, and {workers} workers take {takes} to start; raise it \
         (LimitNOFILE= in systemd, ulimit -Hn), or ask for fewer (--workers)"
    );
    // Each client's request may hold one engine connection.
    let connections = (descriptors.saturating_sub(RESERVED_DESCRIPTORS) / 2).clamp(16, MOST_CONNECTIONS);
    Ok(u32::try_from(connections).unwrap_or(u32::MAX))
}

/// The sockets that a supervisor opened for this process, as sd_listen_fds(3) has it. Call it before anything else opens
/// a descriptor.
pub(super) fn passed_sockets() -> Vec<OwnedFd> {
    let variable = |name| env::var(name).ok();
    crate::kernel::passed(passed(variable("LISTEN_PID"), variable("LISTEN_FDS"), std::process::id()))
}

/// How many there are, for the process of this number: the variables are inherited by children, the sockets are not.
fn passed(pid: Option<String>, count: Option<String>, own: u32) -> u16 {
    let is_ours = pid.and_then(|pid| pid.parse().ok()) == Some(own);
    if is_ours { count.and_then(|count| count.parse().ok()).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_that_were_passed_to_this_very_process_are_taken() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(passed(text("7"), text("2"), 7), 2);
        assert_eq!((passed(text("8"), text("2"), 7), passed(None, text("2"), 7)), (0, 0));
        assert_eq!(
            (passed(text("7"), text("-1"), 7), passed(text("7"), text("x"), 7), passed(text("7"), None, 7)),
            (0, 0, 0)
        );
    }
}
