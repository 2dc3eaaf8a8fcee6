//! The built binary under test, one process for each test.

mod binary;
mod command;
mod lines;
mod process;
mod starting;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

pub use binary::{Kernel, may_load};
pub use command::{command, command_after, command_copied_after};
use lines::Lines;
pub use process::connections_of;
use starting::From;
pub use starting::Starting;

use crate::client::{Answer, ask};

/// Killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    /// Of the first listener.
    pub address: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
    stderr: Lines,
    /// The access log.
    stdout: Lines,
    folder: Arc<TempDir>,
    port: u16,
}

impl Gateway {
    /// Starts on manifests and waits until it is ready.
    pub async fn start(manifests: impl AsRef<str>) -> Self {
        Self::start_with(manifests, &[]).await
    }

    /// [`Gateway::start`] with further options.
    ///
    /// # Panics
    /// When it does not get ready.
    pub async fn start_with(manifests: impl AsRef<str>, options: &[&str]) -> Self {
        Self::begin(manifests, options).ready().await
    }

    /// [`Gateway::start_with`], without waiting.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn begin(manifests: impl AsRef<str>, options: &[&str]) -> Starting {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let port = free_port();
        write(folder.path(), "all.yaml", manifests.as_ref(), port);
        Starting::spawn(&[&["-f", text(folder.path())], options].concat(), folder.clone(), port, From::Nobody)
    }

    /// [`Gateway::begin`] in the network namespace of a process.
    ///
    /// # Panics
    /// As there.
    pub fn begin_in(network: u32, manifests: impl AsRef<str>, options: &[&str]) -> Starting {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let port = free_port();
        write(folder.path(), "all.yaml", manifests.as_ref(), port);
        let all = [&["-f", text(folder.path())], options].concat();
        Starting::spawn(&all, folder.clone(), port, From::Network(network))
    }

    /// Starts on manifests with a listening socket that a supervisor passes to it, whose port is `$PORT`.
    ///
    /// # Panics
    /// When it does not get ready.
    pub async fn start_with_socket(manifests: impl AsRef<str>, socket: TcpListener) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let port = socket.local_addr().expect("bound").port();
        write(folder.path(), "all.yaml", manifests.as_ref(), port);
        let options = ["-f", text(folder.path())];
        Starting::spawn(&options, folder.clone(), port, From::Supervisor(socket)).ready().await
    }

    /// [`Gateway::start_with_socket`], for the admin port.
    ///
    /// # Panics
    /// As there.
    pub async fn start_with_admin_socket(manifests: impl AsRef<str>, socket: TcpListener) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let (port, admin) = (free_port(), socket.local_addr().expect("bound").to_string());
        write(folder.path(), "all.yaml", manifests.as_ref(), port);
        let options = ["-f", text(folder.path()), "--admin", &admin];
        Starting::spawn(&options, folder.clone(), port, From::Supervisor(socket)).ready().await
    }

    /// Starts on manifests as systemd would with `Type=notify`, told at this path.
    ///
    /// # Panics
    /// As [`Gateway::begin`].
    pub fn begin_under_systemd(manifests: impl AsRef<str>, told: &Path, options: &[&str]) -> Starting {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let port = free_port();
        write(folder.path(), "all.yaml", manifests.as_ref(), port);
        let all = [&["-f", text(folder.path())], options].concat();
        Starting::spawn(&all, folder.clone(), port, From::Systemd(told.into()))
    }

    /// Another process on the same manifests that is to take over from this one.
    #[must_use]
    pub fn successor(&self, options: &[&str]) -> Starting {
        self.successor_in(self.folder.path(), options)
    }

    /// [`Gateway::successor`] on manifests of its own.
    ///
    /// # Panics
    /// When they cannot be written.
    #[must_use]
    pub fn successor_on(&self, manifests: &str, options: &[&str]) -> Starting {
        let folder = self.folder.path().join(format!("next-{}", fastrand::u64(..)));
        std::fs::create_dir(&folder).expect("a folder");
        write(&folder, "all.yaml", manifests, self.port);
        self.successor_in(&folder, options)
    }

    fn successor_in(&self, folder: &Path, options: &[&str]) -> Starting {
        let admin = self.admin.to_string();
        let all = [&["-f", text(folder), "--takeover", "--admin", &admin], options].concat();
        Starting::spawn(&all, self.folder.clone(), self.port, From::Running(self.child.id()))
    }

    /// Where a successor finds it.
    #[must_use]
    pub fn place(&self) -> PathBuf {
        self.folder.path().join(format!("run/{}.sock", self.admin))
    }

    /// [`Gateway::start`] on the rung of the kernel's programs, which takes root.
    ///
    /// # Panics
    /// When it does not get ready.
    pub async fn start_counting(manifests: impl AsRef<str>) -> Self {
        Self::start_with(manifests, &["--kernel", "account"]).await
    }

    /// Starts with `--engine` and `--listen` instead of manifests.
    pub async fn start_without_manifests(engines: &[impl ToString]) -> Self {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let engines: Vec<String> = engines.iter().map(ToString::to_string).collect();
        let mut all = vec!["--listen", &listen];
        all.extend(engines.iter().flat_map(|engine| ["--engine", engine]));
        let folder = tempfile::tempdir().expect("a temporary folder");
        Starting::spawn(&all, Arc::new(folder), port, From::Nobody).ready().await
    }

    /// Writes or replaces a manifest file; Penstock finds it within about a second.
    pub fn write(&self, name: &str, manifests: &str) {
        write(self.folder.path(), name, manifests, self.port);
    }

    /// Replaces all manifests.
    pub fn rewrite(&self, manifests: &str) {
        self.write("all.yaml", manifests);
    }

    /// A GET on the admin port.
    pub async fn admin(&self, path: &str) -> Answer {
        // A Host that is not the loopback's would be refused: a web page could have sent it by DNS rebinding.
        ask(self.admin, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
    }

    /// The value of a metric, summed over its series that hold each of the label texts; 0 where there is none.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.admin("/metrics").await.text();
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let named = rest.starts_with('{') || rest.starts_with(' ');
            let fits = labels.iter().all(|label| rest.contains(label));
            if named && fits { rest.rsplit(' ').next()?.parse::<f64>().ok() } else { None }
        };
        text.lines().filter_map(value).sum()
    }

    /// Waits for an access log line.
    ///
    /// # Panics
    /// When none is found in time.
    pub async fn logged(&self, what: &str, find: impl Fn(&Value) -> bool) -> Value {
        let line = self.stdout.until(what, |lines| {
            lines.iter().filter_map(|line| serde_json::from_str(line).ok()).find(|entry| find(entry))
        });
        line.await.unwrap_or_else(|| panic!("no access log line for {what} in:\n{}", self.stdout.text()))
    }

    /// Every access log line so far.
    #[must_use]
    pub fn access_log(&self) -> Vec<String> {
        self.stdout.all()
    }

    /// What it said on stderr so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.stderr.text()
    }

    /// Waits for a word on stderr.
    ///
    /// # Panics
    /// When it is not said in time.
    pub async fn says(&self, word: &str) -> String {
        let line = self.stderr.until(word, |lines| lines.iter().find(|line| line.contains(word)).cloned());
        line.await.unwrap_or_else(|| panic!("{word:?} is not in:\n{}", self.stderr.text()))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- penstock said:\n{}\n--- its access log:\n{}", self.said(), self.stdout.last(5));
        } else {
            let panics = self.said().contains("panicked at");
            assert!(!panics, "penstock panicked:\n{}", self.said());
        }
    }
}

/// Below the ports that the kernel gives out by itself, so that no client socket takes it in between.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(18_000..32_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Writes by renaming, as editors and configuration tools do: nobody reads half a file.
fn write(folder: &Path, name: &str, text: &str, port: u16) {
    let text = text.replace("$PORT", &port.to_string());
    let fresh = folder.join(format!(".{name}.new"));
    std::fs::write(&fresh, text).expect("writing manifests");
    std::fs::rename(fresh, folder.join(name)).expect("renaming manifests");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}
