//! The rules of every listener, with destinations named but not made yet.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::objects::http_route::{HttpRoute, RouteMatch};
use crate::config::objects::inference_model::InferenceModel;
use crate::config::objects::{Kind, Object, Objects};
use crate::config::report::Condition;
use crate::config::resolve::board::Board;
use crate::config::resolve::gateways::Bound;
use crate::config::resolve::policies::Policies;
use crate::config::resolve::references::{Broken, PoolKey, References};
use crate::config::resolve::routes::{self, Attachment};
use crate::config::traffic::TrafficPatch;
use crate::inspect::MODEL_HEADER;
use crate::snapshot::{Filters, Hostname, ObjectName, Traffic, ValueMatch};

/// One rule on one listener.
pub(super) struct Planned {
    pub(super) listener: usize,
    pub(super) name: ObjectName,
    pub(super) index: usize,
    /// Position of the route among all, oldest first.
    pub(super) age: usize,
    pub(super) hostnames: Vec<Hostname>,
    pub(super) matches: Vec<RouteMatch>,
    pub(super) filters: Filters,
    pub(super) destinations: Vec<Destination>,
    pub(super) traffic: Traffic,
}

#[derive(Clone)]
pub(super) struct Destination {
    pub(super) weight: u32,
    pub(super) filters: Filters,
    /// The pool, or why there is none.
    pub(super) target: Result<PoolKey, Arc<str>>,
}

/// Every rule of every attached route; without any HTTPRoute in the manifests, one per InferenceModel.
pub(super) fn plan(
    objects: &Objects,
    bound: &[Bound<'_>],
    attachments: &[Attachment<'_>],
    references: &References<'_>,
    models: &[(&Object<InferenceModel>, PoolKey)],
    policies: &Policies<'_>,
    board: &mut Board,
) -> Vec<Planned> {
    // A refused route counts as one: what it meant to restrict must not be open instead.
    if !objects.any(Kind::HttpRoute) {
        return plan_models(bound, models, policies);
    }
    let mut by_age: Vec<&Object<HttpRoute>> = objects.routes.iter().collect();
    by_age.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
    let mut destinations: HashMap<&ObjectName, (usize, Vec<Vec<Destination>>)> = HashMap::new();
    for (age, route) in by_age.into_iter().enumerate() {
        destinations.insert(&route.meta.name, (age, resolve(route, references, board)));
    }
    let mut planned = Vec::new();
    for attachment in attachments {
        let (route, listener) = (attachment.route, attachment.listener);
        let Some(((age, destinations), bound)) = destinations.get(&route.meta.name).zip(bound.get(listener))
        else {
            continue;
        };
        for (index, (rule, destinations)) in route.spec.rules.iter().zip(destinations).enumerate() {
            planned.push(Planned {
                listener,
                name: route.meta.name.clone(),
                index,
                age: *age,
                hostnames: attachment.hostnames.clone(),
                matches: rule.matches.clone(),
                filters: rule.filters.clone(),
                destinations: destinations.clone(),
                traffic: Traffic {
                    splice: route.meta.splice.unwrap_or(true),
                    ..policies.traffic(bound, route, rule).resolve()
                },
            });
        }
    }
    planned
}

/// The destinations of each rule of a route, and its ResolvedRefs.
fn resolve(
    route: &Object<HttpRoute>,
    references: &References<'_>,
    board: &mut Board,
) -> Vec<Vec<Destination>> {
    let mut first: Option<Broken> = None;
    let mut rules = Vec::new();
    for rule in &route.spec.rules {
        let mut destinations = Vec::new();
        for reference in &rule.backends {
            let target = references.resolve(&route.meta.name.namespace, reference).map_err(|broken| {
                board.report.error(&reference.place, format!("{}: {}", broken.reason, broken.message));
                let why = Arc::from(broken.message.as_str());
                first.get_or_insert(broken);
                why
            });
            destinations.push(Destination {
                weight: reference.weight,
                filters: reference.filters.clone(),
                target,
            });
        }
        rules.push(destinations);
    }
    for about in route.spec.parents.iter().map(routes::about) {
        if !board.is_accepted(Kind::HttpRoute, &route.meta, &about) {
            continue;
        }
        let condition = match &first {
            None => Condition::new(&about, "ResolvedRefs", true, "ResolvedRefs", ""),
            Some(broken) => {
                Condition::new(&about, "ResolvedRefs", false, broken.reason, broken.message.clone())
            }
        };
        board.set(Kind::HttpRoute, &route.meta, condition);
    }
    rules
}

/// Without any HTTPRoute an InferenceModel alone suffices: its name leads to its pool.
fn plan_models(
    bound: &[Bound<'_>],
    models: &[(&Object<InferenceModel>, PoolKey)],
    policies: &Policies<'_>,
) -> Vec<Planned> {
    let mut planned = Vec::new();
    for (listener, bound) in bound.iter().enumerate() {
        let policy = policies.of_listener(bound);
        let traffic = policy.map_or_else(TrafficPatch::default, |policy| policy.patch.clone()).resolve();
        for (age, (model, pool)) in models.iter().enumerate() {
            if !routes::admits(bound, &model.meta.name.namespace) || !bound.listener.takes_http_routes {
                continue;
            }
            let value = ValueMatch::Exact(model.spec.model.clone());
            let matched = RouteMatch { headers: vec![(MODEL_HEADER, value)], ..RouteMatch::default() };
            planned.push(Planned {
                listener,
                name: model.meta.name.clone(),
                index: 0,
                age,
                hostnames: vec![bound.listener.hostname.clone()],
                matches: vec![matched],
                filters: Filters::default(),
                destinations: vec![Destination {
                    weight: 1,
                    filters: Filters::default(),
                    target: Ok(pool.clone()),
                }],
                traffic: traffic.clone(),
            });
        }
    }
    planned
}
