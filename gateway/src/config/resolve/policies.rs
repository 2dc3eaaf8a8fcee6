//! Which policy holds where. At one place the oldest wins and the others are Conflicted; a nearer place goes
//! before a farther one.

use std::collections::HashMap;

use super::board::Board;
use super::gateways::Bound;
use crate::config::objects::client_policy::ClientTrafficPolicy;
use crate::config::objects::http_route::{HttpRoute, RouteRule};
use crate::config::objects::target::{TargetKind, TargetRef, Targets};
use crate::config::objects::traffic_policy::BackendTrafficPolicy;
use crate::config::objects::{Kind, Meta, Object, Objects};
use crate::config::report::{Condition, Place};
use crate::config::traffic::TrafficPatch;
use crate::snapshot::ObjectName;

/// Where a policy holds: an object, or one listener or rule of it.
type Spot = (TargetKind, ObjectName, Option<Box<str>>);

pub(crate) struct Policies<'a> {
    client: HashMap<Spot, &'a ClientTrafficPolicy>,
    traffic: HashMap<Spot, &'a BackendTrafficPolicy>,
}

impl<'a> Policies<'a> {
    pub(crate) fn new(objects: &'a Objects, board: &mut Board) -> Self {
        let client = objects.client_policies.iter().map(|p| (&p.meta, &p.spec, &p.spec.targets)).collect();
        let traffic = objects.traffic_policies.iter().map(|p| (&p.meta, &p.spec, &p.spec.targets)).collect();
        Self {
            client: settle(Kind::ClientTrafficPolicy, client, objects, board),
            traffic: settle(Kind::BackendTrafficPolicy, traffic, objects, board),
        }
    }

    /// Listener before Gateway.
    pub(crate) fn client(&self, bound: &Bound<'_>) -> Option<&'a ClientTrafficPolicy> {
        let [listener, gateway] = spots_of(bound);
        self.client.get(&listener).or_else(|| self.client.get(&gateway)).copied()
    }

    /// The rule's own settings over its policy: of the rule, the route, the listener or the Gateway, the first
    /// there is. With `mergeType`, a policy of a route lies over that of the listener or Gateway.
    pub(crate) fn traffic(
        &self,
        bound: &Bound<'_>,
        route: &Object<HttpRoute>,
        rule: &RouteRule,
    ) -> TrafficPatch {
        let name = &route.meta.name;
        let of_rule = rule.name.clone().map(|rule| (TargetKind::HttpRoute, name.clone(), Some(rule)));
        let of_route = (TargetKind::HttpRoute, name.clone(), None);
        let near = of_rule.and_then(|spot| self.traffic.get(&spot)).or_else(|| self.traffic.get(&of_route));
        let far = self.of_listener(bound);
        let policy = match (near, far) {
            (Some(near), Some(far)) if near.merges => near.patch.over(&far.patch),
            (Some(one), _) => one.patch.clone(),
            (None, Some(one)) => one.patch.clone(),
            (None, None) => TrafficPatch::default(),
        };
        rule.traffic.over(&policy)
    }

    /// What holds on a listener for requests without a route of their own.
    pub(crate) fn of_listener(&self, bound: &Bound<'_>) -> Option<&'a BackendTrafficPolicy> {
        let [listener, gateway] = spots_of(bound);
        self.traffic.get(&listener).or_else(|| self.traffic.get(&gateway)).copied()
    }
}

fn spots_of(bound: &Bound<'_>) -> [Spot; 2] {
    let gateway = &bound.gateway.meta.name;
    let section = Some(bound.listener.name.clone());
    [(TargetKind::Gateway, gateway.clone(), section), (TargetKind::Gateway, gateway.clone(), None)]
}

/// Gives each place to its oldest policy and tells the others.
fn settle<'a, P>(
    kind: Kind,
    mut policies: Vec<(&'a Meta, &'a P, &'a Targets)>,
    objects: &Objects,
    board: &mut Board,
) -> HashMap<Spot, &'a P> {
    policies.sort_by(|(a, ..), (b, ..)| a.age().cmp(&b.age()));
    let mut taken: HashMap<Spot, (&'a Meta, &'a P)> = HashMap::new();
    for (meta, policy, targets) in policies {
        for (spot, place) in spots(meta, targets, objects, kind, board) {
            let about = about(&spot);
            match taken.get(&spot) {
                Some((first, _)) if first.name == meta.name => {}
                Some((first, _)) => {
                    let message = format!("{} holds there: the oldest does, then the first name", first.name);
                    let condition = Condition::new(&about, "Accepted", false, "Conflicted", message);
                    board.refuse(kind, meta, place, condition);
                }
                None => {
                    board.holds(kind, meta, &about, "Accepted", "");
                    taken.insert(spot, (meta, policy));
                }
            }
        }
    }
    taken.into_iter().map(|(spot, (_, policy))| (spot, policy)).collect()
}

/// The places that a policy names and that exist.
fn spots<'a>(
    meta: &'a Meta,
    targets: &'a Targets,
    objects: &Objects,
    kind: Kind,
    board: &mut Board,
) -> Vec<(Spot, &'a Place)> {
    let namespace = &meta.name.namespace;
    let mut spots = Vec::new();
    for target in &targets.refs {
        let name = ObjectName { namespace: namespace.clone(), name: (&*target.name).into() };
        match why_missing(objects, target, &name) {
            None => spots.push(((target.kind, name, target.section.clone()), &target.place)),
            Some(message) => {
                let about = about(&(target.kind, name, target.section.clone()));
                let condition = Condition::new(&about, "Accepted", false, "TargetNotFound", message);
                board.refuse(kind, meta, &target.place, condition);
            }
        }
    }
    for selector in &targets.selectors {
        let labelled = |meta: &&Meta| {
            let all = selector.labels.iter().all(|(key, value)| meta.labels.get(key) == Some(value));
            all && meta.name.namespace == *namespace
        };
        let metas: Vec<&Meta> = match selector.kind {
            TargetKind::Gateway => {
                objects.gateways.iter().map(|object| &object.meta).filter(labelled).collect()
            }
            TargetKind::HttpRoute => {
                objects.routes.iter().map(|object| &object.meta).filter(labelled).collect()
            }
        };
        spots.extend(metas.into_iter().map(|found| ((selector.kind, found.name.clone(), None), &meta.place)));
    }
    spots
}

fn why_missing(objects: &Objects, target: &TargetRef, name: &ObjectName) -> Option<String> {
    let (kind, sections): (Kind, Option<Vec<&str>>) = match target.kind {
        TargetKind::Gateway => {
            let gateway = objects.gateways.iter().find(|gateway| gateway.meta.name == *name);
            let names = gateway.map(|g| g.spec.listeners.iter().map(|listener| &*listener.name).collect());
            (Kind::Gateway, names)
        }
        TargetKind::HttpRoute => {
            let route = objects.routes.iter().find(|route| route.meta.name == *name);
            let names = route.map(|r| r.spec.rules.iter().filter_map(|rule| rule.name.as_deref()).collect());
            (Kind::HttpRoute, names)
        }
    };
    let word = kind.word();
    match (sections, &target.section) {
        (None, _) if objects.is_refused(kind, name) => Some(format!("the {word} {name} is not accepted")),
        (None, _) => Some(format!("there is no {word} {name}")),
        (Some(sections), Some(section)) if !sections.contains(&&**section) => {
            Some(format!("the {word} {name} has no section {section}"))
        }
        _ => None,
    }
}

/// The place as conditions name it.
fn about((kind, name, section): &Spot) -> String {
    let word = match kind {
        TargetKind::Gateway => "Gateway",
        TargetKind::HttpRoute => "HTTPRoute",
    };
    match section {
        Some(section) => format!("{word} {}/{section}", name.name),
        None => format!("{word} {}", name.name),
    }
}
