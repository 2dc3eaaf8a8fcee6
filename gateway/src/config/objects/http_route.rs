//! HTTPRoute: parents, host names and rules.

mod filters;
mod matches;

use std::time::Duration;

use super::kind::GATEWAY_GROUP;
use super::{Kind, Spec};
use crate::config::fields::{Field, Fields};
use crate::config::report::Place;
use crate::config::traffic::{RetryOn, RetryPatch, TrafficPatch};
use crate::config::units;
use crate::snapshot::{Filters, Hostname, PathRewrite};
pub(crate) use matches::RouteMatch;

#[derive(Debug)]
pub(crate) struct HttpRoute {
    pub(crate) parents: Vec<ParentRef>,
    /// Empty: those of the listener.
    pub(crate) hostnames: Vec<Hostname>,
    pub(crate) rules: Vec<RouteRule>,
}

#[derive(Debug)]
pub(crate) struct ParentRef {
    /// Whether it is a Gateway; other kinds have other controllers.
    pub(crate) is_gateway: bool,
    pub(crate) namespace: Option<Box<str>>,
    pub(crate) name: Box<str>,
    pub(crate) section: Option<Box<str>>,
    pub(crate) port: Option<u16>,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) struct RouteRule {
    pub(crate) name: Option<Box<str>>,
    /// Never empty: without any, every request matches.
    pub(crate) matches: Vec<RouteMatch>,
    pub(crate) filters: Filters,
    pub(crate) backends: Vec<BackendRef>,
    pub(crate) traffic: TrafficPatch,
}

#[derive(Debug)]
pub(crate) struct BackendRef {
    /// `None`: a kind that cannot take requests; its name is in `kind_word`.
    pub(crate) kind: Option<Kind>,
    pub(crate) kind_word: Box<str>,
    pub(crate) namespace: Option<Box<str>>,
    pub(crate) name: Box<str>,
    pub(crate) port: Option<u16>,
    pub(crate) weight: u32,
    pub(crate) filters: Filters,
    pub(crate) place: Place,
}

impl Spec for HttpRoute {
    fn read(top: &Fields<'_>, _: Kind) -> Option<Self> {
        let spec = top.require("spec")?.fields()?;
        spec.unsupported(&["useDefaultGateways"]);
        let parents = spec.items("parentRefs", 32);
        if parents.is_empty() {
            spec.error("parentRefs is missing: name the Gateway that the route belongs to");
        }
        let hostnames = spec.items("hostnames", 16);
        let hostname = |item: &Field<'_>| item.ok(units::hostname(item.string()?));
        let items = spec.items("rules", 16);
        let mut rules: Vec<RouteRule> = items.iter().filter_map(rule).collect();
        if items.is_empty() {
            rules.push(RouteRule::default());
        }
        if rules.iter().map(|rule| rule.matches.len()).sum::<usize>() > 128 {
            spec.error("rules: more than 128 matches in all; split the route");
        }
        Some(Self {
            parents: parents.iter().filter_map(parent).collect(),
            hostnames: hostnames.iter().filter_map(hostname).collect(),
            rules,
        })
    }
}

impl Default for RouteRule {
    fn default() -> Self {
        Self {
            name: None,
            matches: vec![RouteMatch::default()],
            filters: Filters::default(),
            backends: Vec::new(),
            traffic: TrafficPatch::default(),
        }
    }
}

fn parent(item: &Field<'_>) -> Option<ParentRef> {
    let fields = item.fields()?;
    let group = fields.string("group").unwrap_or(GATEWAY_GROUP);
    let kind = fields.string("kind").unwrap_or("Gateway");
    Some(ParentRef {
        is_gateway: (group, kind) == (GATEWAY_GROUP, "Gateway"),
        namespace: fields.string("namespace").map(Into::into),
        name: fields.required_string("name").into(),
        section: fields.string("sectionName").map(Into::into),
        port: fields.get("port").and_then(|field| field.port()),
        place: fields.place(),
    })
}

fn rule(item: &Field<'_>) -> Option<RouteRule> {
    let fields = item.fields()?;
    fields.unsupported(&["sessionPersistence"]);
    let items = fields.items("matches", 64);
    let mut matches: Vec<RouteMatch> = items.iter().filter_map(matches::read).collect();
    if items.is_empty() {
        matches.push(RouteMatch::default());
    }
    let filters = filters::read(&fields);
    let backends: Vec<BackendRef> = fields.items("backendRefs", 16).iter().filter_map(backend).collect();
    if filters.redirect.is_some() && !backends.is_empty() {
        fields.error("RequestRedirect does not go with backendRefs; leave one of them out");
    }
    let one_prefix = matches!(matches.as_slice(), [one] if one.is_prefix());
    let mut all = std::iter::once(&filters).chain(backends.iter().map(|backend| &backend.filters));
    if all.any(replaces_prefix) && !one_prefix {
        fields.error("ReplacePrefixMatch wants exactly one match, of type PathPrefix");
    }
    Some(RouteRule {
        name: fields.string("name").map(Into::into),
        matches,
        filters,
        backends,
        traffic: traffic(&fields),
    })
}

fn replaces_prefix(filters: &Filters) -> bool {
    let rewrite = filters.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
    let redirect = filters.redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
    [rewrite, redirect].into_iter().flatten().any(|path| matches!(path, PathRewrite::Prefix(_)))
}

fn backend(item: &Field<'_>) -> Option<BackendRef> {
    let fields = item.fields()?;
    let group = fields.string("group").unwrap_or_default();
    let kind_word = fields.string("kind").unwrap_or("Service");
    let kind = Kind::of(group, kind_word).filter(|kind| {
        matches!(kind, Kind::InferencePoolAlpha | Kind::InferencePool | Kind::Service | Kind::Backend)
    });
    let port = fields.get("port").and_then(|field| field.port());
    if kind == Some(Kind::Service) && port.is_none() {
        fields.error("port is missing: a Service needs one");
    }
    let weight = fields.get("weight").and_then(|field| field.integer(0..=1_000_000));
    Some(BackendRef {
        kind,
        kind_word: kind_word.into(),
        namespace: fields.string("namespace").map(Into::into),
        name: fields.required_string("name").into(),
        port,
        weight: weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(1),
        filters: filters::read(&fields),
        place: fields.place(),
    })
}

/// `timeouts` and `retry` of the rule itself.
fn traffic(rule: &Fields<'_>) -> TrafficPatch {
    let timeouts = rule.fields("timeouts");
    let timeout = |key| timeouts.as_ref().and_then(|timeouts: &Fields<'_>| timeouts.duration(key));
    let (request, attempt) = (timeout("request"), timeout("backendRequest"));
    if let (Some(request), Some(attempt), Some(timeouts)) = (request, attempt, &timeouts)
        && request > Duration::ZERO
        && attempt > request
    {
        timeouts.error("backendRequest must not be longer than request");
    }
    TrafficPatch {
        request_timeout: request,
        attempt_timeout: attempt,
        retry: rule.fields("retry").map(|fields| retry(&fields)),
        ..TrafficPatch::default()
    }
}

/// The Gateway API wants connection errors retried wherever a retry is configured.
fn retry(fields: &Fields<'_>) -> RetryPatch {
    let codes = fields.items("codes", 64);
    let codes = codes.iter().filter_map(|item| item.integer(400..=599)).filter_map(|n| u16::try_from(n).ok());
    RetryPatch {
        attempts: fields
            .get("attempts")
            .and_then(|f| f.integer(1..=1000))
            .and_then(|n| u32::try_from(n).ok()),
        on: Some(RetryOn { reset: true, statuses: codes.collect() }),
        backoff: fields.duration("backoff"),
        ..RetryPatch::default()
    }
}
