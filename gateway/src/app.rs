//! The running gateway: the one place that knows both bands.

mod control;
mod counting;
mod hung;
mod limits;
mod ports;
mod probes;
mod succession;
mod supervisor;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, MissedTickBehavior, interval, timeout};

use self::control::{Control, Polled};
use self::counting::Counting;
use self::ports::{Ports, Virtual};
use self::probes::Probes;
use self::succession::{Admin, Serving};
use self::supervisor::Supervisor;
use crate::admin::{self, AdminState, Status};
use crate::admit::Budget;
use crate::cli;
use crate::kernel::{self, privileges};
use crate::ledger::{AccessLog, Ledger, Meters};
use crate::lifecycle::{Asked, Signals};
use crate::listener::Inherited;
use crate::takeover::{self, Offer, Predecessor};
use crate::worker::{self, Shared};

/// How often changed files are looked for.
const POLL: Duration = Duration::from_secs(1);
/// How often engines are asked for their models.
const PROBE: Duration = Duration::from_secs(10);
/// For threads that are still at work when everything has been served.
const LAST_THREADS: Duration = Duration::from_secs(1);
/// For the last lines of the access log.
const LAST_LINES: Duration = Duration::from_secs(2);

/// What is asked of the host while the process has one thread.
pub struct Host {
    stand: kernel::Stand,
    workers: usize,
    /// How many connections of clients the limit of open files allows.
    connections: u32,
    /// Listening sockets of a supervisor's.
    passed: Vec<OwnedFd>,
}

/// Loads the kernel half and gives back the privileges that this took. Call it before the first other thread starts.
///
/// # Errors
/// What keeps the gateway from starting, worded for its operator.
pub fn prepare(options: &cli::Run) -> anyhow::Result<Host> {
    let passed = limits::passed_sockets();
    let workers = options.workers.map_or_else(limits::workers, usize::from);
    let connections = limits::raise_open_files(workers, passed.len())?;
    let memory = takeover::folder().unwrap_or_else(|| "/run/penstock".into());
    let mut stand =
        kernel::stand(options.kernel, &memory, options.intercept_scope()).map_err(anyhow::Error::msg)?;
    privileges::drop_all(|| stand.rehearse()).map_err(anyhow::Error::msg)?;
    // The kernel's type information was read for the load, some 20 MB.
    kernel::give_memory_back();
    Ok(Host { stand, workers, connections, passed })
}

/// `penstock run`.
///
/// # Errors
/// As [`prepare`].
pub fn run(options: &cli::Run, host: Host) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()?;
    let done = runtime.block_on(serve(options, host));
    // A resolver or a worker that hangs must not keep the process: dropping the runtime would wait for it.
    runtime.shutdown_timeout(LAST_THREADS);
    done
}

async fn serve(options: &cli::Run, host: Host) -> anyhow::Result<ExitCode> {
    let Host { stand, workers, connections, passed } = host;
    let mut signals = Signals::new()?;
    let supervisor = Supervisor::of_process();
    let access_log = AccessLog::open(options.access_log.as_str().into())
        .with_context(|| format!("cannot write the access log to {} (--access-log)", options.access_log))?;
    let ledger = Ledger::new(access_log);
    let (meters, status) = (Arc::new(Meters::default()), Arc::new(Status::default()));
    let rung = stand.rung;
    status.set_rung(rung.word(), &*stand.why);
    let splice = stand.splice.as_ref().ok().cloned();
    status.set_program("splice", stand.splice.map(drop));
    let counting = stand
        .source
        .map(|source| Counting::start(source, splice.clone()))
        .transpose()
        .context("cannot start the thread that counts")?;
    // Engines may be waited for; that must not keep anyone from leaving.
    let started = Control::start(options, meters.clone(), status.clone(), counting);
    let Some(control) = signals.unless_stopped(started).await else { return Ok(ExitCode::SUCCESS) };
    let mut control = control?;

    let (phase, phase_seen) = watch::channel(worker::Phase::Serving);
    let shared = Shared {
        tables: control.published().tables.clone(),
        ledger: ledger.clone(),
        budget: Budget::new(ledger.clone()),
        phase: phase_seen,
        connections_per_worker: (connections / workers as u32).max(1),
        splice,
    };
    let steer = if workers > 1 { stand.steer } else { Err("there is one worker".into()) };
    let seat = |index| steer.as_ref().ok().map(|steer| steer.seat(index));
    let workers: Vec<_> = (0..workers)
        .map(|index| worker::start(index, shared.clone(), seat(index)))
        .collect::<Result<_, _>>()
        .context("cannot start the workers (--workers)")?;
    // Late: the gateway that runs waits for us from here on.
    let mut inherited = Inherited::passed(passed);
    let predecessor =
        if options.takeover { succession::ask(options.admin, &mut inherited).await } else { None };
    // First, because from the first socket that is published on, an error would cost clients their connections.
    let admin = Admin::bind(options.admin, &inherited)
        .with_context(|| format!("cannot serve the admin port on {} (--admin)", options.admin))?;
    let commands = workers.iter().map(|worker| worker.commands.clone()).collect();
    let mut ports = Ports::new(commands, inherited, Virtual::new(stand.intercept));
    ports.spare(predecessor.as_ref().and_then(Predecessor::process));
    control.publish_first(&mut ports).await?;
    let intercept = ports.intercepts();
    status.set_program("intercept", intercept.clone());
    warn_of(&ports, admin.address);

    let snapshot = control.published().snapshot.clone();
    tokio::spawn(hung::watch(snapshot.clone()));
    let counts = workers.iter().map(|worker| worker.connections.clone()).collect();
    let admin_address = admin.address;
    let admin = admin.serve(AdminState {
        snapshot,
        ledger: ledger.clone(),
        meters,
        workers: counts,
        status: status.clone(),
    })?;
    status.set_phase(admin::Phase::Ready);
    let ends = ends(&workers);
    let mut gateway = Gateway { control, ports, signals, supervisor, ends, ledger, admin, offer: None };
    let code = match succession::dismiss(predecessor, gateway.served()).await {
        Ok(succeeds) => {
            gateway.offer = succession::offer(admin_address, succeeds).await;
            let steered = match steer {
                Ok(steer) => gateway.ports.steer(steer).await,
                Err(why) => Err(why),
            };
            status.set_program("steer", steered.clone());
            eprintln!(
                "penstock ready: listeners=[{}] admin={admin_address} rung={rung} ({}) steer={} intercept={}",
                gateway.ports.describe(),
                stand.why,
                on_or_off(steered),
                on_or_off(intercept),
            );
            gateway.supervisor.ready(&gateway.control.standing(&gateway.ports));
            gateway.until_stopped().await
        }
        Err(code) => code,
    };
    status.set_phase(admin::Phase::Draining);
    gateway.drain(options.drain_timeout, &phase, workers).await;
    if !gateway.ledger.access_log().shutdown(LAST_LINES) {
        tracing::warn!("the access log is stuck; its last lines are lost");
    }
    Ok(code)
}

fn warn_of(ports: &Ports, admin: SocketAddr) {
    // Without authentication, who can reach a listener can use the engines.
    for address in ports.public() {
        tracing::warn!(%address, "other hosts can reach this listener, and nothing asks them who they are");
    }
    for address in ports.unused().filter(|address| *address != admin) {
        tracing::warn!(%address, "a socket was passed (LISTEN_FDS) that is no Gateway listener's; nobody serves it");
    }
}

fn on_or_off(works: Result<(), String>) -> String {
    works.map_or_else(|why| format!("off ({why})"), |()| "on".into())
}

/// One task for each worker, done when the worker has ended.
fn ends(workers: &[worker::Handle]) -> JoinSet<()> {
    let commands = workers.iter().map(|worker| worker.commands.clone());
    commands.map(|commands| async move { commands.closed().await }).collect()
}

/// The gateway while it serves.
struct Gateway {
    control: Control,
    ports: Ports,
    signals: Signals,
    supervisor: Supervisor,
    /// Done one by one as workers end.
    ends: JoinSet<()>,
    ledger: Ledger,
    admin: Serving,
    /// `None`: nobody can take over.
    offer: Option<Offer>,
}

impl Gateway {
    /// Serves, reloads and probes until the operator asks for the end, a successor has taken over, or a worker is lost.
    async fn until_stopped(&mut self) -> ExitCode {
        let mut poll = interval(POLL);
        let mut probe = interval(PROBE);
        let mut probes = Probes::new();
        // After a long reload, once is enough.
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let Self { control, ports, signals, supervisor, .. } = self;
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Stop => return ExitCode::SUCCESS,
                    Asked::Reload => {
                        supervisor.reloading();
                        self.ledger.access_log().reopen();
                        if signals.unless_stopped(control.reload(ports)).await.is_none() {
                            return ExitCode::SUCCESS;
                        }
                        supervisor.ready(&control.standing(ports));
                    }
                },
                // Clients that the kernel gave to its sockets get no answer: whoever supervises us must start anew.
                Some(_) = self.ends.join_next() => {
                    tracing::error!("a worker has ended without being asked; the gateway drains and exits");
                    return ExitCode::FAILURE;
                }
                _ = poll.tick() => match signals.unless_stopped(control.poll(ports)).await {
                    None => return ExitCode::SUCCESS,
                    Some(Polled::Reloaded) => supervisor.status(&control.standing(ports)),
                    Some(Polled::Same) => {}
                },
                _ = probe.tick() => probes.begin(&control.published().snapshot.load()),
                successor = succession::asked(self.offer.as_ref()) => {
                    ports.spare(successor.process());
                    let sockets = ports.sockets().chain(self.admin.sockets());
                    // Nothing is reloaded meanwhile: what is given must stay what there is.
                    let taken = signals.unless_stopped(succession::give(successor, sockets)).await;
                    match taken {
                        None => return ExitCode::SUCCESS,
                        Some(None) => ports.spare(None),
                        Some(Some(taken)) => {
                            self.let_go(taken).await;
                            return ExitCode::SUCCESS;
                        }
                    }
                }
            }
        }
    }

    async fn drain(
        &mut self,
        limit: Duration,
        phase: &watch::Sender<worker::Phase>,
        workers: Vec<worker::Handle>,
    ) {
        tracing::info!(
            limit_s = limit.as_secs_f64(),
            "draining: requests in flight go on, new connections do not"
        );
        self.supervisor.stopping(limit);
        if let Some(offer) = self.offer.take() {
            offer.withdraw();
        }
        self.ports.close_copies();
        phase.send_replace(worker::Phase::Draining);
        let mut joined = tokio::task::spawn_blocking(move || {
            for worker in workers {
                if worker.thread.join().is_err() {
                    tracing::error!("a worker ended by a panic");
                }
            }
        });
        tokio::select! {
            _ = &mut joined => return,
            _ = timeout(limit, self.signals.stop()) => {}
        }
        tracing::warn!("the drain is over; what is still in flight is cut");
        phase.send_replace(worker::Phase::Ended);
        let _ = timeout(Duration::from_secs(2), joined).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_ends_is_noticed_whether_it_panics_or_returns() {
        for panics in [false, true] {
            let (commands, inbox) = tokio::sync::mpsc::channel::<worker::Command>(1);
            let thread = std::thread::spawn(move || {
                let _inbox = inbox;
                assert!(!panics, "as the test wants it");
            });
            let mut ends = ends(&[worker::Handle { commands, connections: Arc::default(), thread }]);
            let ended = timeout(Duration::from_secs(5), ends.join_next()).await;
            assert!(ended.is_ok_and(|ended| ended.is_some()), "panics: {panics}");
        }
    }
}
