//! Bars from zero: a column of a case that has no axis, for each of its points a group with a bar for each peer.

use std::fmt::Write as _;

use super::{COLOURS, Summary};

const LABELS: f64 = 190.0;
const LENGTH: f64 = 460.0;
const WIDTH: f64 = 760.0;
const BAR: f64 = 16.0;
const TOP: f64 = 44.0;
/// For a point's name above its bars, and the space before it.
const HEADING: f64 = 30.0;

/// None without a figure above zero.
pub(super) fn draw(summaries: &[&Summary<'_>], column: usize) -> Option<String> {
    let shown = |summary: &Summary<'_>| {
        let cell = summary.cells.get(column).copied().flatten()?;
        (cell.median.is_finite() && cell.median > 0.0).then_some(cell)
    };
    let most =
        summaries.iter().filter_map(|summary| shown(summary)).map(|cell| cell.most).reduce(f64::max)?;
    let about = summaries.first()?.first.columns.get(column)?;
    let unit = if about.unit.is_empty() { String::new() } else { format!(", {}", about.unit) };
    let (mut rows, mut y, mut point, mut peers) = (String::new(), TOP, "", Vec::new());
    for summary in summaries {
        let Some(cell) = shown(summary) else { continue };
        if summary.first.point != point {
            point = &summary.first.point;
            y += HEADING;
            writeln!(rows, "<text x=\"10\" y=\"{}\" font-weight=\"bold\">{}</text>", y - 8.0, point).ok()?;
        }
        let peer = summary.first.peer.as_str();
        let known = peers.iter().position(|known| *known == peer);
        let colour = COLOURS.get(known.unwrap_or(peers.len()) % COLOURS.len())?;
        if known.is_none() {
            peers.push(peer);
        }
        let at = |value: f64| LABELS + LENGTH * value.max(0.0) / most;
        let (end, middle, low) = (at(cell.median), y + BAR / 2.0, y + BAR - 4.0);
        let escaped = peer.replace('&', "&amp;").replace('<', "&lt;");
        writeln!(
            rows,
            "<text x=\"{}\" y=\"{low}\" text-anchor=\"end\">{escaped}</text>\
             <rect x=\"{LABELS}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"black\"/>\
             <text x=\"{:.1}\" y=\"{low}\">{:.*}</text>",
            LABELS - 8.0,
            end - LABELS,
            BAR - 2.0,
            at(cell.least),
            at(cell.most),
            at(cell.most) + 6.0,
            about.digits,
            cell.median
        )
        .ok()?;
        y += BAR;
    }
    let height = y + 12.0;
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"22\" font-size=\"15\">{}{unit}</text>\n\
         <text x=\"10\" y=\"40\">the line is from the least to the most of the rounds</text>\n{rows}</svg>\n",
        about.name
    ))
}
