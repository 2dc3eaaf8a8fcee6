//! Who is measured: Penstock, those that route by the body as well, one that does not look, and no proxy at all. Each is
//! configured as well as we know how to: one worker, kept connections to the engines, an access log in a file.

mod direct;
mod envoy;
mod haproxy;
mod nginx;
mod nginx_lua;
pub(crate) mod penstock;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use crate::child::spawn_on;

use super::ask::{Ask, Place, Pool, Reply};
use super::ready;

/// A path follows: that of another build of Penstock.
pub(crate) const OTHER_BUILD: &str = "penstock:";
const STARTS_WITHIN: Duration = Duration::from_secs(20);
const STOPS_WITHIN: Duration = Duration::from_secs(3);

pub(crate) struct Peer {
    pub(crate) name: String,
    /// How it routes.
    pub(crate) about: &'static str,
    pub(crate) packages: Packages,
    /// Whether events may pass it from socket to socket, and its access log tells how many did.
    pub(crate) splices: bool,
    /// Its version; none where it is not installed.
    pub(crate) version: Box<dyn Fn() -> Option<String>>,
    /// Writes what it needs into the site's folder. None: nothing stands between load and engines.
    pub(crate) command: Box<MakeCommand>,
}

type MakeCommand = dyn Fn(&Site) -> Result<Option<Command>>;

/// Where a peer comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Packages {
    Ours,
    Debian(&'static [&'static str]),
    /// From PyPI into a virtual environment of the bench's own.
    Python(&'static str),
}

pub(crate) fn all() -> Vec<Peer> {
    vec![
        direct::peer(),
        penstock::peer(),
        penstock::full(),
        haproxy::peer(),
        nginx::peer(),
        nginx_lua::peer(),
        envoy::json_to_metadata(),
        envoy::ai_protocol_manager(),
    ]
}

/// What a peer is configured for.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) listen: SocketAddr,
    /// By pool.
    pub(crate) engines: [SocketAddr; 2],
    /// Of its own: configuration, access log, what else it writes.
    pub(crate) folder: PathBuf,
    /// Buffers that must hold a body whole are made to fit it.
    pub(crate) largest_body: usize,
    pub(crate) cores: Vec<usize>,
}

impl Site {
    pub(crate) fn engine(&self, pool: Pool) -> SocketAddr {
        match pool {
            Pool::A => self.engines[0],
            Pool::B => self.engines[1],
        }
    }

    pub(crate) fn access_log(&self) -> PathBuf {
        self.folder.join("access.log")
    }

    /// Writes a file of the configuration.
    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// A started peer; killed when dropped.
pub(crate) struct Running {
    child: Option<Child>,
    /// Where the pools' requests go.
    pub(crate) targets: [SocketAddr; 2],
}

impl Peer {
    /// Starts it and waits until both pools answer through it as they should.
    pub(crate) async fn start(&self, site: &Site) -> Result<Running> {
        std::fs::create_dir_all(&site.folder)?;
        let Some(mut command) = (self.command)(site)? else {
            return Ok(Running { child: None, targets: site.engines });
        };
        let said = site.folder.join("stderr.log");
        command.stdin(Stdio::null()).stderr(File::create(&said)?);
        let child = spawn_on(command, &site.cores)?;
        let mut running = Running::new(child, site.listen);
        for pool in Pool::BOTH {
            let ask = Ask { pool, bytes: 300, place: Place::Last, reply: Reply::Json { after_us: 0 } };
            let answering = ready::answers(site.listen, &ask, STARTS_WITHIN);
            let answered = tokio::select! {
                answered = answering => answered,
                ended = running.ended() => Err(ended),
            };
            answered.with_context(|| format!("{} does not serve; it said:\n{}", self.name, tail(&said)))?;
        }
        Ok(running)
    }
}

impl Running {
    pub(crate) fn new(child: Child, listen: SocketAddr) -> Self {
        Self { child: Some(child), targets: [listen; 2] }
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.child.iter().filter_map(Child::id).collect()
    }

    /// Only returns when the process is gone.
    async fn ended(&mut self) -> anyhow::Error {
        match &mut self.child {
            Some(child) => match child.wait().await {
                Ok(status) => anyhow::anyhow!("it ended: {status}"),
                Err(error) => error.into(),
            },
            None => std::future::pending().await,
        }
    }

    /// Ends it as an operator would, and by force where it takes too long.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            _ = kill_process(pid, Signal::TERM);
        }
        if timeout(STOPS_WITHIN, child.wait()).await.is_err() {
            child.kill().await?;
        }
        Ok(())
    }
}

/// Runs a program, and finds its version in the first line that it says: the first word that begins like one.
fn version_said(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8(text).ok()?;
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    let mut words = line.split([' ', '/']);
    let numbered = |word: &&str| word.split('.').next().is_some_and(|major| major.parse::<u16>().is_ok());
    words.find(|word| word.contains('.') && numbered(word)).map(str::to_owned)
}

/// The last lines of a file.
pub(crate) fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n")
}

/// The peers of these names, or all.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<Peer>> {
    if names.is_empty() {
        return Ok(all());
    }
    let find = |name: &String| {
        if let Some(path) = name.strip_prefix(OTHER_BUILD) {
            return penstock::other(name, Path::new(path));
        }
        let known = || all().into_iter().map(|peer| peer.name).collect::<Vec<_>>().join(", ");
        let peer = all().into_iter().find(|peer| peer.name == *name);
        peer.with_context(|| format!("no peer {name:?}; there are {}, {OTHER_BUILD}PATH", known()))
    };
    names.iter().map(find).collect()
}

/// Waits a moment for what a peer's kernel side still has to do, such as closing connections.
pub(crate) async fn settle() {
    sleep(Duration::from_millis(100)).await;
}

impl Packages {
    /// The command that installs it.
    pub(crate) fn advice(self) -> String {
        match self {
            Self::Ours => "`cargo xtask bench` builds it; its kernel half takes root".to_owned(),
            Self::Debian(names) => format!("apt-get install {}", names.join(" ")),
            Self::Python(name) => {
                format!("cargo xtask bench --install (pip install {name} into target/bench/venv)")
            }
        }
    }

    pub(crate) fn install(self) -> Result<()> {
        match self {
            Self::Ours => Ok(()),
            Self::Debian(names) => {
                let mut install =
                    crate::shell::command("apt-get", &["install", "--yes", "--no-install-recommends"]);
                install.args(names).env("DEBIAN_FRONTEND", "noninteractive");
                crate::shell::must(install)
            }
            Self::Python(name) => {
                let venv = venv();
                if !venv.join("bin/python").is_file() {
                    let mut make = crate::shell::command("python3", &["-m", "venv"]);
                    make.arg(&venv);
                    crate::shell::must(make)
                        .context("python3 with venv is needed: apt-get install python3-venv")?;
                }
                let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", name];
                crate::shell::must(crate::shell::command(venv.join("bin/python"), &pip))
            }
        }
    }
}

fn venv() -> PathBuf {
    super::folder().join("venv")
}
