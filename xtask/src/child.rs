//! A child process that does not outlive us, however we end.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::process::Child;

/// [`spawn`] on these cores alone.
pub(crate) fn spawn_on(mut command: Command, cores: &[usize]) -> Result<Child> {
    let mut set = CpuSet::new();
    for core in cores {
        ensure!(*core < CpuSet::MAX_CPU, "no core {core}");
        set.set(*core);
    }
    // SAFETY: between fork and exec one system call is made.
    unsafe { command.pre_exec(move || Ok(sched_setaffinity(None, &set)?)) };
    spawn(command)
}

/// Starts a program that is sent SIGKILL when this process ends, also when it is killed itself.
pub(crate) fn spawn(mut command: Command) -> Result<Child> {
    let parent = rustix::process::getpid();
    let bind_to_parent = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died between fork and here; nobody would tell us then.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::Error::other("the parent is gone")) }
    };
    // SAFETY: between fork and exec only two system calls are made, both async-signal-safe; the closure
    // allocates on its error path alone, where the child gives up.
    unsafe { command.pre_exec(bind_to_parent) };
    let shown = command.get_program().to_string_lossy().into_owned();
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true).spawn().with_context(|| format!("cannot start {shown}"))
}
