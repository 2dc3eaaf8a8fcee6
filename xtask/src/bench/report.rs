//! What a bench found: every run as JSON, medians as Markdown, plots.

mod markdown;
mod summary;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::cases::{Case, Column, Point, Run};
use super::measure::Machine;
use super::peers::Peer;
use super::{Bench, folder, plot};
use crate::shell::root;

#[derive(Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) peers: Vec<PeerFound>,
    pub(crate) rows: Vec<Row>,
    /// Runs for which a quick bench had no time.
    pub(crate) left_out: usize,
}

#[derive(Serialize)]
pub(crate) struct Settings {
    pub(crate) rounds: usize,
    pub(crate) window_s: f64,
    pub(crate) warmup_s: f64,
    pub(crate) proxy_cores: Vec<usize>,
    pub(crate) engine_cores: Vec<usize>,
    pub(crate) load_cores: Vec<usize>,
    pub(crate) shared: bool,
}

#[derive(Serialize)]
pub(crate) struct PeerFound {
    pub(crate) name: String,
    pub(crate) about: &'static str,
    /// None where it is not installed.
    pub(crate) version: Option<String>,
    /// The command that installs it.
    pub(crate) install: String,
}

/// One run of one point on one peer; a failed one has errors and may have no figures.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) about: &'static str,
    #[serde(skip)]
    pub(crate) columns: &'static [Column],
    pub(crate) point: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) x: Option<(f64, &'static str)>,
    pub(crate) peer: String,
    pub(crate) round: usize,
    /// In the order of the case's columns.
    pub(crate) figures: Vec<f64>,
    pub(crate) errors: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<Run>,
}

impl Row {
    pub(crate) fn new(case: &Case, point: &Point, peer: &str, round: usize) -> Self {
        Self { x: point.x, ..Self::bare(case.name, case.about, case.columns, &point.label, peer, round) }
    }

    pub(crate) fn bare(
        case: &'static str,
        about: &'static str,
        columns: &'static [Column],
        point: &str,
        peer: &str,
        round: usize,
    ) -> Self {
        Self {
            case,
            about,
            columns,
            point: point.to_owned(),
            x: None,
            peer: peer.to_owned(),
            round,
            figures: Vec::new(),
            errors: Vec::new(),
            run: None,
        }
    }

    /// For the eyes of who waits.
    pub(crate) fn told(&self) -> String {
        let figures = self.columns.iter().zip(&self.figures).map(|(column, figure)| {
            let space = if column.unit.is_empty() { "" } else { " " };
            format!("{figure:.*}{space}{}", column.digits, column.unit)
        });
        let mut told = figures.collect::<Vec<_>>().join(", ");
        for error in &self.errors {
            told += &format!("\n    FAILED: {error}");
        }
        told
    }
}

impl Results {
    pub(crate) fn new(bench: &Bench, shared: bool, peers: &[Peer]) -> Self {
        let found = |peer: &Peer| PeerFound {
            name: peer.name.clone(),
            about: peer.about,
            version: (peer.version)(),
            install: peer.packages.advice(),
        };
        Self {
            machine: Machine::read(),
            settings: Settings {
                rounds: bench.rounds,
                window_s: bench.scale.window.as_secs_f64(),
                warmup_s: bench.scale.warmup.as_secs_f64(),
                proxy_cores: bench.layout.proxy.clone(),
                engine_cores: bench.layout.engines.clone(),
                load_cores: bench.layout.load.clone(),
                shared,
            },
            peers: peers.iter().map(found).collect(),
            rows: Vec::new(),
            left_out: 0,
        }
    }
}

/// Prints the tables, and writes all of it to a folder that is named.
pub(crate) fn publish(results: &Results, save: bool) -> Result<()> {
    let machine = &results.machine;
    let folder = if save {
        root().join("benchmarks").join(format!(
            "{}-{}-cores-{}",
            slug(&machine.cpu),
            machine.cores,
            machine.date
        ))
    } else {
        folder().join("last")
    };
    // Plots of an earlier bench are not this one's.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let tables = markdown::render(results);
    let mut files: Vec<(PathBuf, String)> =
        plot::all(results).into_iter().map(|(name, svg)| (folder.join(name), svg)).collect();
    files.push((folder.join("README.md"), tables.clone()));
    files.push((folder.join("results.json"), serde_json::to_string_pretty(results)?));
    for (path, text) in files {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{tables}");
    println!("Written to {}: README.md, results.json, plots.", folder.display());
    Ok(())
}

/// Small letters, digits and single dashes.
fn slug(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    let words = text.split(|character: char| !character.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}

pub(crate) use self::summary::{Cell, Summary};
