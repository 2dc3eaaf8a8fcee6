//! `cargo xtask run`: the first half minute with Penstock.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::child::spawn;
use crate::shell::{cargo, command, must, target};

/// As the Gateway in examples/ack says.
const PORT: u16 = 8080;
const ADMIN: u16 = 9901;
/// Name, model and port, as examples/ack/endpoints.yaml says.
const ENGINES: [(&str, &str, u16); 4] = [
    ("qwen-a", "qwen", 9001),
    ("qwen-b", "qwen", 9002),
    ("deepseek-a", "deepseek-r1", 9003),
    ("deepseek-b", "deepseek-r1", 9004),
];
/// Penstock gets this long to finish what is in flight after Ctrl-C.
const GOODBYE: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How to build: by default `dev` for the demonstration (on a fresh machine it is ready in half the time) and
    /// `release` for your own manifests (it moves bytes several times faster)
    #[arg(long)]
    profile: Option<Profile>,
    /// Given to `penstock run`, and no fake engine is started: `-- -f DIR`
    #[arg(last = true)]
    penstock: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    Dev,
    Release,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !arguments.penstock.is_empty() {
        let bin = build(arguments.profile.unwrap_or(Profile::Release), &["--package=penstock"])?;
        let mut penstock = std::process::Command::new(bin.join("penstock"));
        // Our place is taken: signals and the exit status are Penstock's own. The user's paths stay relative to
        // the user's folder.
        let error = penstock.arg("run").args(&arguments.penstock).exec();
        bail!("cannot start penstock: {error}");
    }
    for (what, port) in
        [("Penstock", PORT), ("its admin port", ADMIN)].into_iter().chain(ENGINES.map(|e| (e.0, e.2)))
    {
        check_free(what, port)?;
    }
    let packages = ["--package=penstock", "--package=penstock-tests", "--bins"];
    let bin = build(arguments.profile.unwrap_or(Profile::Dev), &packages)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(demonstrate(bin))
}

/// Returns the folder with the programs.
fn build(profile: Profile, packages: &[&str]) -> Result<PathBuf> {
    let mut build = cargo(&["build"]);
    build.args(packages);
    if profile == Profile::Release {
        build.arg("--release");
    }
    must(build)?;
    Ok(target().join(if profile == Profile::Release { "release" } else { "debug" }))
}

fn check_free(what: &str, port: u16) -> Result<()> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    bound.map(drop).with_context(|| {
        format!("port {port} is taken, and {what} needs it: is another `cargo xtask run` up? (`ss -ltnp` says who)")
    })
}

async fn demonstrate(bin: PathBuf) -> Result<()> {
    // Taken before the first child starts: a Ctrl-C from now on ends all of it in order.
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminates = signal(SignalKind::terminate())?;
    let mut engines = Vec::new();
    for (name, model, port) in ENGINES {
        let mut engine = command(bin.join("fake-engine"), &["--name", name, "--model", model]);
        engine.args(["--port", &port.to_string()]);
        engines.push((name, spawn(engine)?));
    }
    let mut penstock = spawn(command(bin.join("penstock"), &["run", "-f", "examples/ack"]))?;
    tokio::select! {
        ready = ready() => ready?,
        status = penstock.wait() => bail!("penstock ended before it was ready: {}", status?),
        _ = interrupts.recv() => return Ok(()),
        _ = terminates.recv() => return Ok(()),
    }
    println!("{}", welcome());
    tokio::select! {
        status = penstock.wait() => bail!("penstock ended: {}", status?),
        name = first_to_end(&mut engines) => bail!("{name} ended; so does the rest"),
        _ = interrupts.recv() => {}
        _ = terminates.recv() => {}
    }
    // A Ctrl-C in a terminal reached all of the process group by itself; a signal to us alone did not.
    if let Some(pid) = penstock.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
        _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    _ = timeout(GOODBYE, penstock.wait()).await;
    Ok(())
}

async fn first_to_end(engines: &mut [(&'static str, Child)]) -> &'static str {
    loop {
        for (name, engine) in engines.iter_mut() {
            if engine.try_wait().is_ok_and(|status| status.is_some()) {
                return name;
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn ready() -> Result<()> {
    let polling = async {
        while !answers_ready().await.unwrap_or(false) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = timeout(Duration::from_secs(15), polling).await;
    ensure!(waited.is_ok(), "penstock is up but not ready: see http://127.0.0.1:{ADMIN}/readyz");
    Ok(())
}

async fn answers_ready() -> Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, ADMIN)).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

fn welcome() -> String {
    let url = format!("http://127.0.0.1:{PORT}/v1/chat/completions");
    let message = r#""messages": [{"role": "user", "content": "Who are you?"}]"#;
    format!(
        r#"
Penstock answers on http://127.0.0.1:{PORT}: qwen goes to qwen-a and qwen-b, deepseek-r1 to deepseek-a and deepseek-b.
Try, in another terminal:

  curl {url} -H 'Content-Type: application/json' -d '{{"model": "qwen", {message}}}'

  curl {url} -H 'Content-Type: application/json' -d '{{"model": "deepseek-r1", {message}}}'

  curl -N {url} -H 'Content-Type: application/json' -d '{{"model": "qwen", "stream": true, {message}}}'

Models: curl http://127.0.0.1:{PORT}/v1/models    Metrics: curl http://127.0.0.1:{ADMIN}/metrics
The manifests are in examples/ack. Below are Penstock's log and access log. Ctrl-C ends all of it.
"#
    )
}
