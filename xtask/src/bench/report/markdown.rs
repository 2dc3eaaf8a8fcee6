//! The tables, as people read them.

use super::{Results, Summary};
use crate::bench::cases::{Beside, Column};
use crate::bench::report::Cell;

/// Of a core; other work on the machine that takes more makes figures doubtful.
const NOISE: f64 = 0.1;

pub(super) fn render(results: &Results) -> String {
    let mut text = head(results);
    let summaries = Summary::all(results);
    let mut cases: Vec<&str> = Vec::new();
    for summary in &summaries {
        if !cases.contains(&summary.first.case) {
            cases.push(summary.first.case);
        }
    }
    if results.left_out > 0 {
        text +=
            &format!("{} runs were left out: a quick bench ends after two minutes.\n\n", results.left_out);
    }
    for case in cases {
        let rows: Vec<&Summary<'_>> = summaries.iter().filter(|summary| summary.first.case == case).collect();
        text += &table(&rows);
    }
    text
}

fn head(results: &Results) -> String {
    let (machine, settings) = (&results.machine, &results.settings);
    let virtualised = if machine.virtualised { ", virtual" } else { "" };
    let mut text = format!(
        "# cargo xtask bench, {}\n\n{}, {} cores{virtualised}, {} GiB, Linux {}, governor {}, load average {:.1} before; \
         Penstock at {}.\n\nMedians of {} rounds of {} s (least–most). ×N: this much of Penstock's figure, or of that \
         without a proxy where the column says so, the median over the rounds. Latencies marked + are what a proxy adds to the same load without one. ",
        machine.date,
        machine.cpu,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        machine.governor,
        machine.load_average,
        machine.commit,
        settings.rounds,
        settings.window_s,
    );
    if cfg!(debug_assertions) {
        text += "**A development build: the figures mean nothing, only that it runs.** ";
    }
    if settings.shared {
        text += "All processes share all cores; each proxy has one worker.\n\n";
    } else {
        let cores = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        text += &format!(
            "Each proxy has one worker, alone on core {}; engines on core {}, load on core {}.\n\n",
            cores(&settings.proxy_cores),
            cores(&settings.engine_cores),
            cores(&settings.load_cores),
        );
    }
    if results.peers.is_empty() {
        return text;
    }
    text += "| peer | version | how it routes |\n|---|---|---|\n";
    for peer in &results.peers {
        let version = match &peer.version {
            Some(version) => version.clone(),
            None => format!("not installed: `{}`", peer.install),
        };
        text += &format!("| {} | {version} | {} |\n", peer.name, peer.about);
    }
    text + "\n"
}

fn table(rows: &[&Summary<'_>]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let mut text = format!("## {}\n\n{}\n\n| point | peer |", first.first.case, sentence(first.first.about));
    for (column, _) in first.columns() {
        let unit = if column.unit.is_empty() { String::new() } else { format!(", {}", column.unit) };
        let beside = if column.beside == Beside::Direct { " (× direct)" } else { "" };
        text += &format!(" {}{unit}{beside} |", column.name);
    }
    text += " CPU in use, cores: proxy, engines, load, kernel |\n|---|---|";
    text += &"---|".repeat(first.cells.len() + 1);
    text.push('\n');
    let mut noise: f64 = 0.0;
    for row in rows {
        text += &format!("| {} | {} |", row.first.point, row.first.peer);
        for (column, figures) in row.columns() {
            text += &format!(" {} |", cell(column, figures, row.first.peer != "direct"));
        }
        match row.cpu {
            Some(cpu) => {
                text +=
                    &format!(" {:.2}, {:.2}, {:.2}, {:.2} |\n", cpu.proxy, cpu.engine, cpu.load, cpu.kernel);
                noise = noise.max(cpu.others);
            }
            None => text += " – |\n",
        }
    }
    text.push('\n');
    if noise > NOISE {
        text += &format!("**Noisy:** other processes took up to {noise:.2} cores meanwhile.\n\n");
    }
    for row in rows.iter().filter(|row| !row.errors.is_empty()) {
        text += &format!("* {} at {}: {}\n", row.first.peer, row.first.point, row.errors.join("; "));
    }
    if rows.iter().any(|row| !row.errors.is_empty()) {
        text.push('\n');
    }
    text
}

fn cell(column: &Column, figures: Option<Cell>, proxied: bool) -> String {
    let Some(figures) = figures.filter(|figures| figures.most != 0.0) else { return "–".to_owned() };
    let digits = column.digits;
    let sign = if column.beside == Beside::Added && proxied && figures.median >= 0.0 { "+" } else { "" };
    let mut text = format!("{sign}{:.digits$}", figures.median);
    if figures.least != figures.most {
        text += &format!(" ({:.digits$}–{:.digits$})", figures.least, figures.most);
    }
    if let Some(ratio) = figures.ratio {
        text += &format!(" ×{ratio:.2}");
    }
    text
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}
