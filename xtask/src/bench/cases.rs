//! What is measured: for each case its points (a kind of load each), and the figures that a run of it gives.

mod bodies;
mod conn;
mod memory;
mod one;
mod small;
mod sse;
mod upload;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::ask::{Ask, Place, Pool, Reply};
use super::children::Layout;
use super::load::{Arrival, Plan, Report};
use super::measure::{Cpu, Memory};

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) columns: &'static [Column],
    pub(crate) points: fn(&Scale) -> Vec<Point>,
    /// In the order of the columns.
    pub(crate) figures: fn(&Run) -> Vec<f64>,
}

/// In the order in which they are run and reported.
pub(crate) const CASES: &[Case] =
    &[small::CASE, bodies::CASE, upload::CASE, sse::CASE, one::CASE, memory::CASE, conn::CASE];

/// The warm-up is so much longer for each connection.
const CONNECTS_IN: Duration = Duration::from_micros(400);

/// What a figure is.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// Behind the point.
    pub(crate) digits: usize,
    pub(crate) beside: Beside,
}

/// What a figure is told beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Beside {
    /// As it is, and how much of Penstock's it is.
    Penstock,
    /// As it is, and how much it is of the same without a proxy.
    Direct,
    /// What is told of a proxy is what it adds to the same without one.
    Added,
}

impl Column {
    pub(crate) const fn plain(name: &'static str, unit: &'static str, digits: usize) -> Self {
        Self { name, unit, digits, beside: Beside::Penstock }
    }

    const fn of_direct(name: &'static str, unit: &'static str, digits: usize) -> Self {
        Self { name, unit, digits, beside: Beside::Direct }
    }

    const fn added(name: &'static str, unit: &'static str, digits: usize) -> Self {
        Self { name, unit, digits, beside: Beside::Added }
    }
}

/// How much of it all is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) quick: bool,
    pub(crate) window: Duration,
    pub(crate) warmup: Duration,
}

/// One kind of load.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) label: String,
    /// Where it stands on a plot's axis, and which line of the plot it is on.
    pub(crate) x: Option<(f64, &'static str)>,
    pub(crate) asks: Vec<Ask>,
    pub(crate) connections: usize,
    pub(crate) arrival: Arrival,
    pub(crate) churn: bool,
    pub(crate) pace: Option<u64>,
}

impl Point {
    /// Both pools asked in turn, in a closed loop on kept connections.
    pub(crate) fn closed(label: impl Into<String>, bytes: usize, place: Place, connections: usize) -> Self {
        Self {
            label: label.into(),
            x: None,
            asks: both(bytes, place, Reply::Json { after_us: 0 }),
            connections,
            arrival: Arrival::Closed,
            churn: false,
            pace: None,
        }
    }

    pub(crate) fn largest_body(&self) -> usize {
        self.asks.iter().map(|ask| ask.bytes).max().unwrap_or(0)
    }

    pub(crate) fn plan(&self, targets: [SocketAddr; 2], scale: &Scale, layout: &Layout) -> Plan {
        let target = |ask: &Ask| match ask.pool {
            Pool::A => targets[0],
            Pool::B => targets[1],
        };
        // Thousands of connections take their time to be there.
        let warmup = scale.warmup + CONNECTS_IN * u32::try_from(self.connections).unwrap_or(u32::MAX);
        Plan {
            targets: self.asks.iter().map(target).collect(),
            asks: self.asks.clone(),
            connections: self.connections,
            threads: layout.load_threads().min(self.connections),
            arrival: self.arrival,
            churn: self.churn,
            pace: self.pace,
            warmup_ms: warmup.as_millis() as u64,
            window_ms: scale.window.as_millis() as u64,
        }
    }
}

/// What was seen and spent in one window.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) report: Report,
    pub(crate) cpu: Cpu,
    /// Of the proxy, before the load came.
    pub(crate) idle: Memory,
    /// And at the window's end.
    pub(crate) loaded: Memory,
    /// Of all events that the proxy passed on, those that went from socket to socket; of one that can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spliced: Option<f64>,
}

impl Run {
    /// CPU seconds of the proxy for a million of something.
    fn cpu_per_million(&self, count: u64) -> f64 {
        self.cpu.proxy * 1e6 / count as f64
    }

    /// And of all: proxy, engines, load, the kernel's threads.
    fn whole_cpu_per_million(&self, count: u64) -> f64 {
        (self.cpu.proxy + self.cpu.engine + self.cpu.load + self.cpu.kernel) * 1e6 / count as f64
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.report.seconds
    }
}

fn both(bytes: usize, place: Place, reply: Reply) -> Vec<Ask> {
    Pool::BOTH.map(|pool| Ask { pool, bytes, place, reply }).to_vec()
}

/// The names of all cases, with what they are.
pub(crate) fn named(name: &str) -> Result<&'static Case> {
    CASES.iter().find(|case| case.name == name).with_context(|| format!("no case {name:?}"))
}
