//! One setting tried at several values, in rounds: what changes on the machine meanwhile meets all of them.

use anyhow::Result;

use super::shape::Shape;
use crate::bench::ask::Pool;
use crate::bench::cases::Run;
use crate::bench::children::Engine;
use crate::bench::load::Arrival;
use crate::bench::peers::penstock::{Gateway, gateway};
use crate::bench::{Bench, penstock, rounds};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) workers: usize,
    pub(crate) kernel: &'static str,
}

/// Of one round; none where the shape has no such load.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) requests_per_s: Option<f64>,
    /// CPU seconds of Penstock for a million.
    pub(crate) cpu_per_request: Option<f64>,
    pub(crate) cpu_per_event: Option<f64>,
    /// From an engine's write to the client's read, µs.
    pub(crate) event_p99_us: Option<f64>,
    pub(crate) rss_mib: f64,
    /// Cores that other processes took meanwhile.
    pub(crate) others: f64,
}

pub(crate) struct Tried {
    pub(crate) setting: Setting,
    pub(crate) rounds: Vec<Figures>,
    /// A setting with any is not chosen.
    pub(crate) errors: Vec<String>,
}

pub(crate) struct Sweep {
    /// The option whose values are tried.
    pub(crate) option: &'static str,
    pub(crate) tried: Vec<Tried>,
}

impl Sweep {
    pub(crate) async fn run(
        bench: &Bench,
        shape: &Shape,
        option: &'static str,
        settings: Vec<Setting>,
    ) -> Result<Self> {
        let engines =
            [Engine::start(Pool::A, &bench.layout).await?, Engine::start(Pool::B, &bench.layout).await?];
        let tried = |setting| Tried { setting, rounds: Vec::new(), errors: Vec::new() };
        let mut sweep = Self { option, tried: settings.into_iter().map(tried).collect() };
        for round in 0..bench.rounds {
            // Another one begins each round.
            let count = sweep.tried.len().max(1);
            for turn in 0..count {
                let Some(tried) = sweep.tried.get_mut((turn + round) % count) else { continue };
                let Setting { workers, kernel } = tried.setting;
                eprintln!("round {} of {}: --workers {workers} --kernel {kernel}", round + 1, bench.rounds);
                tried.once(bench, &engines, shape).await;
            }
        }
        Ok(sweep)
    }
}

impl Tried {
    async fn once(&mut self, bench: &Bench, engines: &[Engine; 2], shape: &Shape) {
        let Setting { workers, kernel } = self.setting;
        let peer = gateway("penstock".to_owned(), Gateway { program: penstock(), workers, kernel });
        let mut figures = Figures::default();
        for point in shape.points() {
            match rounds::measured(bench, engines, &point, &peer).await {
                Ok((run, wrong)) => {
                    figures.add(&run, point.arrival == Arrival::Once);
                    let errors = run.report.errors.iter();
                    self.errors.extend(errors.map(|(error, count)| format!("{count} × {error}")));
                    if wrong > 0 {
                        self.errors.push(format!("{wrong} requests came wrong to an engine"));
                    }
                }
                Err(error) => self.errors.push(format!("{error:#}")),
            }
        }
        self.rounds.push(figures);
    }

    /// Over the rounds.
    pub(crate) fn median(&self, of: fn(&Figures) -> Option<f64>) -> Option<f64> {
        median(self.rounds.iter().filter_map(of).collect())
    }
}

impl Figures {
    fn add(&mut self, run: &Run, streams: bool) {
        let report = &run.report;
        let per_million = |count: u64| (count > 0).then(|| run.cpu.proxy * 1e6 / count as f64);
        if streams {
            self.cpu_per_event = per_million(report.events);
            self.event_p99_us = (report.events > 0).then_some(report.event.p99);
        } else {
            self.cpu_per_request = per_million(report.requests);
            self.requests_per_s = Some(report.requests as f64 / report.seconds);
        }
        self.others = self.others.max(run.cpu.others / report.seconds);
        self.rss_mib = self.rss_mib.max(run.loaded.rss as f64 / f64::from(1 << 20));
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 { Some(upper) } else { Some(f64::midpoint(*values.get(middle - 1)?, upper)) }
}
