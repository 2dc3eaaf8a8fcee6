//! The case `bypass`: others send to the same engines, past Penstock. On each rung of its kernel half: does its choice make
//! up for them, and what does counting them cost?

mod cost;
mod gateway;
mod share;

use anyhow::Result;

use super::Bench;
use super::ask::Pool;
use super::children::Engine;
use super::report::{Results, Row};

pub(super) const ABOUT: &str =
    "40 % of the traffic goes past Penstock onto one of two equal endpoints; the cost of counting it";

/// Where Penstock's knowledge of others comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    Userspace,
    SockDiag,
    Account,
}

impl Rung {
    const ALL: [Self; 3] = [Self::Userspace, Self::SockDiag, Self::Account];

    fn name(self) -> &'static str {
        match self {
            Self::Userspace => "userspace",
            Self::SockDiag => "sock_diag",
            Self::Account => "account",
        }
    }

    /// For `--kernel`.
    fn option(self) -> &'static str {
        match self {
            Self::Userspace => "off",
            Self::SockDiag => "sock-diag",
            Self::Account => "account",
        }
    }
}

pub(super) async fn run(bench: &Bench, results: &mut Results) -> Result<()> {
    // Both of one pool: equal endpoints.
    let engines =
        [Engine::start(Pool::A, &bench.layout).await?, Engine::start(Pool::A, &bench.layout).await?];
    for round in 0..bench.rounds {
        for gateways in [1, 2] {
            for rung in Rung::ALL {
                let (point, row) = share::row(bench, &engines, rung, gateways, round).await;
                tell(bench, round, &point, rung, row, results);
            }
        }
        for rung in Rung::ALL {
            let (point, row) = cost::row(bench, &engines, rung, round).await;
            tell(bench, round, &point, rung, row, results);
        }
    }
    Ok(())
}

fn tell(bench: &Bench, round: usize, point: &str, rung: Rung, row: Row, results: &mut Results) {
    eprintln!(
        "round {} of {}: {}, {point}, {} … {}",
        round + 1,
        bench.rounds,
        row.case,
        rung.name(),
        row.told()
    );
    results.rows.push(row);
}
