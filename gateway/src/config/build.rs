//! From checked objects to the snapshot: plan the rules of every listener, make the pools that they reach, then
//! put both together.

mod plan;
mod pools;
mod precedence;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::objects::Objects;
use super::report::Report;
use super::resolve::board::Board;
use super::resolve::gateways::{self, Bound};
use super::resolve::policies::Policies;
use super::resolve::references::{PoolKey, References};
use super::resolve::{models, routes};
use super::traffic;
use crate::discovery::{Names, Registry};
use crate::ledger::Meter;
use crate::snapshot::{Destination, Listener, Match, Pool, Rule, Snapshot, Target};
use plan::Planned;

/// Gives the meter of a pool (`namespace/name`) and model; `("", "")`: requests that reach no pool,
/// `(pool, "other")`: models that no manifest names.
pub type MeterFn<'a> = &'a mut dyn FnMut(&str, &str) -> Arc<Meter>;

pub(super) fn build(
    objects: &Objects,
    report: Report,
    names: &Names,
    registry: &mut Registry,
    meter: MeterFn<'_>,
    generation: u64,
) -> (Snapshot, Report) {
    let mut board = Board::new(report);
    let bound = gateways::bound(objects, names, &mut board);
    let attachments = routes::attach(objects, &bound, &mut board);
    let references = References::new(objects);
    let models = models::accepted(objects, &references, &mut board);
    let policies = Policies::new(objects, &mut board);
    let planned = plan::plan(objects, &bound, &attachments, &references, &models, &policies, &mut board);
    let pools = pools::Pools { objects, references: &references, models: &models, names };
    let pools = pools.build(&planned, registry, meter, &mut board);
    registry.prune();

    let mut by_listener: Vec<Vec<&Planned>> = bound.iter().map(|_| Vec::new()).collect();
    for rule in &planned {
        by_listener.get_mut(rule.listener).into_iter().for_each(|rules| rules.push(rule));
    }
    let listeners = bound.iter().zip(by_listener);
    let listeners =
        listeners.map(|(bound, rules)| Arc::new(listener(bound, &rules, &pools, &policies, meter))).collect();
    let mut pools: Vec<_> = pools.into_iter().collect();
    pools.sort_by(|(a, _), (b, _)| a.cmp(b));
    let pools = pools.into_iter().map(|(_, pool)| pool).collect();
    let mut report = board.report;
    report.sort();
    (Snapshot { generation, listeners, pools }, report)
}

fn listener(
    bound: &Bound<'_>,
    rules: &[&Planned],
    pools: &HashMap<PoolKey, Arc<Pool>>,
    policies: &Policies<'_>,
    meter: MeterFn<'_>,
) -> Listener {
    let longest = rules.iter().filter_map(|rule| rule.traffic.request_timeout).max();
    Listener {
        gateway: bound.gateway.meta.name.clone(),
        name: (&*bound.listener.name).into(),
        addresses: bound.addresses.clone(),
        hostname: bound.listener.hostname.clone(),
        client: traffic::client_policy(policies.client(bound), longest.unwrap_or(Duration::ZERO)),
        matches: matches(rules, pools),
        meter: meter("", ""),
    }
}

fn matches(rules: &[&Planned], pools: &HashMap<PoolKey, Arc<Pool>>) -> Vec<Match> {
    let mut found = Vec::new();
    for planned in rules {
        let destination = |planned: &plan::Destination| Destination {
            weight: planned.weight,
            filters: planned.filters.clone(),
            target: match &planned.target {
                Ok(key) => match pools.get(key) {
                    Some(pool) => Target::Pool(pool.clone()),
                    None => Target::Invalid("the pool is gone".into()),
                },
                Err(why) => Target::Invalid(why.clone()),
            },
        };
        let rule = Arc::new(Rule {
            route: planned.name.clone(),
            index: planned.index,
            filters: planned.filters.clone(),
            destinations: planned.destinations.iter().map(destination).collect(),
            traffic: planned.traffic.clone(),
        });
        for hostname in &planned.hostnames {
            for one in &planned.matches {
                let made = Match {
                    hostname: hostname.clone(),
                    path: one.path.clone(),
                    method: one.method.clone(),
                    headers: one.headers.clone(),
                    query: one.query.clone(),
                    rule: rule.clone(),
                };
                found.push((precedence::rank(&made, planned.age), made));
            }
        }
    }
    // Stable: matches of one rule that rank alike stay in the order of the manifest.
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, made)| made).collect()
}
