//! From a request's head and model to the pool that answers it.
//!
//! A [`Table`] is prepared once per snapshot and address. The listener is found first, by hostname, because its
//! limits hold before the model is known; then its routes are asked, first match wins. Paths are compared as they
//! were sent: normalising them is left to the engine.

#![forbid(unsafe_code)]

mod choose;
pub mod filters;
#[cfg(test)]
pub(crate) mod fixtures;
mod host;
mod matches;
pub mod models;
mod tables;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use http::request::Parts;
use http::{HeaderMap, Method};

use crate::failure::{Failure, Reason};
use crate::inspect::MODEL_HEADER;
use crate::snapshot::{Destination, Listener, Match, Model, ObjectName, Pool, Redirect, Traffic, ValueMatch};

pub use host::Host;
pub(crate) use matches::mismatch;
pub use tables::Tables;

/// What routing asks of a request.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'r> {
    pub host: Option<Host<'r>>,
    pub method: &'r Method,
    /// As received, without the query.
    pub path: &'r str,
    pub query: Option<&'r str>,
    /// Without the client's own internal fields.
    pub headers: &'r HeaderMap,
    /// The decoded name. Matches on X-Gateway-Model-Name compare it as it is, never percent-encoded: manifests
    /// spell names plainly.
    pub model: Option<&'r str>,
}

impl<'r> Asked<'r> {
    #[must_use]
    pub fn new(parts: &'r Parts, model: Option<&'r str>) -> Self {
        Self::of_host(Host::of(parts), parts, model)
    }

    /// The same for who has the [host](Host::of) of `parts` already.
    #[must_use]
    pub fn of_host(host: Option<Host<'r>>, parts: &'r Parts, model: Option<&'r str>) -> Self {
        Self {
            host,
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query(),
            headers: &parts.headers,
            model,
        }
    }
}

/// The listeners that share an address, ready to be asked.
#[derive(Debug, Default)]
pub struct Table {
    /// Most specific hostname first.
    routes: Vec<Routes>,
    /// Connections open through its door, over all workers.
    open: Arc<OpenConnections>,
}

/// Client connections that count against one limit.
pub type OpenConnections = AtomicU32;

impl Table {
    #[must_use]
    pub fn new<'l>(listeners: impl IntoIterator<Item = &'l Arc<Listener>>) -> Self {
        let mut routes: Vec<_> = listeners.into_iter().cloned().map(Routes::new).collect();
        routes.sort_by_key(|routes| std::cmp::Reverse(host::specificity(&routes.listener.hostname)));
        Self { routes, open: Arc::default() }
    }

    /// The listener that speaks for a connection before a request names its host: the least specific one. Its limit
    /// holds for its connections on all of its addresses together.
    fn door(&self) -> Option<(ObjectName, Arc<str>)> {
        let listener = self.routes.last()?.listener();
        Some((listener.gateway.clone(), listener.name.clone()))
    }

    /// How many connections are open through its door.
    #[must_use]
    pub fn open(&self) -> &Arc<OpenConnections> {
        &self.open
    }

    /// The routes of the listener with the most specific hostname that admits `host`.
    pub fn listener(&self, host: Option<Host<'_>>) -> Result<&Routes, Failure> {
        self.routes.iter().find(|routes| host::admits(&routes.listener.hostname, host)).ok_or_else(|| {
            Failure::new(Reason::NoRoute, "no listener answers for this Host; see the Gateway's listeners")
        })
    }

    #[must_use]
    pub fn all(&self) -> &[Routes] {
        &self.routes
    }
}

/// The matches of one listener. Thousands of rules that differ by their exact model alone cost one look-up.
#[derive(Debug)]
pub struct Routes {
    listener: Arc<Listener>,
    /// Positions of the matches that ask for exactly this model, ascending.
    by_model: BTreeMap<Box<str>, Vec<usize>>,
    /// Positions of the others, ascending.
    others: Vec<usize>,
    /// What the list of models is made of.
    known: models::Known,
    body_limit: u64,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Routed<'s> {
    /// What was matched, and the rule that it belongs to.
    pub matched: &'s Match,
    pub action: Action<'s>,
}

#[derive(Clone, Copy, Debug)]
pub enum Action<'s> {
    Redirect(&'s Redirect),
    Forward(Forward<'s>),
}

/// A destination that was drawn by weight.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'s> {
    pub destination: &'s Destination,
    pub pool: &'s Arc<Pool>,
    /// `None`: the request has no model, or one that no manifest names.
    pub model: Option<&'s Arc<Model>>,
    /// What the engine is asked for instead of the client's name, where that differs.
    pub rewrite: Option<&'s str>,
}

impl Routes {
    fn new(listener: Arc<Listener>) -> Self {
        let mut by_model: BTreeMap<Box<str>, Vec<usize>> = BTreeMap::new();
        let mut others = Vec::new();
        for (position, entry) in listener.matches.iter().enumerate() {
            match exact_model(entry) {
                Some(model) => by_model.entry(model.into()).or_default().push(position),
                None => others.push(position),
            }
        }
        let limits = listener.matches.iter().map(|entry| entry.rule.traffic.body_limit);
        let body_limit = limits.max().unwrap_or_else(|| Traffic::default().body_limit);
        let known = models::Known::new(&listener.matches);
        Self { listener, by_model, others, known, body_limit }
    }

    #[must_use]
    pub fn listener(&self) -> &Arc<Listener> {
        &self.listener
    }

    /// Bytes of the largest body that any rule takes: what holds before the rule is known.
    #[must_use]
    pub fn body_limit(&self) -> u64 {
        self.body_limit
    }

    /// The match that takes the request, and the destination drawn for it.
    pub fn route(&self, asked: &Asked<'_>) -> Result<Routed<'_>, Failure> {
        let matched = self.find(asked)?;
        let action = choose::action(&matched.rule, asked.model)?;
        Ok(Routed { matched, action })
    }

    /// The first match that holds.
    pub fn find(&self, asked: &Asked<'_>) -> Result<&Match, Failure> {
        self.candidates(asked.model)
            .find(|entry| mismatch(entry, asked).is_none())
            .ok_or_else(|| not_found(asked.model))
    }

    /// The matches that could hold for a model, in order of precedence.
    fn candidates(&self, model: Option<&str>) -> impl Iterator<Item = &Match> {
        let named = model.and_then(|model| self.by_model.get(model));
        let mut named = named.map(Vec::as_slice).unwrap_or_default().iter().peekable();
        let mut others = self.others.iter().peekable();
        std::iter::from_fn(move || match (named.peek(), others.peek()) {
            (Some(a), Some(b)) if a < b => named.next(),
            (Some(_), None) => named.next(),
            _ => others.next(),
        })
        .filter_map(|&position| self.listener.matches.get(position))
    }
}

/// The model that a match asks for by an exact X-Gateway-Model-Name.
fn exact_model(entry: &Match) -> Option<&str> {
    entry.headers.iter().find_map(|(name, value)| match value {
        ValueMatch::Exact(model) if name == MODEL_HEADER => Some(&**model),
        _ => None,
    })
}

fn not_found(model: Option<&str>) -> Failure {
    match model {
        Some(model) => Failure::new(
            Reason::ModelNotFound,
            format!("no rule routes the model \"{model}\" on this path; GET /v1/models lists what is served"),
        ),
        None => {
            Failure::new(Reason::NoRoute, "no rule matches this request; see the HTTPRoutes of the listener")
        }
    }
}

#[cfg(test)]
mod tests;
