//! The manifests over time: read at the start, read again when they change, published whole or not at all.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::time::{Duration, Instant};

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
    ) -> anyhow::Result<Self> {
        let sources = match &options.engines[..] {
            [] => Sources::of_files(&options.files)?,
            engines => Sources::of_engines(engines, options.listen).await?,
        };
        let loaded = sources.load()?;
        let tables = Tables::new(&Snapshot::default(), meters.meter("", ""));
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
        };
        control.resolve().await;
        Ok(control)
    }

    pub(super) fn published(&self) -> &Published {
        &self.published
    }

    /// Looks for changed files and changed addresses of host names.
    pub(super) async fn poll(&mut self, ports: &mut Ports) {
        if config::fingerprint(&self.sources.files) != self.fingerprint {
            self.reload(ports).await;
        } else if self.resolved.elapsed() >= RESOLVE && self.resolve().await {
            let config = self.config.clone();
            if let Err(e) = self.publish(config, ports).await {
                tracing::error!(error = format!("{e:#}"), "cannot publish the engines' new addresses");
            }
        }
    }

    /// Reads the manifests again; keeps what runs where they cannot be used.
    pub(super) async fn reload(&mut self, ports: &mut Ports) {
        match self.try_reload(ports).await {
            Ok(()) => tracing::info!(generation = self.generation, "the manifests were read again"),
            Err(e) => {
                let why = format!("{e:#}");
                tracing::error!(error = %why, "the manifests cannot be used; what ran before goes on");
                self.status.reload_failed(why);
            }
        }
    }

    async fn try_reload(&mut self, ports: &mut Ports) -> anyhow::Result<()> {
        // Taken before reading: what cannot be read is not tried again until it changes.
        self.fingerprint = config::fingerprint(&self.sources.files);
        let loaded = self.sources.load()?;
        let config = Arc::new(config::parse(&loaded));
        self.names.refresh(&config.hostnames()).await;
        self.publish(config, ports).await?;
        self.status.reload_succeeded();
        Ok(())
    }

    /// Builds a snapshot, takes its ports, and only then lets the workers see it.
    ///
    /// # Errors
    /// When the manifests cannot be used as a whole, or a port cannot be had; then nothing has changed.
    pub(super) async fn publish(&mut self, config: Arc<Config>, ports: &mut Ports) -> anyhow::Result<()> {
        anyhow::ensure!(!config.report().is_fatal(), "{}", check::problems(config.report()).trim_end());
        let meters = self.meters.clone();
        let mut meter = |pool: &str, model: &str| meters.meter(pool, model);
        let generation = self.generation + 1;
        let (snapshot, report) =
            config::build(&config, &self.names, &mut self.registry, &mut meter, generation);
        if snapshot.listeners.is_empty() {
            anyhow::bail!("{}{}", check::problems(&report), check::NOTHING_TO_SERVE);
        }
        let prepared = ports.prepare(&snapshot)?;
        log_report(&report);
        let tables = Tables::new(&snapshot, self.meters.meter("", ""));
        self.published.tables.store(Arc::new(tables));
        self.published.snapshot.store(Arc::new(snapshot));
        ports.apply(prepared).await;
        self.registry.prune();
        self.generation = generation;
        self.config = config;
        Ok(())
    }

    /// Publishes what was read at the start.
    pub(super) async fn publish_first(&mut self, ports: &mut Ports) -> anyhow::Result<()> {
        let config = self.config.clone();
        self.publish(config, ports).await.context("the manifests cannot be used")?;
        self.status.reload_succeeded();
        Ok(())
    }

    /// Asks the resolver again; whether anything changed.
    async fn resolve(&mut self) -> bool {
        self.resolved = Instant::now();
        let refreshed = self.names.refresh(&self.config.hostnames()).await;
        for (name, error) in &refreshed.failed {
            tracing::warn!(%name, %error, "cannot resolve a host name; its last addresses stay");
        }
        refreshed.changed
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
