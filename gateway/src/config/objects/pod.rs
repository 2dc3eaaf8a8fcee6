//! Pod, as kubectl prints it: address, readiness, named ports.

use std::net::IpAddr;

use super::{Kind, Spec};
use crate::config::fields::Fields;

#[derive(Debug)]
pub(crate) struct Pod {
    /// `None`: not scheduled yet, or refused to be anything but pending.
    pub(crate) ip: Option<IpAddr>,
    pub(crate) ready: bool,
    /// Named container ports, which a Service may refer to.
    pub(crate) ports: Vec<(Box<str>, u16)>,
}

impl Spec for Pod {
    fn read(top: &Fields<'_>, _: Kind) -> Option<Self> {
        let leaving = top.fields("metadata").is_some_and(|meta| meta.get("deletionTimestamp").is_some());
        let status = top.fields("status");
        let ip = status.as_ref().and_then(|status| status.get("podIP")).filter(|ip| ip.string() != Some(""));
        Some(Self {
            ip: ip.and_then(|field| field.ip()),
            ready: !leaving && status.is_some_and(|status| is_ready(&status)),
            ports: named_ports(top),
        })
    }
}

/// The `Ready` condition. A Pod written by hand that has an address and no conditions at all counts as ready.
fn is_ready(status: &Fields<'_>) -> bool {
    let conditions = status.items("conditions", 256);
    let ready = conditions.iter().filter_map(|item| item.fields()).find_map(|fields| {
        let ready = fields.string("type") == Some("Ready");
        ready.then(|| fields.string("status") == Some("True"))
    });
    ready.unwrap_or(conditions.is_empty())
}

fn named_ports(top: &Fields<'_>) -> Vec<(Box<str>, u16)> {
    let Some(spec) = top.fields("spec") else { return Vec::new() };
    let mut ports = Vec::new();
    for container in spec.items("containers", 256).iter().filter_map(|item| item.fields()) {
        for port in container.items("ports", 1024).iter().filter_map(|item| item.fields()) {
            let number = port.get("containerPort").and_then(|field| field.port());
            if let (Some(name), Some(number)) = (port.string("name"), number) {
                ports.push((name.into(), number));
            }
        }
    }
    ports
}
