//! What the data path reads: one immutable value, built by the control side and published whole.
//!
//! A request loads the snapshot once and lives under it to its end, so a reload never changes a request in
//! flight. Nothing here knows YAML, Kubernetes or files: names are kept only to be shown.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use regex::Regex;

use crate::endpoint::Endpoint;
use crate::ledger::Meter;

/// Everything that a worker needs to serve requests.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts published snapshots, from 1; 0 is the empty one before the first.
    pub generation: u64,
    /// Every programmed listener; several may share a port and differ by hostname.
    pub listeners: Vec<Arc<Listener>>,
    /// Every pool that a rule can reach, by name.
    pub pools: Vec<Arc<Pool>>,
}

impl Snapshot {
    /// Those of all pools; one of several pools comes with each.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.pools.iter().flat_map(|pool| &pool.endpoints)
    }
}

/// `namespace/name` of the object that something came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One listener of a Gateway.
#[derive(Debug)]
pub struct Listener {
    pub gateway: ObjectName,
    /// `sectionName`.
    pub name: Arc<str>,
    /// Addresses to bind; the unspecified addresses where the Gateway names none.
    pub addresses: Vec<std::net::SocketAddr>,
    pub hostname: Hostname,
    pub client: ClientPolicy,
    /// First match wins: sorted by the precedence of the Gateway API, most specific first.
    pub matches: Vec<Match>,
    /// Counts the requests that reached no pool.
    pub meter: Arc<Meter>,
}

/// What a hostname field admits; compared in lower case and without a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Hostname {
    Any,
    Exact(Box<str>),
    /// `*.example.com`, kept as `.example.com`: one or more labels before it, never the apex.
    Suffix(Box<str>),
}

/// Limits toward clients, from the ClientTrafficPolicy or its defaults.
#[derive(Clone, Debug)]
pub struct ClientPolicy {
    /// Bytes of a body held before its route is known.
    pub buffer_limit: u64,
    /// A whole request head must arrive within this time of its first byte.
    pub head_timeout: Duration,
    /// A whole request must arrive within this time; `None`: only progress is asked for.
    pub receive_timeout: Option<Duration>,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// How long a response may stay silent toward the client.
    pub stream_idle_timeout: Duration,
    /// Connections held at once by the listener; `None`: only the process bound applies.
    pub max_connections: Option<u32>,
}

impl Default for ClientPolicy {
    fn default() -> Self {
        Self {
            buffer_limit: 20 << 20,
            head_timeout: Duration::from_secs(10),
            receive_timeout: None,
            idle_timeout: Duration::from_secs(3600),
            stream_idle_timeout: Duration::from_secs(3600),
            max_connections: None,
        }
    }
}

/// One `matches[]` entry of one rule under one hostname.
#[derive(Debug)]
pub struct Match {
    pub hostname: Hostname,
    pub path: PathMatch,
    pub method: Option<Method>,
    /// All must hold; only the first field line of a name counts.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// All must hold; only the first value of a name counts.
    pub query: Vec<(Box<str>, ValueMatch)>,
    pub rule: Arc<Rule>,
}

#[derive(Clone, Debug)]
pub enum PathMatch {
    Exact(Box<str>),
    /// Element-wise; kept without its trailing `/` (the root is the empty string).
    Prefix(Box<str>),
    /// Matches the whole path.
    Regex(Regex),
}

#[derive(Clone, Debug)]
pub enum ValueMatch {
    Exact(Box<str>),
    /// Matches the whole value.
    Regex(Regex),
}

/// One rule of an HTTPRoute as it applies on one listener.
#[derive(Debug)]
pub struct Rule {
    pub route: ObjectName,
    /// Position in `spec.rules`, from 0.
    pub index: usize,
    pub filters: Filters,
    /// Weighted; a rule without destinations answers by its redirect or with 500.
    pub destinations: Vec<Destination>,
    pub traffic: Traffic,
}

#[derive(Debug)]
pub struct Destination {
    pub weight: u32,
    pub filters: Filters,
    pub target: Target,
}

#[derive(Debug)]
pub enum Target {
    Pool(Arc<Pool>),
    /// This share is answered with 500 `route_invalid`; the text says why.
    Invalid(Arc<str>),
}

/// The filters of a rule or destination, sorted by kind.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    pub request_headers: Vec<HeaderEdit>,
    pub response_headers: Vec<HeaderEdit>,
    pub rewrite: Option<UrlRewrite>,
    pub redirect: Option<Redirect>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    Set(HeaderName, HeaderValue),
    Add(HeaderName, HeaderValue),
    Remove(HeaderName),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlRewrite {
    pub hostname: Option<Box<str>>,
    pub path: Option<PathRewrite>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    Full(Box<str>),
    /// Replaces the matched prefix; only with [`PathMatch::Prefix`].
    Prefix(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub scheme: Option<Box<str>>,
    pub hostname: Option<Box<str>>,
    pub path: Option<PathRewrite>,
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// How requests of a rule are treated toward engines: its BackendTrafficPolicy and its own timeouts.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Hard cap of a request body in bytes.
    pub body_limit: u64,
    pub connect_timeout: Duration,
    /// The whole exchange; `None`: no bound.
    pub request_timeout: Option<Duration>,
    /// One try, from connecting to the last byte; `None`: no bound of its own.
    pub attempt_timeout: Option<Duration>,
    /// Silence of an engine, before its answer or inside it.
    pub stream_idle_timeout: Duration,
    pub retry: Retry,
    /// Requests in flight at once over the rule's pool on this gateway; `None`: unbounded by policy.
    pub max_parallel_requests: Option<u32>,
    /// Whether answers may be spliced, where the kernel half can.
    pub splice: bool,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            body_limit: 64 << 20,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Some(Duration::from_secs(3600)),
            attempt_timeout: None,
            stream_idle_timeout: Duration::from_secs(3600),
            retry: Retry::default(),
            max_parallel_requests: None,
            splice: true,
        }
    }
}

/// When a failed try may go to another endpoint. A try that no engine has seen (refused connection, kept
/// connection found closed) is always safe; the flags add more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first.
    pub attempts: u32,
    /// Also when an engine resets the connection before any byte of its answer.
    pub on_reset: bool,
    /// Also on these statuses.
    pub on_status: Vec<u16>,
    /// Wait before a retry; doubles each time, up to ten times the base.
    pub backoff: Duration,
}

impl Retry {
    /// Whether the policy asks for another try where an engine has had the request.
    #[must_use]
    pub fn repeats_what_was_sent(&self) -> bool {
        self.on_reset || !self.on_status.is_empty()
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 2, on_reset: false, on_status: Vec::new(), backoff: Duration::from_millis(25) }
    }
}

/// The endpoints that serve one set of models.
#[derive(Debug)]
pub struct Pool {
    pub name: ObjectName,
    /// `InferencePool`, `Service` or `Backend`: what the name names.
    pub kind: &'static str,
    /// The ready ones.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// By the client's model name: InferenceModels, and names that a rule of an HTTPRoute spells out.
    pub models: BTreeMap<Box<str>, Arc<Model>>,
    /// Counts requests for models that no manifest names.
    pub meter: Arc<Meter>,
}

/// A model name as a pool serves it.
#[derive(Debug)]
pub struct Model {
    pub name: Box<str>,
    pub criticality: Criticality,
    /// What the engine is asked for instead, by weight; empty: the client's own name, no rewrite.
    pub targets: Vec<ModelTarget>,
    pub meter: Arc<Meter>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelTarget {
    pub name: Box<str>,
    /// 0 only where every target has 0: the name is reserved, no valid target (404).
    pub weight: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Criticality {
    Critical,
    #[default]
    Standard,
    Sheddable,
}
