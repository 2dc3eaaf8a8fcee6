//! Who may import whom in `gateway`, where responses to errors are built, and where `unsafe` may stand.
//!
//! A scan of the source, not a parser: comments and test code are left out, `crate::` paths are read as written.

mod source;

use std::path::Path;

use anyhow::{Result, bail};

use crate::shell::root;
use source::Source;

/// Serves requests: never blocks, never reads configuration.
const DATA: &[&str] = &[
    "listener", "worker", "gate", "inspect", "scan", "admit", "route", "pick", "forward", "relay", "ledger",
    "request", "upload",
];
/// What DATA must not know.
const NOT_IN_DATA: &[&str] =
    &["config", "discovery", "probe", "admin", "check", "explain", "doctor", "lifecycle"];
/// Crates that DATA must not use.
const NOT_IN_DATA_CRATES: &[&str] =
    &["serde::", "kube::", "k8s_openapi::", "gateway_api::", "saphyr_parser::"];
/// Runs on the access log's own thread, where lines are made of records.
const LOG_THREAD: &str = "ledger/line.rs";
/// Reads configuration and publishes snapshots.
const CONTROL: &[&str] =
    &["config", "discovery", "probe", "lifecycle", "admin", "check", "explain", "doctor"];
const NOT_IN_CONTROL: &[&str] = &["request", "relay"];
/// Where the bands meet: leaves, that know neither of them but for what is named beside them.
const SHARED: &[(&str, &[&str])] =
    &[("snapshot", &["endpoint", "ledger"]), ("endpoint", &["failure", "kernel"]), ("failure", &[])];
/// Statuses that only `failure` gives to an answer.
const ERROR_ANSWERS: &[&str] = &[
    "StatusCode::BAD_",
    "StatusCode::NOT_FOUND",
    "StatusCode::REQUEST_TIMEOUT",
    "StatusCode::PAYLOAD_TOO_LARGE",
    "StatusCode::UNSUPPORTED_MEDIA_TYPE",
    "StatusCode::MISDIRECTED_REQUEST",
    "StatusCode::TOO_MANY_REQUESTS",
    "StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE",
    "StatusCode::INTERNAL_SERVER_ERROR",
    "StatusCode::SERVICE_UNAVAILABLE",
    "StatusCode::GATEWAY_TIMEOUT",
    "HTTP/1.1 4",
    "HTTP/1.1 5",
];
/// Where `unsafe` may stand, each use with a SAFETY note.
const UNSAFE: &[&str] =
    &["gateway/src/scan/", "gateway/src/kernel/", "xtask/src/child.rs", "xtask/src/ebpf/verifier.rs"];

pub(crate) fn check() -> Result<()> {
    let mut wrong = Vec::new();
    for crate_folder in ["gateway", "gateway-common", "tests", "xtask"] {
        for source in source::read_all(&root().join(crate_folder), root())? {
            if crate_folder == "gateway" {
                wrong.extend(check_imports(&source));
            }
            wrong.extend(check_unsafe(&source));
        }
    }
    if !wrong.is_empty() {
        bail!("{} found:\n  {}", wrong.len(), wrong.join("\n  "));
    }
    Ok(())
}

fn check_imports(source: &Source) -> Vec<String> {
    let Some(module) = module(&source.path) else { return Vec::new() };
    let (data, control) = (DATA.contains(&module), CONTROL.contains(&module));
    let mut wrong = Vec::new();
    for (line, text) in source.code() {
        let at = format!("{}:{line}", source.path.display());
        let forbidden: &[&str] = match (data, control) {
            (true, _) => NOT_IN_DATA,
            (_, true) => NOT_IN_CONTROL,
            _ => &[],
        };
        if let Some((_, allowed)) = SHARED.iter().find(|(shared, _)| *shared == module) {
            let known = |name: &String| name == module || allowed.contains(&name.as_str());
            for name in source::imports(text).into_iter().filter(|name| !known(name)) {
                wrong.push(format!("{at}: `{module}` must not import `{name}`: both bands build on it"));
            }
        }
        for name in source::imports(text).into_iter().filter(|name| forbidden.contains(&name.as_str())) {
            wrong.push(format!(
                "{at}: `{module}` must not import `{name}`: control and data meet in `snapshot`"
            ));
        }
        if !data {
            continue;
        }
        let crates = if source.path.ends_with(LOG_THREAD) { &[] } else { NOT_IN_DATA_CRATES };
        for name in crates.iter().filter(|name| source::names_crate(text, name)) {
            wrong.push(format!(
                "{at}: `{module}` must not use `{name}`: configuration is read by the control side"
            ));
        }
        for word in ERROR_ANSWERS.iter().filter(|word| text.contains(*word)) {
            wrong.push(format!("{at}: `{word}…`: only `failure` builds responses to errors"));
        }
    }
    wrong
}

fn check_unsafe(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let allowed = UNSAFE.iter().any(|place| source.path.to_string_lossy().starts_with(place));
    for (line, text) in source.code() {
        if !source::opens_unsafe(text) {
            continue;
        }
        let at = format!("{}:{line}", source.path.display());
        if !allowed {
            wrong.push(format!("{at}: `unsafe` stands only in {}", UNSAFE.join(", ")));
        } else if !source.has_safety_note(line) {
            wrong.push(format!("{at}: `unsafe` without a SAFETY note above it"));
        }
    }
    wrong
}

/// The module of a file of `gateway/src`: its first path segment.
fn module(path: &Path) -> Option<&str> {
    let inside = path.strip_prefix("gateway/src").ok()?;
    let first = inside.iter().next()?.to_str()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(path.into(), text);
        [check_imports(&source), check_unsafe(&source)].concat()
    }

    #[test]
    fn data_does_not_know_configuration() {
        assert_eq!(
            wrong("gateway/src/pick/p2c.rs", "use crate::{endpoint::Endpoint, config::Raw};").len(),
            1
        );
        assert_eq!(wrong("gateway/src/relay.rs", "fn f() { crate::admin::f(); }").len(), 1);
        assert_eq!(wrong("gateway/src/relay.rs", "use serde::Deserialize;").len(), 1);
        assert!(wrong("gateway/src/relay.rs", "use crate::snapshot::Pool; // crate::config\n").is_empty());
        assert!(
            wrong("gateway/src/relay.rs", "#[cfg(test)]\nmod tests { use crate::config::X; }").is_empty()
        );
        assert!(wrong("gateway/src/config/yaml.rs", "use serde::Deserialize;").is_empty());
    }

    #[test]
    fn what_both_bands_share_knows_neither() {
        assert_eq!(wrong("gateway/src/endpoint/health.rs", "use crate::ledger::Meter;").len(), 1);
        assert_eq!(wrong("gateway/src/failure/body.rs", "use crate::{snapshot, config};").len(), 2);
        assert_eq!(wrong("gateway/src/upload/pace.rs", "use crate::config::X;").len(), 1);
        assert!(
            wrong("gateway/src/snapshot.rs", "use crate::{endpoint::Endpoint, ledger::Meter};").is_empty()
        );
        assert!(wrong("gateway/src/failure/body.rs", "use crate::failure::Failure;").is_empty());
    }

    #[test]
    fn control_does_not_know_requests() {
        assert_eq!(wrong("gateway/src/config.rs", "use crate::request;").len(), 1);
        assert!(wrong("gateway/src/config.rs", "use crate::requests;").is_empty());
    }

    #[test]
    fn errors_are_answered_in_one_place() {
        assert_eq!(wrong("gateway/src/gate.rs", "respond(StatusCode::BAD_GATEWAY)").len(), 1);
        assert!(wrong("gateway/src/failure.rs", "respond(StatusCode::BAD_GATEWAY)").is_empty());
    }

    #[test]
    fn unsafe_has_its_places_and_its_notes() {
        assert_eq!(wrong("gateway/src/gate.rs", "// SAFETY: fine\nunsafe { f() }").len(), 1);
        assert_eq!(wrong("gateway/src/scan/simd.rs", "unsafe { f() }").len(), 1);
        assert!(wrong("gateway/src/scan/simd.rs", "// SAFETY: fine\n// indeed\nunsafe { f() }").is_empty());
        assert!(wrong("gateway/src/gate.rs", "#![forbid(unsafe_code)]").is_empty());
    }
}
