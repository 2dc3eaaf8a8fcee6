//! Small pieces of a snapshot for tests.

use std::sync::Arc;

use http::HeaderName;

use crate::endpoint::{Address, Endpoint};
use crate::snapshot::*;

pub(crate) fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "default".into(), name: name.into() }
}

pub(crate) fn endpoint(port: u16) -> Arc<Endpoint> {
    Arc::new(Endpoint::new(Address::Tcp(([127, 0, 0, 1], port).into())))
}

/// With this many endpoints.
pub(crate) fn pool(pool: &str, endpoints: u16) -> Arc<Pool> {
    pool_of(pool, (0..endpoints).map(|i| endpoint(8000 + i)).collect())
}

pub(crate) fn pool_of(pool: &str, endpoints: Vec<Arc<Endpoint>>) -> Arc<Pool> {
    Arc::new(Pool {
        name: name(pool),
        kind: "InferencePool",
        endpoints,
        models: Default::default(),
        meter: Arc::default(),
    })
}

pub(crate) fn model(name: &str, targets: &[(&str, u32)]) -> Arc<Model> {
    let targets = targets.iter().map(|&(name, weight)| ModelTarget { name: name.into(), weight });
    Arc::new(Model {
        name: name.into(),
        criticality: Criticality::default(),
        targets: targets.collect(),
        meter: Arc::default(),
    })
}

pub(crate) fn destination(pool: &Arc<Pool>, weight: u32) -> Destination {
    Destination { weight, filters: Filters::default(), target: Target::Pool(pool.clone()) }
}

pub(crate) fn invalid(why: &str, weight: u32) -> Destination {
    Destination { weight, filters: Filters::default(), target: Target::Invalid(why.into()) }
}

pub(crate) fn rule(destinations: Vec<Destination>) -> Rule {
    Rule {
        route: name("route"),
        index: 0,
        filters: Filters::default(),
        destinations,
        traffic: Traffic::default(),
    }
}

/// A match that holds for everything.
pub(crate) fn any_to(rule: Rule) -> Match {
    Match {
        hostname: Hostname::Any,
        path: PathMatch::Prefix("".into()),
        method: None,
        headers: vec![],
        query: vec![],
        rule: Arc::new(rule),
    }
}

pub(crate) fn to_model(model: &str, pool: &Arc<Pool>) -> Match {
    let headers = vec![exact_header("x-gateway-model-name", model)];
    Match { headers, ..any_to(rule(vec![destination(pool, 1)])) }
}

pub(crate) fn exact_header(name: &str, value: &str) -> (HeaderName, ValueMatch) {
    (HeaderName::from_bytes(name.as_bytes()).unwrap(), ValueMatch::Exact(value.into()))
}

pub(crate) fn listener(hostname: Hostname, matches: Vec<Match>) -> Arc<Listener> {
    Arc::new(Listener {
        gateway: name("gateway"),
        name: "llm-gw".into(),
        addresses: vec![([0, 0, 0, 0], 8080).into()],
        hostname,
        client: ClientPolicy::default(),
        matches,
        meter: Arc::default(),
    })
}
