//! `penstock check` and `penstock explain`: what the manifests say, without starting anything.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;

use crate::check;
use crate::cli;
use crate::config::{self, Config, Report};
use crate::discovery::{Names, Registry};
use crate::explain::{self, Described};
use crate::scan::JsonScanner;
use crate::snapshot::Snapshot;

/// Bytes of a request body that `explain` reads for its model.
const BODY_LIMIT: u64 = 64 << 20;

/// The report of `penstock check`; fails when something is wrong.
///
/// # Errors
/// When the manifests cannot be read at all.
pub fn check(manifests: &cli::Manifests) -> anyhow::Result<(String, ExitCode)> {
    let (snapshot, report) = build(manifests)?;
    let mut text = check::render(&report);
    if snapshot.listeners.is_empty() {
        text = text + check::NOTHING_TO_SERVE + "\n";
    }
    let served = report.ok() && !snapshot.listeners.is_empty();
    Ok((text, if served { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

/// The report of `penstock explain`.
///
/// # Errors
/// When the manifests or the request cannot be read.
pub fn explain(options: &cli::Explain) -> anyhow::Result<(String, ExitCode)> {
    let (snapshot, report) = build(&options.manifests)?;
    anyhow::ensure!(!report.is_fatal(), "{}", check::problems(&report).trim_end());
    let mut request = Described::new(&options.method, &options.path, Some(&options.host), &options.headers)
        .map_err(anyhow::Error::msg)?;
    request.port = options.port;
    request.model = match &options.request {
        Some(body) => model_of(body)?,
        None => options.model.clone(),
    };
    Ok((explain::explain(&snapshot, &request), ExitCode::SUCCESS))
}

fn build(manifests: &cli::Manifests) -> anyhow::Result<(Snapshot, Report)> {
    let config = config::parse(&config::load(&manifests.files)?);
    let names = resolve(&config)?;
    let mut meter = |_: &str, _: &str| Arc::default();
    Ok(config::build(&config, &names, &mut Registry::default(), &mut meter, 1))
}

fn resolve(config: &Config) -> anyhow::Result<Names> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut names = Names::default();
    for (name, error) in runtime.block_on(names.refresh(&config.hostnames())).failed {
        tracing::warn!(%name, %error, "cannot resolve a host name; it stands for no endpoint here");
    }
    Ok(names)
}

/// The model that the gateway would read out of this body.
fn model_of(path: &Path) -> anyhow::Result<Option<String>> {
    let mut body = Vec::new();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(BODY_LIMIT).read_to_end(&mut body)?;
    let mut scanner = JsonScanner::new();
    let scanned = scanner.push(&body).and_then(|()| scanner.finish());
    scanned.with_context(|| format!("{} would be refused", path.display()))?;
    Ok(scanner.model().map(|model| model.name.to_string()))
}
