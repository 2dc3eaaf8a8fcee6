//! The manifests over time: read at the start, read again when they change, published whole or not at all.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::time::{Duration, Instant};

use super::counting::Counting;
use super::ports::Ports;
use crate::admin::Status;
use crate::check;
use crate::config::{self, Config, Loaded, Report, Severity};
use crate::discovery::{Names, Registry};
use crate::engines;
use crate::ledger::Meters;
use crate::route::Tables;
use crate::snapshot::Snapshot;

/// How often host names of engines are resolved again.
const RESOLVE: Duration = Duration::from_secs(30);

/// What the control side publishes; the workers and the admin port read it.
#[derive(Clone)]
pub(super) struct Published {
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) tables: Arc<ArcSwap<Tables>>,
}

pub(super) struct Control {
    sources: Sources,
    /// As last read, also where it could not be used: a bad edit is reported once.
    fingerprint: config::Fingerprint,
    config: Arc<Config>,
    names: Names,
    resolved: Instant,
    registry: Registry,
    meters: Arc<Meters>,
    status: Arc<Status>,
    generation: u64,
    published: Published,
    /// `None` where the kernel counts nothing.
    counting: Option<Counting>,
}

/// What a look at the files found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polled {
    Same,
    /// They were read again, to whatever effect.
    Reloaded,
}

/// Where manifests come from.
struct Sources {
    files: Vec<PathBuf>,
    /// Read once: standard input, or the manifests written for `--engine`.
    fixed: Vec<config::Text>,
}

impl Sources {
    fn load(&self) -> Result<Loaded, config::LoadError> {
        let mut loaded = config::load(&self.files)?;
        loaded.texts.extend(self.fixed.iter().cloned());
        Ok(loaded)
    }

    fn of_files(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let (stdin, files): (Vec<_>, Vec<_>) =
            paths.iter().cloned().partition(|path| path.as_os_str() == "-");
        let fixed = config::load(&stdin)?.texts;
        Ok(Self { files, fixed })
    }

    async fn of_engines(engines: &[String], listen: SocketAddr) -> anyhow::Result<Self> {
        let manifests = engines::manifests(engines, listen).await?;
        eprintln!("# the manifests that say the same:\n{manifests}");
        Ok(Self { files: Vec::new(), fixed: vec![config::Text { name: "--engine".into(), text: manifests }] })
    }
}

impl Control {
    /// Reads the manifests for the first time and builds what is not yet published.
    ///
    /// # Errors
    /// When they cannot be read, with everything that was found.
    pub(super) async fn start(
        options: &crate::cli::Run,
        meters: Arc<Meters>,
        status: Arc<Status>,
        counting: Option<Counting>,
    ) -> anyhow::Result<Self> {
        let sources = match &options.engines[..] {
            [] => Sources::of_files(&options.files)?,
            engines => Sources::of_engines(engines, options.listen).await?,
        };
        let loaded = sources.load()?;
        let tables = Tables::new(&Snapshot::default(), meters.meter("", ""), &Tables::default(), []);
        let mut control = Self {
            fingerprint: loaded.fingerprint,
            config: Arc::new(config::parse(&loaded)),
            sources,
            names: Names::default(),
            resolved: Instant::now(),
            registry: Registry::default(),
            meters,
            status,
            generation: 0,
            published: Published {
                snapshot: Arc::default(),
                tables: Arc::new(ArcSwap::from_pointee(tables)),
            },
            counting,
        };
        let config = control.config.clone();
        control.names = control.resolve(&config).await.0;
        Ok(control)
    }

    pub(super) fn published(&self) -> &Published {
        &self.published
    }

    /// Looks for changed files and changed addresses of host names.
    pub(super) async fn poll(&mut self, ports: &mut Ports) -> Polled {
        if let Some(connects) = ports.follow() {
            self.status.set_intercepted(connects);
        }
        if ports.forget_closed() {
            self.publish_tables(&self.published.snapshot.load(), ports.closing());
        }
        if config::fingerprint(&self.sources.files) != self.fingerprint {
            self.reload(ports).await;
            return Polled::Reloaded;
        }
        if self.resolved.elapsed() >= RESOLVE {
            self.follow_names(ports).await;
        }
        Polled::Same
    }

    /// What is served, and by which manifests: for whoever looks at the process from outside.
    pub(super) fn standing(&self, ports: &Ports) -> String {
        let listeners = ports.describe();
        match self.status.read().last_reload_error {
            None => format!("serves {listeners}"),
            Some(why) => format!("serves {listeners} as before: the manifests cannot be used: {why}"),
        }
    }

    /// Reads the manifests again; keeps what runs where they cannot be used.
    pub(super) async fn reload(&mut self, ports: &mut Ports) {
        match self.try_reload(ports).await {
            Ok(()) => tracing::info!(generation = self.generation, "the manifests were read again"),
            Err(e) => {
                let why = format!("{e:#}");
                // First, so that whoever reads the line finds it in the status.
                self.status.reload_failed(why.clone());
                tracing::error!(error = %why, "the manifests cannot be used; what ran before goes on");
            }
        }
    }

    async fn try_reload(&mut self, ports: &mut Ports) -> anyhow::Result<()> {
        // Taken before reading: what cannot be read is not tried again until it changes.
        self.fingerprint = config::fingerprint(&self.sources.files);
        let loaded = self.sources.load()?;
        let config = Arc::new(config::parse(&loaded));
        let (names, _) = self.resolve(&config).await;
        self.publish(config, names, ports).await?;
        self.status.reload_succeeded();
        Ok(())
    }

    /// Builds a snapshot, takes its ports, and only then lets the workers see it.
    ///
    /// # Errors
    /// When the manifests cannot be used as a whole, or a port cannot be had; then nothing has changed.
    async fn publish(&mut self, config: Arc<Config>, names: Names, ports: &mut Ports) -> anyhow::Result<()> {
        anyhow::ensure!(!config.report().is_fatal(), "{}", check::problems(config.report()).trim_end());
        let meters = self.meters.clone();
        let mut meter = |pool: &str, model: &str| meters.meter(pool, model);
        let generation = self.generation + 1;
        let (snapshot, report) = config::build(&config, &names, &mut self.registry, &mut meter, generation);
        if snapshot.listeners.is_empty() {
            anyhow::bail!("{}{}", check::problems(&report), check::NOTHING_TO_SERVE);
        }
        let prepared = ports.prepare(&snapshot)?;
        log_report(&report);
        if let Some(counting) = &self.counting {
            counting.track(&snapshot).await;
        }
        self.publish_tables(&snapshot, ports.closing().chain(prepared.closed.iter().copied()));
        self.published.snapshot.store(Arc::new(snapshot));
        ports.apply(prepared).await;
        self.registry.prune();
        self.generation = generation;
        self.config = config;
        self.names = names;
        Ok(())
    }

    /// `closing`: addresses whose table stays until what came in on them has been served.
    fn publish_tables(&self, snapshot: &Snapshot, closing: impl IntoIterator<Item = SocketAddr>) {
        let meter = self.meters.meter("", "");
        let tables = Tables::new(snapshot, meter, &self.published.tables.load(), closing);
        self.published.tables.store(Arc::new(tables));
    }

    /// Publishes what was read at the start.
    pub(super) async fn publish_first(&mut self, ports: &mut Ports) -> anyhow::Result<()> {
        let (config, names) = (self.config.clone(), self.names.clone());
        self.publish(config, names, ports).await.context("the manifests cannot be used")?;
        self.status.reload_succeeded();
        Ok(())
    }

    /// Asks the resolver again, and publishes what has changed.
    async fn follow_names(&mut self, ports: &mut Ports) {
        let config = self.config.clone();
        let (names, changed) = self.resolve(&config).await;
        if changed && let Err(e) = self.publish(config, names, ports).await {
            tracing::error!(error = format!("{e:#}"), "cannot publish the engines' new addresses");
        }
    }

    /// The addresses of the names in `config`, and whether they differ from what is known. Known answers are kept
    /// until the manifests have been judged: those that cannot be used must not drop them.
    async fn resolve(&mut self, config: &Config) -> (Names, bool) {
        self.resolved = Instant::now();
        let mut names = self.names.clone();
        let refreshed = names.refresh(&config.hostnames()).await;
        for (name, error) in &refreshed.failed {
            tracing::warn!(%name, %error, "cannot resolve a host name; its last addresses stay");
        }
        (names, refreshed.changed)
    }
}

/// What `penstock check` would say, as log lines.
fn log_report(report: &Report) {
    for diagnostic in &report.diagnostics {
        match diagnostic.severity {
            Severity::Error => tracing::error!("{diagnostic}"),
            Severity::Warning => tracing::warn!("{diagnostic}"),
            Severity::Info => tracing::info!("{diagnostic}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::ports::Virtual;
    use crate::listener::Inherited;

    const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: penstock}
spec: {controllerName: penstock.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: penstock
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: web, protocol: HTTP, port: PORT}]
";

    fn engine_at(hostname: &str) -> String {
        format!(
            "---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: engine}}
spec: {{endpoints: [{{fqdn: {{hostname: {hostname}, port: 8000}}}}]}}
"
        )
    }

    /// A control side that has published `manifests`, and has no workers.
    async fn published(file: &std::path::Path, manifests: &str) -> (Control, Ports) {
        std::fs::write(file, manifests).unwrap();
        let file = file.to_str().unwrap();
        let command = ["penstock", "run", "-f", file];
        let command = <crate::cli::Cli as clap::Parser>::parse_from(command).command;
        let crate::cli::Command::Run(options) = command else { panic!("it is `run`") };
        let mut control = Control::start(&options, Arc::default(), Arc::default(), None).await.unwrap();
        let mut ports = Ports::new(Vec::new(), Inherited::default(), Virtual::new(Err("a test".into())));
        control.publish_first(&mut ports).await.unwrap();
        (control, ports)
    }

    #[tokio::test]
    async fn a_bad_edit_drops_no_addresses_and_is_not_forgotten_when_names_are_resolved_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("all.yaml");
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let good = GATEWAY.replace("PORT", &free.to_string()) + &engine_at("engine.invalid");
        let (mut control, mut ports) = published(&file, &good).await;
        let old = [std::net::IpAddr::from([10, 0, 0, 1])];
        control.names.insert("engine.invalid", old.to_vec());

        std::fs::write(&file, "---\nnot: [closed\n").unwrap();
        control.reload(&mut ports).await;
        assert_eq!(control.names.get("engine.invalid"), old);
        assert!(control.status.read().last_reload_error.is_some());

        // A name that is no longer asked for: the next look at the resolver changes something.
        control.names.insert("gone.invalid", old.to_vec());
        let generation = control.generation;
        control.follow_names(&mut ports).await;
        assert_eq!(control.generation, generation + 1);
        assert!(control.status.read().last_reload_error.is_some());

        std::fs::write(&file, &good).unwrap();
        control.reload(&mut ports).await;
        assert!(control.status.read().last_reload_error.is_none());
    }
}
