//! The built binary under test, one process for each test.

mod starting;

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use starting::From;
pub use starting::Starting;

use crate::client::{Answer, ask};
use crate::{DEADLINE, eventually, within};

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
        self.stdout.0.borrow().lines.clone()
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
        use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).expect("a pidfd");
        let numbers = std::fs::read_dir(self.proc("fd")).expect("procfs").map(|entry| {
            let name = entry.expect("procfs").file_name();
            name.to_string_lossy().parse().expect("a number")
        });
        let copies = numbers.filter_map(|fd| pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).ok());
        let mut sockets = copies.map(TcpStream::from);
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

/// Runs one of the commands that start nothing: `check`, `explain`, `doctor`.
pub async fn command(arguments: &[&str], input: &str) -> Output {
    output(tokio::process::Command::from(penstock()), arguments, input).await
}

async fn output(mut command: tokio::process::Command, arguments: &[&str], input: &str) -> Output {
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().expect("starting penstock");
    let mut stdin = child.stdin.take().expect("piped");
    within("the end of a command", async {
        _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await.expect("waiting for penstock")
    })
    .await
}

/// [`command`] in a shell that first does `prepare`, such as `ulimit -n 40`.
pub async fn command_after(prepare: &str, arguments: &[&str], input: &str) -> Output {
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", &format!("{prepare}; exec \"$@\""), "sh"]).arg(penstock().get_program());
    output(shell, arguments, input).await
}

/// [`command_after`] of a copy of the binary in this folder, for users who may not enter the one that it was built in.
///
/// # Panics
/// When it cannot be copied.
pub async fn command_copied_after(folder: &Path, prepare: &str, arguments: &[&str]) -> Output {
    let copy = folder.join("penstock");
    std::fs::copy(penstock().get_program(), &copy).expect("a copy");
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", &format!("{prepare}; exec \"$@\""), "sh"]).arg(copy);
    output(shell, arguments, "").await
}

/// How much of the kernel half a gateway under test uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    Off,
    SockDiag,
    Account,
    Full,
}

impl Kernel {
    pub const ALL: [Self; 4] = [Self::Off, Self::SockDiag, Self::Account, Self::Full];

    /// What `PENSTOCK_TEST_KERNEL` says for tests that are not about the kernel half.
    ///
    /// # Panics
    /// When it says nonsense.
    #[must_use]
    pub fn of_tests() -> Self {
        std::env::var("PENSTOCK_TEST_KERNEL").map_or(Self::Off, |word| Self::named(&word))
    }

    /// As `--kernel` names it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::SockDiag => "sock-diag",
            Self::Account => "account",
            Self::Full => "full",
        }
    }

    fn named(word: &str) -> Self {
        let known = Self::ALL.into_iter().find(|kernel| kernel.word() == word);
        known.unwrap_or_else(|| panic!("no test runs with --kernel {word}"))
    }

    /// As the ready line names it.
    fn rung(self) -> &'static str {
        match self {
            Self::Off => "userspace",
            Self::SockDiag => "sock_diag",
            Self::Account => "account",
            Self::Full => "full",
        }
    }

    /// Whether it pins programs.
    fn pins(self) -> bool {
        matches!(self, Self::Account | Self::Full)
    }

    /// The binary on this rung. Programs are pinned in a mount namespace of the gateway's own: no other gateway of this
    /// host shares them, and a killed one leaves nothing behind.
    fn penstock(self) -> Command {
        if !self.pins() {
            return self.bare();
        }
        let mounted = "mount -t bpf -o mode=0700 none /sys/fs/bpf && exec \"$0\" \"$@\"";
        wrapped(&["unshare", "--mount", "sh", "-c", mounted], &self.bare())
    }

    /// The binary on this rung, among the mounts of who starts it.
    fn bare(self) -> Command {
        let mut penstock = penstock();
        penstock.env("PENSTOCK_KERNEL", self.word());
        penstock
    }
}

/// A command that is run by another.
fn wrapped(by: &[&str], command: &Command) -> Command {
    let mut wrapped = Command::new(by[0]);
    wrapped.args(&by[1..]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

/// Whether this process may load programs and make namespaces: in a container, root may have neither right.
///
/// # Panics
/// Without procfs.
#[must_use]
pub fn may_load() -> bool {
    const NET_ADMIN_AND_SYS_ADMIN: u64 = 1 << 12 | 1 << 21;
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("capabilities");
    let effective = u64::from_str_radix(effective.trim(), 16).expect("a mask");
    effective & NET_ADMIN_AND_SYS_ADMIN == NET_ADMIN_AND_SYS_ADMIN
}

/// The built binary: `PENSTOCK_BIN`, or beside this test in the target folder.
fn penstock() -> Command {
    let built = std::env::var_os("PENSTOCK_BIN").map(PathBuf::from).or_else(|| {
        let this = std::env::current_exe().ok()?;
        Some(this.parent()?.parent()?.join("penstock"))
    });
    let path = built.filter(|path| path.is_file());
    let path = path.expect("penstock is not built: `cargo build -p penstock`, or set PENSTOCK_BIN");
    let mut command = Command::new(path);
    // The surroundings do not configure the gateway under test.
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_string_lossy().starts_with("PENSTOCK_")) {
        command.env_remove(name);
    }
    // Gateways of one host share the kernel half: whoever wants it says so.
    command.env("PENSTOCK_KERNEL", Kernel::Off.word());
    command
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

/// The lines that a process prints, as they come.
#[derive(Clone, Debug)]
struct Lines(Arc<watch::Sender<Printed>>);

#[derive(Debug, Default)]
struct Printed {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self(Arc::new(watch::Sender::default()));
        let printed = lines.0.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                printed.send_modify(|printed| printed.lines.push(line));
            }
            printed.send_modify(|printed| printed.ended = true);
        });
        lines
    }

    /// `None`: the process ended, or the time did, before it was found.
    async fn until<T>(&self, what: &str, find: impl Fn(&[String]) -> Option<T>) -> Option<T> {
        let mut changes = self.0.subscribe();
        let search = async {
            loop {
                {
                    let printed = changes.borrow_and_update();
                    if let Some(found) = find(&printed.lines) {
                        return Some(found);
                    }
                    if printed.ended {
                        return None;
                    }
                }
                changes.changed().await.ok()?;
            }
        };
        let found = tokio::time::timeout(DEADLINE + Duration::from_secs(2), search).await;
        found.unwrap_or_else(|_| {
            eprintln!("waited in vain for {what}");
            None
        })
    }

    fn text(&self) -> String {
        self.0.borrow().lines.join("\n")
    }

    fn last(&self, count: usize) -> String {
        let lines = &self.0.borrow().lines;
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}
