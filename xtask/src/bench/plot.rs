//! Plots as SVG. Cases over body size have log axes: one line for each peer, solid where the model is the first key and
//! dashed where the last; the others have bars.

mod bars;

use std::fmt::Write as _;

use super::report::{Results, Summary};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Told apart by most eyes (Okabe and Ito).
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"];

/// One line.
struct Line {
    peer: String,
    series: &'static str,
    points: Vec<(f64, f64)>,
}

/// File names and SVGs: each column of each case that has an axis.
pub(super) fn all(results: &Results) -> Vec<(String, String)> {
    let summaries = Summary::all(results);
    let mut plots: Vec<(String, String, Vec<Line>)> = Vec::new();
    for summary in &summaries {
        let Some((x, series)) = summary.first.x else { continue };
        for (n, (column, cell)) in summary.columns().enumerate() {
            let Some(cell) = cell.filter(|cell| cell.median > 0.0) else { continue };
            let file = format!("{}-{}.svg", summary.first.case, n + 1);
            let title = format!("{} over body size, {}", column.name, column.unit);
            let at = plots.iter().position(|plot| plot.0 == file).unwrap_or_else(|| {
                plots.push((file, title, Vec::new()));
                plots.len() - 1
            });
            let Some((_, _, lines)) = plots.get_mut(at) else { continue };
            let peer = &summary.first.peer;
            match lines.iter_mut().find(|line| line.peer == *peer && line.series == series) {
                Some(line) => line.points.push((x, cell.median)),
                None => {
                    lines.push(Line { peer: peer.clone(), series, points: vec![(x, cell.median)] });
                }
            }
        }
    }
    let lines = plots.into_iter().filter_map(|(file, title, lines)| Some((file, draw(&title, &lines)?)));
    lines.chain(barred(&summaries)).collect()
}

/// The cases without an axis.
fn barred(summaries: &[Summary<'_>]) -> Vec<(String, String)> {
    let mut plots = Vec::new();
    let mut rest: Vec<&Summary<'_>> = summaries.iter().filter(|summary| summary.first.x.is_none()).collect();
    while let Some(first) = rest.first().copied() {
        let case = first.first.case;
        let (of_case, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|summary| summary.first.case == case);
        for column in 0..first.cells.len() {
            let svg = bars::draw(&of_case, column);
            plots.extend(svg.map(|svg| (format!("{case}-{}.svg", column + 1), svg)));
        }
        rest = others;
    }
    plots
}

/// A logarithmic axis from one end of the picture to the other.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Option<Self> {
        let least = values.clone().reduce(f64::min)? / 1.2;
        let most = values.reduce(f64::max)? * 1.2;
        Some(Self { least, most, from, to })
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value / self.least).ln() / (self.most / self.least).ln();
        self.from + share * (self.to - self.from)
    }

    /// 1, 2 and 5 times each power of ten that is in reach.
    fn ticks(&self) -> Vec<f64> {
        let first = self.least.log10().floor() as i32;
        let last = self.most.log10().ceil() as i32;
        let all = (first..=last).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
        all.filter(|tick| (self.least..=self.most).contains(tick)).collect()
    }
}

fn draw(title: &str, lines: &[Line]) -> Option<String> {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let x = Axis::over(all().map(|(x, _)| x), LEFT, WIDTH - RIGHT)?;
    let y = Axis::over(all().map(|(_, y)| y), HEIGHT - BOTTOM, TOP)?;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{title}</text>\n"
    );
    axes(&mut svg, &x, &y, all().map(|(x, _)| x)).ok()?;
    let mut peers: Vec<&str> = Vec::new();
    for line in lines {
        if !peers.contains(&line.peer.as_str()) {
            peers.push(&line.peer);
        }
    }
    for (n, peer) in peers.iter().enumerate() {
        let colour = COLOURS.get(n % COLOURS.len())?;
        let (left, at) = (WIDTH - RIGHT + 15.0, TOP + 20.0 * n as f64);
        writeln!(svg, "<rect x=\"{left}\" y=\"{at}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>").ok()?;
        writeln!(svg, "<text x=\"{}\" y=\"{}\">{peer}</text>", left + 18.0, at + 11.0).ok()?;
        for line in lines.iter().filter(|line| line.peer == *peer) {
            line_of(&mut svg, line, colour, &x, &y).ok()?;
        }
    }
    let below = TOP + 20.0 * (peers.len() + 1) as f64;
    writeln!(svg, "<text x=\"{}\" y=\"{below}\">dashed: model last</text>", WIDTH - RIGHT + 15.0).ok()?;
    svg.push_str("</svg>\n");
    Some(svg)
}

fn axes(svg: &mut String, x: &Axis, y: &Axis, sizes: impl Iterator<Item = f64>) -> std::fmt::Result {
    for tick in y.ticks() {
        let at = y.at(tick);
        let right = WIDTH - RIGHT;
        writeln!(svg, "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>")?;
        writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>", LEFT - 6.0, at + 4.0)?;
    }
    let mut marked: Vec<f64> = Vec::new();
    for size in sizes {
        if marked.contains(&size) {
            continue;
        }
        marked.push(size);
        let (at, low) = (x.at(size), HEIGHT - BOTTOM);
        writeln!(svg, "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{low}\" stroke=\"#ddd\"/>")?;
        let name = if size < 1_048_576.0 {
            format!("{} KiB", size / 1024.0)
        } else {
            format!("{} MiB", size / 1_048_576.0)
        };
        writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>", low + 18.0)?;
    }
    Ok(())
}

fn line_of(svg: &mut String, line: &Line, colour: &str, x: &Axis, y: &Axis) -> std::fmt::Result {
    let points = line.points.iter().map(|(size, value)| format!("{:.1},{:.1}", x.at(*size), y.at(*value)));
    let points = points.collect::<Vec<_>>().join(" ");
    let dashes = if line.series.ends_with("last") { " stroke-dasharray=\"6 4\"" } else { "" };
    writeln!(
        svg,
        "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>"
    )
}
