//! What was found, as a page: the command to run, and the figures that speak for it.

use super::choice::Choice;
use super::shape::Shape;
use super::sweep::{Figures, Sweep, Tried};
use crate::bench::Bench;
use crate::bench::measure::Machine;

/// Of a core; other work on the machine that takes more makes figures doubtful.
const NOISE: f64 = 0.1;

type Figure = fn(&Figures) -> Option<f64>;

/// Title, digits behind the point, and which.
const COLUMNS: [(&str, usize, Figure); 5] = [
    ("requests per second", 0, |f| f.requests_per_s),
    ("CPU per million requests, s", 1, |f| f.cpu_per_request),
    ("CPU per million events, s", 1, |f| f.cpu_per_event),
    ("event p99, µs", 0, |f| f.event_p99_us),
    ("RSS, MiB", 1, |f| Some(f.rss_mib)),
];

pub(crate) fn render(shape: &Shape, bench: &Bench, sweeps: &[(Sweep, Choice)]) -> String {
    let machine = Machine::read();
    let mut text = format!(
        "# cargo xtask tune, {}\n\n{}, {} cores, Linux {}; all processes share all cores, and engines and load run beside \
         Penstock here. Medians of {} rounds of {} s (least–most).\n\nThe load: {shape}.\n\n",
        machine.date,
        machine.cpu,
        machine.cores,
        machine.kernel,
        bench.rounds,
        bench.scale.window.as_secs_f64()
    );
    if let Some((_, last)) = sweeps.last() {
        let (workers, kernel) = (last.setting.workers, last.setting.kernel);
        text +=
            &format!("```console\npenstock run --workers {workers} --kernel {kernel} -f MANIFESTS\n```\n\n");
    }
    let tried = sweeps.iter().flat_map(|(sweep, _)| &sweep.tried);
    let noise = tried.flat_map(|tried| &tried.rounds).map(|figures| figures.others).fold(0.0, f64::max);
    if noise > NOISE {
        text += &format!(
            "**Noisy:** other processes took up to {noise:.2} cores meanwhile; on a quiet machine the choice may be another.\n\n"
        );
    }
    for (sweep, choice) in sweeps {
        text += &table(sweep, choice);
    }
    text
}

fn table(sweep: &Sweep, choice: &Choice) -> String {
    let mut text =
        format!("## {}\n\n**{}**: {}.\n\n| |", sweep.option, value(sweep, choice.setting), choice.why);
    for (title, ..) in COLUMNS {
        text += &format!(" {title} |");
    }
    text += &format!("\n|---|{}\n", "---|".repeat(COLUMNS.len()));
    for tried in &sweep.tried {
        text += &format!("| {} |", value(sweep, tried.setting));
        for (_, digits, figure) in COLUMNS {
            text += &format!(" {} |", cell(tried, digits, figure));
        }
        text.push('\n');
    }
    text.push('\n');
    for tried in sweep.tried.iter().filter(|tried| !tried.errors.is_empty()) {
        text += &format!("* {}: {}\n", value(sweep, tried.setting), tried.errors.join("; "));
    }
    text
}

fn value(sweep: &Sweep, setting: super::Setting) -> String {
    match sweep.option {
        "--workers" => setting.workers.to_string(),
        _ => setting.kernel.to_owned(),
    }
}

fn cell(tried: &Tried, digits: usize, figure: Figure) -> String {
    let Some(median) = tried.median(figure) else { return "–".to_owned() };
    let all = || tried.rounds.iter().filter_map(figure);
    let (least, most) = (all().reduce(f64::min), all().reduce(f64::max));
    let (least, most) = (least.unwrap_or(median), most.unwrap_or(median));
    format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
}
