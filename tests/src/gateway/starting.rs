//! The built binary, from its start until it is ready or gives up.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use super::Gateway;
use super::binary::{Kernel, wrapped};
use super::lines::Lines;
use crate::eventually;

/// What there was before the process.
pub(super) enum From {
    Nobody,
    /// A gateway of this process number: who takes over from it shares its network and its mounts, and so its pins.
    Running(u32),
    /// The network of this process number.
    Network(u32),
    /// Somebody who passes a socket.
    Supervisor(TcpListener),
    /// Somebody who is told at this path how it stands, and takes what it says on stderr for a journal.
    Systemd(PathBuf),
}

impl From {
    fn command(self, kernel: Kernel) -> Command {
        match self {
            Self::Running(before) if kernel.pins() && lives(before) => {
                let (mounts, network) =
                    (format!("--mount=/proc/{before}/ns/mnt"), format!("--net=/proc/{before}/ns/net"));
                with_input(wrapped(&["nsenter", &network, &mounts], &kernel.bare()), Stdio::null())
            }
            Self::Network(of) => {
                let network = format!("--net=/proc/{of}/ns/net");
                with_input(wrapped(&["nsenter", &network], &kernel.penstock()), Stdio::null())
            }
            Self::Nobody | Self::Running(_) => with_input(kernel.penstock(), Stdio::null()),
            Self::Supervisor(socket) => {
                let passed = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
                with_input(wrapped(&["sh", "-c", passed], &kernel.penstock()), OwnedFd::from(socket).into())
            }
            Self::Systemd(told) => {
                let journal = "JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec \"$0\" \"$@\"";
                let mut command = wrapped(&["sh", "-c", journal], &kernel.penstock());
                command.env("NOTIFY_SOCKET", told);
                with_input(command, Stdio::null())
            }
        }
    }
}

/// Whether a process still has its namespaces: one that has ended takes them along, waited for or not.
fn lives(process: u32) -> bool {
    Path::new(&format!("/proc/{process}/ns/mnt")).exists()
}

fn with_input(mut command: Command, input: Stdio) -> Command {
    command.stdin(input);
    command
}

/// A process that is not known to be ready yet. Killed when dropped.
#[derive(Debug)]
pub struct Starting(Option<Started>);

#[derive(Debug)]
struct Started {
    child: Child,
    stderr: Lines,
    stdout: Lines,
    folder: Arc<TempDir>,
    port: u16,
    kernel: Kernel,
}

impl Starting {
    pub(super) fn spawn(options: &[&str], folder: Arc<TempDir>, port: u16, from: From) -> Self {
        let value =
            |name| options.iter().position(|option| *option == name).and_then(|at| options.get(at + 1));
        let kernel = value("--kernel").map_or_else(Kernel::of_tests, |word| Kernel::named(word));
        let mut command = from.command(kernel);
        command.arg("run").args(options);
        for (name, usual) in [("--admin", "127.0.0.1:0"), ("--workers", "2")] {
            if value(name).is_none() {
                command.args([name, usual]);
            }
        }
        let child = command
            .env("RUNTIME_DIRECTORY", folder.path().join("run"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("starting penstock");
        let stderr = Lines::of(child.stderr.take().expect("piped"));
        let stdout = Lines::of(child.stdout.take().expect("piped"));
        Self(Some(Started { child, stderr, stdout, folder, port, kernel }))
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    pub async fn ready(mut self) -> Gateway {
        let Started { mut child, stderr, stdout, folder, port, kernel } = self.0.take().expect("started");
        let ready = stderr.until("the line `penstock ready`", |lines| {
            lines.iter().find(|line| line.starts_with("penstock ready:")).cloned()
        });
        let Some(ready) = ready.await else {
            _ = child.kill();
            _ = child.wait();
            panic!("penstock did not get ready; it said:\n{}", stderr.text());
        };
        assert!(
            ready.contains(&format!("rung={}", kernel.rung())),
            "not on the rung that it was to take: {ready}"
        );
        let admin = ready.split("admin=").nth(1).and_then(|rest| rest.split_whitespace().next());
        let admin = admin.and_then(|a| a.parse().ok()).unwrap_or_else(|| panic!("no admin= in {ready:?}"));
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Gateway { address, admin, child, stderr, stdout, folder, port }
    }

    /// Waits until it gives up; answers with what it said.
    ///
    /// # Panics
    /// When it does not, or with success.
    pub async fn fails(mut self) -> String {
        let Some(Started { child, stderr, .. }) = &mut self.0 else { panic!("started") };
        let status = eventually("penstock to give up", async || child.try_wait().expect("waiting")).await;
        // To its end, which may be read a little later.
        _ = stderr.until("the end of what it says", |_| None::<()>).await;
        assert!(!status.success(), "{}", stderr.text());
        stderr.text()
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(Started { child, .. }) = &mut self.0 {
            _ = child.kill();
            _ = child.wait();
        }
    }
}
