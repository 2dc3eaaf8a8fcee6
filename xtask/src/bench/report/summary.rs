//! Medians over the rounds, with their spread, and ratios to Penstock or to no proxy that compare within a round: what changed on the
//! machine between two rounds is not in them.

use super::{Results, Row};
use crate::bench::cases::{Beside, Column};
use crate::bench::measure::Cpu;

/// What is added to, and what is compared with.
const DIRECT: &str = "direct";
const PENSTOCK: &str = "penstock";

/// One column of one peer at one point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// To what the column is told beside, where that has a meaning.
    pub(crate) ratio: Option<f64>,
}

/// All rounds of one peer at one point.
pub(crate) struct Summary<'r> {
    pub(crate) first: &'r Row,
    /// One for each column; none where no round gave a figure.
    pub(crate) cells: Vec<Option<Cell>>,
    pub(crate) errors: Vec<String>,
    /// Cores in use, the median of each.
    pub(crate) cpu: Option<Cpu>,
}

impl<'r> Summary<'r> {
    /// In the order in which the points of the first round were run.
    pub(crate) fn all(results: &'r Results) -> Vec<Self> {
        let mut keys: Vec<(&str, &str, &str)> = Vec::new();
        for row in &results.rows {
            let key = (row.case, row.point.as_str(), row.peer.as_str());
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys.into_iter().filter_map(|(case, point, peer)| Self::of(results, case, point, peer)).collect()
    }

    fn of(results: &'r Results, case: &str, point: &str, peer: &str) -> Option<Self> {
        let of = |peer: &str| {
            let same = |row: &&Row| row.case == case && row.point == point && row.peer == peer;
            results.rows.iter().filter(same).collect::<Vec<_>>()
        };
        let (rows, direct, penstock) = (of(peer), of(DIRECT), of(PENSTOCK));
        let first = *rows.first()?;
        let cells = first.columns.iter().enumerate().map(|(n, column)| {
            let adds = column.beside == Beside::Added && peer != DIRECT;
            let values = figures(&rows, adds.then_some(&*direct), n);
            let base = match column.beside {
                Beside::Penstock if ![PENSTOCK, DIRECT].contains(&peer) => Some(&penstock),
                Beside::Direct if peer != DIRECT => Some(&direct),
                _ => None,
            };
            let ratio = base.and_then(|base| ratio(&values, &figures(base, None, n)));
            Cell::of(values.into_iter().map(|(_, value)| value).collect(), ratio)
        });
        let mut errors: Vec<String> = rows.iter().flat_map(|row| row.errors.clone()).collect();
        errors.dedup();
        Some(Self { first, cells: cells.collect(), errors, cpu: cpu(&rows) })
    }

    pub(crate) fn columns(&self) -> impl Iterator<Item = (&'static Column, Option<Cell>)> {
        self.first.columns.iter().zip(self.cells.iter().copied())
    }
}

/// A column of each round; less the same of the other rows, where it tells what is added to them.
fn figures(rows: &[&Row], added_to: Option<&[&Row]>, column: usize) -> Vec<(usize, f64)> {
    let figure = |row: &Row| row.figures.get(column).copied().filter(|figure| figure.is_finite());
    let value = |row: &&Row| {
        let value = figure(row)?;
        let base = match added_to {
            Some(others) => {
                others.iter().find(|other| other.round == row.round).and_then(|other| figure(other))?
            }
            None => 0.0,
        };
        Some((row.round, value - base))
    };
    rows.iter().filter_map(value).collect()
}

fn ratio(values: &[(usize, f64)], base: &[(usize, f64)]) -> Option<f64> {
    let pairs = values.iter().filter_map(|(round, value)| {
        let (_, base) = base.iter().find(|(other, _)| other == round)?;
        (*base > 0.0 && *value > 0.0).then_some(value / base)
    });
    median(pairs.collect())
}

impl Cell {
    fn of(values: Vec<f64>, ratio: Option<f64>) -> Option<Self> {
        let least = values.iter().copied().reduce(f64::min)?;
        let most = values.iter().copied().reduce(f64::max)?;
        Some(Self { median: median(values)?, least, most, ratio })
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 { Some(upper) } else { Some(f64::midpoint(*values.get(middle - 1)?, upper)) }
}

fn cpu(rows: &[&Row]) -> Option<Cpu> {
    let cores = |of: fn(&Cpu) -> f64| {
        let each =
            rows.iter().filter_map(|row| row.run.as_ref().map(|run| of(&run.cpu) / run.report.seconds));
        median(each.collect())
    };
    Some(Cpu {
        proxy: cores(|cpu| cpu.proxy)?,
        engine: cores(|cpu| cpu.engine)?,
        load: cores(|cpu| cpu.load)?,
        kernel: cores(|cpu| cpu.kernel)?,
        others: cores(|cpu| cpu.others)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn a_ratio_compares_within_rounds() {
        // The second round was slow for both: the ratio is the same.
        assert_eq!(ratio(&[(0, 2.0), (1, 20.0)], &[(0, 1.0), (1, 10.0)]), Some(2.0));
        assert_eq!(ratio(&[(0, 2.0)], &[(1, 1.0)]), None);
    }
}
