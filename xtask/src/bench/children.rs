//! The bench's own processes, which are this program again: engines that stay, and a load for each run.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::child::spawn_on;

use super::ask::Pool;
use super::engine::{STATS_PATH, Stats};
use super::load::{BEGIN, END, Plan, Report};

/// Beyond the plan's own time; a load that is still at work then is stuck.
const GRACE: Duration = Duration::from_secs(20);

/// Which cores a kind of process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) proxy: Vec<usize>,
    pub(crate) engines: Vec<usize>,
    pub(crate) load: Vec<usize>,
}

impl Layout {
    /// The proxy has the first core for itself. The others are for the engines and the load: apart where there are enough.
    pub(crate) fn split(cores: &[usize]) -> Self {
        match cores {
            [] | [_] => Self::shared(cores),
            [proxy, other] => Self { proxy: vec![*proxy], engines: vec![*other], load: vec![*other] },
            [proxy, engine, load] => Self { proxy: vec![*proxy], engines: vec![*engine], load: vec![*load] },
            [proxy, first, second, rest @ ..] => {
                let load = rest.get(..4).unwrap_or(rest);
                Self { proxy: vec![*proxy], engines: vec![*first, *second], load: load.to_vec() }
            }
        }
    }

    pub(crate) fn shared(cores: &[usize]) -> Self {
        Self { proxy: cores.to_vec(), engines: cores.to_vec(), load: cores.to_vec() }
    }

    /// Of the load: one for each of its cores, where it has them for itself.
    pub(crate) fn load_threads(&self) -> usize {
        if self.load == self.engines { 1 } else { self.load.len() }
    }
}

pub(crate) struct Engine {
    pub(crate) pool: Pool,
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Engine {
    pub(crate) async fn start(pool: Pool, layout: &Layout) -> Result<Self> {
        let mut command = ourselves("bench-engine")?;
        command.args(["--pool", pool.name()]).stdin(Stdio::null());
        let mut child = spawn_on(command, &layout.engines)?;
        let mut lines = lines(&mut child)?;
        let port = timeout(GRACE, lines.next_line()).await??.context("the engine said no port")?;
        let address = (Ipv4Addr::LOCALHOST, port.parse()?).into();
        Ok(Self { pool, address, child })
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    pub(crate) async fn stats(&self) -> Result<Stats> {
        let mut stream = TcpStream::connect(self.address).await?;
        let request = format!("GET {STATS_PATH} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer to the question for counts")?;
        Ok(serde_json::from_str(body)?)
    }
}

/// A load at work; killed when dropped.
pub(crate) struct Load {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Until each next line is there.
    patience: Duration,
}

impl Load {
    pub(crate) async fn start(plan: &Plan, layout: &Layout) -> Result<Self> {
        let mut command = ourselves("bench-load")?;
        command.stdin(Stdio::piped());
        let mut child = spawn_on(command, &layout.load)?;
        let lines = lines(&mut child)?;
        let mut stdin = child.stdin.take().context("a pipe to the load")?;
        stdin.write_all(&serde_json::to_vec(plan)?).await?;
        drop(stdin);
        let patience = Duration::from_millis(plan.warmup_ms + plan.window_ms) + GRACE;
        Ok(Self { child, lines, patience })
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for the begin of the measured window.
    pub(crate) async fn begin(&mut self) -> Result<()> {
        let line = self.line().await?;
        ensure!(line == BEGIN, "the load said {line:?}");
        Ok(())
    }

    /// Waits for the end of the measured window; the processes are still there.
    pub(crate) async fn end(&mut self) -> Result<()> {
        let line = self.line().await?;
        ensure!(line == END, "the load said {line:?}");
        Ok(())
    }

    pub(crate) async fn report(mut self) -> Result<Report> {
        let line = self.line().await?;
        Ok(serde_json::from_str(&line)?)
    }

    async fn line(&mut self) -> Result<String> {
        let line = timeout(self.patience, self.lines.next_line()).await;
        match line.context("the load is stuck")?? {
            Some(line) => Ok(line),
            None => bail!("the load ended: {}", self.child.wait().await?),
        }
    }
}

/// This program, with one of its hidden subcommands.
fn ourselves(subcommand: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(subcommand).stdout(Stdio::piped());
    Ok(command)
}

fn lines(child: &mut Child) -> Result<Lines<BufReader<ChildStdout>>> {
    let stdout = child.stdout.take().context("a pipe from our own process")?;
    Ok(BufReader::new(stdout).lines())
}

/// What all engines counted, by pool.
pub(crate) async fn stats(engines: &[Engine]) -> Result<BTreeMap<&'static str, Stats>> {
    let mut all = BTreeMap::new();
    for engine in engines {
        all.insert(engine.pool.name(), engine.stats().await?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::Layout;

    #[test]
    fn a_proxy_has_its_core_for_itself_where_there_are_two() {
        for cores in 2..70 {
            let cores: Vec<usize> = (0..cores).collect();
            let layout = Layout::split(&cores);
            assert_eq!(layout.proxy, [0]);
            assert!(!layout.engines.contains(&0) && !layout.load.contains(&0));
            assert!(!layout.engines.is_empty() && !layout.load.is_empty());
        }
    }

    #[test]
    fn engines_and_load_are_apart_where_there_are_three() {
        let layout = Layout::split(&[0, 1, 2]);
        assert_eq!((layout.engines, layout.load), (vec![1], vec![2]));
        assert_eq!(Layout::split(&[4, 5, 6, 7]).load, [7]);
    }
}
