//! A gateway as the kernel sees it: signals, memory, threads, files.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitStatus;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::Gateway;
use crate::eventually;

impl Gateway {
    /// # Panics
    /// When the signal cannot be sent.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("signalling penstock");
    }

    /// Waits for its end.
    pub async fn exited(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("penstock to exit", async || child.try_wait().expect("waiting for penstock")).await
    }

    /// Resident memory in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that [`Gateway::resident_bytes`] ever was.
    #[must_use]
    pub fn most_resident_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).expect("procfs");
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line on memory");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of kB");
        kib * 1024
    }

    /// What the kernel says of each of its threads.
    ///
    /// # Panics
    /// When the process is gone.
    #[must_use]
    pub fn threads(&self) -> Vec<String> {
        let threads = std::fs::read_dir(self.proc("task")).expect("procfs");
        threads
            .filter_map(|thread| std::fs::read_to_string(thread.expect("procfs").path().join("status")).ok())
            .collect()
    }

    /// A path below its folder in procfs; `root/…` is the file system as it sees it.
    #[must_use]
    pub fn proc(&self, path: &str) -> PathBuf {
        format!("/proc/{}/{path}", self.child.id()).into()
    }

    /// A copy of its end of a connection whose other end is at `peer`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn socket_to(&self, peer: SocketAddr) -> TcpStream {
        let mut sockets = connections_of(Pid::from_child(&self.child)).into_iter();
        sockets.find(|socket| socket.peer_addr().is_ok_and(|at| at == peer)).expect("a socket to the peer")
    }

    /// Bounds the files and sockets that it may hold open from now on.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn limit_open_files(&self, limit: usize) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let limit = rustix::process::Rlimit { current: Some(limit as u64), maximum: Some(limit as u64) };
        rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, limit).expect("prlimit");
    }

    /// Files and sockets that it holds open.
    ///
    /// # Panics
    /// When the process is gone.
    #[must_use]
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).expect("procfs").count()
    }
}

/// Copies of all connections that a process holds, this one too.
///
/// # Panics
/// When the process is gone.
#[must_use]
pub fn connections_of(process: Pid) -> Vec<TcpStream> {
    let folder = format!("/proc/{process}/fd");
    let process = pidfd_open(process, PidfdFlags::empty()).expect("a pidfd");
    // All numbers first: where the process is this one, copies get numbers too.
    let numbers: Vec<_> =
        std::fs::read_dir(folder).expect("procfs").map(|entry| entry.expect("procfs").file_name()).collect();
    let numbers = numbers.iter().filter_map(|number| number.to_string_lossy().parse().ok());
    let copies = numbers.filter_map(|fd| pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).ok());
    copies.map(TcpStream::from).filter(|socket| socket.peer_addr().is_ok()).collect()
}
