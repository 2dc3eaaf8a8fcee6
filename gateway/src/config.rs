//! Manifests in, snapshot out: [`load`] reads texts, [`parse`] checks every object on its own, [`build()`] resolves
//! what refers to what and makes the snapshot.
//!
//! Nothing here stops at the first mistake. An object that is wrong, or asks for what is not supported, is refused
//! and reported; the rest goes on. Only a text that cannot be read at all makes the whole fatal.

mod build;
mod fields;
pub(crate) mod objects;
mod report;
mod resolve;
mod source;
mod traffic;
mod tree;
mod units;

use std::collections::BTreeSet;

pub use build::MeterFn;
pub use report::{Condition, ObjectStatus, Position, Report, Severity};
pub use source::{Fingerprint, LoadError, Loaded, Text, fingerprint, load};
pub(crate) use units::duration;

use crate::discovery::{Names, Registry};
use crate::snapshot::{Hostname, Snapshot};
use objects::Objects;

/// Manifests, typed and checked one by one.
#[derive(Debug, Default)]
pub struct Config {
    objects: Objects,
    report: Report,
}

impl Config {
    /// What was found so far; [`Report::is_fatal`] says whether to go on.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Host names that endpoints and Gateways need resolved, sorted.
    #[must_use]
    pub fn hostnames(&self) -> Vec<Box<str>> {
        let of_endpoints = self.objects.backends.iter().flat_map(|backend| backend.spec.hostnames());
        let of_gateways = self.objects.gateways.iter().flat_map(|gateway| gateway.spec.hostnames());
        let names: BTreeSet<Box<str>> = of_endpoints.chain(of_gateways).map(Into::into).collect();
        names.into_iter().collect()
    }
}

/// Reads every text; what is wrong is in [`Config::report`].
#[must_use]
pub fn parse(loaded: &Loaded) -> Config {
    let mut config = Config::default();
    for text in &loaded.texts {
        match tree::documents(&text.text) {
            Ok(documents) => {
                for document in &documents {
                    config.objects.take(&text.name, document, &mut config.report);
                }
            }
            Err(error) => {
                let (line, column) = (error.at.line, error.at.column);
                let position = Position { file: text.name.clone(), line, column };
                config.report.push_fatal(position, error.message);
            }
        }
    }
    config.report.sort();
    config
}

/// Whether a Backend may name this host.
#[must_use]
pub(crate) fn is_hostname(text: &str) -> bool {
    matches!(units::hostname(text), Ok(Hostname::Exact(_)))
}

/// Makes the snapshot of everything that holds, and the whole report. Endpoints that the registry knows keep
/// their live state.
pub fn build(
    config: &Config,
    names: &Names,
    registry: &mut Registry,
    meter: MeterFn<'_>,
    generation: u64,
) -> (Snapshot, Report) {
    build::build(&config.objects, config.report.clone(), names, registry, meter, generation)
}

#[cfg(test)]
mod tests;
