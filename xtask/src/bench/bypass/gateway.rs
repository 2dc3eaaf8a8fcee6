//! A Penstock on a rung of its kernel half.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::super::ask::{Ask, Place, Pool, Reply};
use super::super::children::Engine;
use super::super::peers::penstock::{manifests, with_own_pins};
use super::super::peers::{Running, tail};
use super::super::ports::free_address;
use super::super::{Bench, penstock, ready};
use super::Rung;
use crate::child::spawn_on;

const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// Starts one in front of both engines; `beside` is the process of another that it shares the kernel half with.
pub(super) async fn start(
    bench: &Bench,
    engines: &[Engine; 2],
    rung: Rung,
    beside: Option<&Running>,
) -> Result<Running> {
    let listen = free_address()?;
    let folder = bench.folder.join(format!("penstock-{}", listen.port()));
    std::fs::create_dir_all(&folder)?;
    let endpoints = engines.iter().map(|engine| engine.address).collect();
    let path = folder.join("manifests.yaml");
    std::fs::write(&path, manifests(listen.port(), &[(Pool::A.name(), Pool::A.model(), endpoints)]))?;
    let mut command = program(rung, beside)?;
    command.arg("run").arg("-f").arg(path).arg("--access-log").arg(folder.join("access.log"));
    command.args(["--admin", "127.0.0.1:0", "--workers", "1", "--drain-timeout", "1s"]);
    command.args(["--kernel", rung.option()]);
    let said = folder.join("stderr.log");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?);
    let running = Running::new(spawn_on(command, &bench.layout.proxy)?, listen);
    let ask = Ask { pool: Pool::A, bytes: 300, place: Place::Last, reply: Reply::Json { after_us: 0 } };
    let answering = ready::answers(listen, &ask, STARTS_WITHIN).await;
    answering.with_context(|| format!("penstock does not serve; it said:\n{}", tail(&said)))?;
    Ok(running)
}

fn program(rung: Rung, beside: Option<&Running>) -> Result<Command> {
    if rung != Rung::Account {
        return Ok(Command::new(penstock()));
    }
    ensure!(rustix::process::geteuid().is_root(), "the programs of the kernel half take root");
    let Some(pid) = beside.and_then(|other| other.pids().first().copied()) else {
        return Ok(with_own_pins(&penstock()));
    };
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid.to_string(), "--mount", "--"]).arg(penstock());
    Ok(command)
}
