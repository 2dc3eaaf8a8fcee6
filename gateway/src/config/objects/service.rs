//! Service: a selector of Pods and the ports that stand for theirs.

use super::meta::Selector;
use super::{Kind, Spec};
use crate::config::fields::{Field, Fields};

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) selector: Selector,
    pub(crate) ports: Vec<ServicePort>,
    /// A DNS alias: never resolved, since it could name anything.
    pub(crate) external_name: bool,
}

#[derive(Debug)]
pub(crate) struct ServicePort {
    /// Empty where a single port has none.
    pub(crate) name: Box<str>,
    pub(crate) port: u16,
    pub(crate) target: TargetPort,
}

#[derive(Debug)]
pub(crate) enum TargetPort {
    Number(u16),
    /// A named port of a container.
    Name(Box<str>),
}

impl Spec for Service {
    fn read(top: &Fields<'_>, _: Kind) -> Option<Self> {
        let spec = top.require("spec")?.fields()?;
        Some(Self {
            selector: spec.get("selector").map(|field| field.pairs()).unwrap_or_default(),
            ports: spec.items("ports", 1024).iter().filter_map(port).collect(),
            external_name: spec.string("type") == Some("ExternalName"),
        })
    }
}

fn port(item: &Field<'_>) -> Option<ServicePort> {
    let fields = item.fields()?;
    let port = fields.require("port")?.port()?;
    let target = match fields.get("targetPort") {
        None => TargetPort::Number(port),
        Some(field) => match field.integer_or_string()? {
            Ok(_) => TargetPort::Number(field.port()?),
            Err(name) => TargetPort::Name(name.into()),
        },
    };
    Some(ServicePort { name: fields.string("name").unwrap_or_default().into(), port, target })
}
