//! The running gateway: the one place that knows both bands.

mod control;
mod limits;
mod ports;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tokio::time::{Duration, interval, timeout};

use self::control::Control;
use self::ports::Ports;
use crate::admin::{self, AdminState};
use crate::admit::Budget;
use crate::cli;
use crate::endpoint::Endpoint;
use crate::kernel;
use crate::ledger::Ledger;
use crate::lifecycle::{Asked, Signals};
use crate::probe;
use crate::worker::{self, Phase, Shared};

/// How often changed files are looked for.
const POLL: Duration = Duration::from_secs(1);
/// How often engines are asked for their models.
const PROBE: Duration = Duration::from_secs(10);

/// `penstock run`.
///
/// # Errors
/// What keeps the gateway from starting, worded for its operator.
pub fn run(options: &cli::Run) -> anyhow::Result<ExitCode> {
    let (rung, why) = kernel::stand(options.kernel).map_err(anyhow::Error::msg)?;
    let connections = limits::raise_open_files().context("cannot read the limit of open files")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()?;
    runtime.block_on(serve(options, rung, why, connections))
}

async fn serve(
    options: &cli::Run,
    rung: kernel::Rung,
    why: &'static str,
    connections: u32,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let ledger = Ledger::new(&options.access_log).context("cannot write the access log")?;
    let mut control = tokio::select! {
        control = Control::start(options, ledger.clone()) => control?,
        // Engines may be waited for; that must not keep anyone from leaving.
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    control.status().stand(rung.word(), why);

    let workers = options.workers.map_or_else(limits::workers, usize::from);
    let (phase, phase_seen) = watch::channel(Phase::Serving);
    let shared = Shared {
        snapshot: control.published(),
        ledger: ledger.clone(),
        budget: Budget::default(),
        phase: phase_seen,
        connections_per_worker: (connections / workers as u32).max(1),
    };
    let budget = shared.budget.clone();
    let workers: Vec<_> =
        (0..workers).map(|index| worker::start(index, shared.clone())).collect::<Result<_, _>>()?;
    let mut ports = Ports::new(workers.iter().map(|worker| worker.commands.clone()).collect());
    ports.follow(&control.published().load()).await?;

    let admin = tokio::net::TcpListener::bind(options.admin)
        .await
        .with_context(|| format!("cannot serve the admin port on {} (--admin)", options.admin))?;
    let admin_address = admin.local_addr()?;
    if !admin_address.ip().is_loopback() {
        tracing::warn!(address = %admin_address, "the admin port is reachable from other hosts, without authentication");
    }
    tokio::spawn(admin::serve(admin, AdminState::new(control.published(), ledger.clone(), control.status(), budget)));

    control.status().ready();
    eprintln!("penstock ready: listeners=[{}] admin={admin_address} rung={rung}", ports.describe());

    until_stopped(&mut control, &mut ports, &mut signals).await;
    drain(options.drain_timeout, &phase, &control, &mut signals, workers).await;
    ledger.close();
    Ok(ExitCode::SUCCESS)
}

/// Serves, reloads and probes until the operator asks for the end.
async fn until_stopped(control: &mut Control, ports: &mut Ports, signals: &mut Signals) {
    let mut poll = interval(POLL);
    let mut probes = interval(PROBE);
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => return,
                Asked::Reload => {
                    control.reopen_access_log();
                    control.reload(ports).await;
                }
            },
            _ = poll.tick() => control.poll(ports).await,
            _ = probes.tick() => probe_all(control),
        }
    }
}

/// Asks every endpoint for its models, beside everything else; a silent one keeps its last answer.
fn probe_all(control: &Control) {
    let snapshot = control.published().load_full();
    let mut asked: Vec<*const Endpoint> = Vec::new();
    for endpoint in snapshot.pools.iter().flat_map(|pool| &pool.endpoints) {
        if asked.contains(&Arc::as_ptr(endpoint)) {
            continue;
        }
        asked.push(Arc::as_ptr(endpoint));
        let endpoint = endpoint.clone();
        tokio::spawn(async move {
            match probe::models(&endpoint.address).await {
                Ok(models) => endpoint.served.publish(models),
                Err(e) => tracing::debug!(endpoint = %endpoint.label, error = %e, "cannot ask for models"),
            }
        });
    }
}

async fn drain(
    limit: Duration,
    phase: &watch::Sender<Phase>,
    control: &Control,
    signals: &mut Signals,
    workers: Vec<worker::Handle>,
) {
    control.status().draining();
    tracing::info!(limit_s = limit.as_secs_f64(), "draining: requests in flight go on, new connections do not");
    phase.send_replace(Phase::Draining);
    let mut joined = tokio::task::spawn_blocking(move || {
        for worker in workers {
            if worker.thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    });
    let stopped_again = async {
        while signals.next().await != Asked::Stop {}
    };
    tokio::select! {
        _ = &mut joined => return,
        _ = timeout(limit, stopped_again) => {}
    }
    tracing::warn!("the drain is over; what is still in flight is cut");
    phase.send_replace(Phase::Ended);
    let _ = timeout(Duration::from_secs(2), joined).await;
}
