//! Gateway: listeners.

use std::collections::HashSet;
use std::net::IpAddr;

use super::kind::GATEWAY_GROUP;
use super::{Kind, Spec};
use crate::config::fields::{Field, Fields};
use crate::config::report::Place;
use crate::config::units;
use crate::snapshot::Hostname;

#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) class: Box<str>,
    /// Empty: every address of the host.
    pub(crate) addresses: Vec<Address>,
    pub(crate) listeners: Vec<Listener>,
}

#[derive(Debug)]
pub(crate) enum Address {
    Ip(IpAddr),
    /// Resolved again and again by the control side.
    Name(Box<str>),
}

#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: Box<str>,
    pub(crate) hostname: Hostname,
    pub(crate) port: u16,
    /// `HTTP`, `HTTPS`, `TLS`, `TCP`, `UDP` or a name with a domain.
    pub(crate) protocol: Box<str>,
    pub(crate) from: From,
    /// Whether HTTPRoutes may attach.
    pub(crate) takes_http_routes: bool,
    /// Kinds of `allowedRoutes` that are not served.
    pub(crate) other_kinds: Vec<Box<str>>,
    pub(crate) place: Place,
}

/// The namespaces whose routes may attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Same,
    All,
    /// By labels of Namespace objects, which are not read.
    Selector,
}

impl Gateway {
    /// The names to resolve.
    pub(crate) fn hostnames(&self) -> impl Iterator<Item = &str> {
        self.addresses.iter().filter_map(|address| match address {
            Address::Name(name) => Some(&**name),
            Address::Ip(_) => None,
        })
    }
}

impl Spec for Gateway {
    fn read(top: &Fields<'_>, _: Kind) -> Option<Self> {
        let spec = top.require("spec")?.fields()?;
        let class = spec.required_string("gatewayClassName").into();
        let addresses = spec.items("addresses", 16).iter().filter_map(address).collect();
        spec.no_effect(&["infrastructure"], "there is nothing to deploy");
        spec.no_effect(&["allowedListeners"], "ListenerSets are not read");
        spec.unsupported(&["tls", "backendTLS", "defaultScope"]);
        let items = spec.require("listeners").map(|field| field.items(64)).unwrap_or_default();
        if items.is_empty() {
            spec.error("listeners must not be empty");
        }
        let mut names = HashSet::new();
        let mut listeners = Vec::new();
        for item in &items {
            let Some(listener) = listener(item) else { continue };
            if !names.insert(listener.name.clone()) {
                item.error(format!("the listener name {:?} is used twice", listener.name));
            }
            listeners.push(listener);
        }
        Some(Self { class, addresses, listeners })
    }
}

fn address(item: &Field<'_>) -> Option<Address> {
    let fields = item.fields()?;
    let kind = fields.string("type").unwrap_or("IPAddress");
    let value = fields.get("value")?;
    match kind {
        "IPAddress" => value.ip().map(Address::Ip),
        "Hostname" => match value.ok(units::hostname(value.string()?))? {
            Hostname::Exact(name) => Some(Address::Name(name)),
            _ => {
                value.error("a name with a wildcard stands for no address");
                None
            }
        },
        _ => {
            value.unsupported(format!(
                "an address of type {kind} is not supported; use IPAddress or Hostname"
            ));
            None
        }
    }
}

fn listener(item: &Field<'_>) -> Option<Listener> {
    let fields = item.fields()?;
    let name = fields.required_string("name");
    if !name.is_empty() && !units::is_subdomain(name) {
        fields.error(format!("name: {name:?} is not a name; use a-z, 0-9, - and ."));
    }
    let hostname = fields.get("hostname").filter(|field| field.string() != Some(""));
    let hostname = hostname.map_or(Some(Hostname::Any), |field| field.ok(units::hostname(field.string()?)));
    let port = fields.require("port").and_then(|field| field.port());
    let protocol = fields.required_string("protocol");
    if let Some(tls) = fields.get("tls").filter(|_| matches!(protocol, "HTTP" | "TCP" | "UDP")) {
        tls.error(format!("tls does not go with protocol {protocol}; leave it out or use HTTPS"));
    }
    let allowed = fields.fields("allowedRoutes");
    let namespaces = allowed.as_ref().and_then(|allowed| allowed.fields("namespaces"));
    let from = namespaces.as_ref().and_then(|namespaces| {
        namespaces.skip(&["selector"]);
        let words = [("Same", From::Same), ("All", From::All), ("Selector", From::Selector)];
        namespaces.get("from")?.choice(&words)
    });
    let kinds = allowed.as_ref().map(|allowed| allowed.items("kinds", 8)).unwrap_or_default();
    let (http, other): (Vec<_>, Vec<_>) = kinds.iter().filter_map(route_kind).partition(|(http, _)| *http);
    Some(Listener {
        name: name.into(),
        hostname: hostname.unwrap_or(Hostname::Any),
        port: port.unwrap_or_default(),
        protocol: protocol.into(),
        from: from.unwrap_or(From::Same),
        takes_http_routes: kinds.is_empty() || !http.is_empty(),
        other_kinds: other.into_iter().map(|(_, kind)| kind).collect(),
        place: fields.place(),
    })
}

/// Whether the kind is HTTPRoute, and its name.
fn route_kind(item: &Field<'_>) -> Option<(bool, Box<str>)> {
    let fields = item.fields()?;
    let group = fields.string("group").unwrap_or(GATEWAY_GROUP);
    let kind = fields.required_string("kind");
    Some(((group, kind) == (GATEWAY_GROUP, "HTTPRoute"), kind.into()))
}
