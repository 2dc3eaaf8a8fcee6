//! EndpointSlice: addresses and ports behind a Service.

use std::net::IpAddr;

use super::{Kind, Spec};
use crate::config::fields::{Field, Fields};

#[derive(Debug)]
pub(crate) struct EndpointSlice {
    /// The ready ones.
    pub(crate) addresses: Vec<IpAddr>,
    /// By the name of the Service's port; empty: every port.
    pub(crate) ports: Vec<(Box<str>, u16)>,
}

impl Spec for EndpointSlice {
    fn read(top: &Fields<'_>, _: Kind) -> Option<Self> {
        if let Some(kind) = top.require("addressType").filter(|field| field.string() == Some("FQDN")) {
            kind.unsupported("FQDN is not supported in an EndpointSlice; use a Backend with fqdn");
            return None;
        }
        let addresses = top.items("endpoints", 1000).iter().flat_map(ready_addresses).collect();
        Some(Self { addresses, ports: top.items("ports", 1000).iter().filter_map(port).collect() })
    }
}

fn ready_addresses(item: &Field<'_>) -> Vec<IpAddr> {
    let Some(fields) = item.fields() else { return Vec::new() };
    let conditions = fields.fields("conditions");
    let ready = conditions.and_then(|conditions| conditions.get("ready")?.boolean());
    if ready == Some(false) {
        return Vec::new();
    }
    fields.items("addresses", 100).iter().filter_map(Field::ip).collect()
}

fn port(item: &Field<'_>) -> Option<(Box<str>, u16)> {
    let fields = item.fields()?;
    let number = fields.get("port")?.port()?;
    Some((fields.string("name").unwrap_or_default().into(), number))
}
