//! InferencePool, v1alpha2 and v1: which Pods, on which ports.

use super::meta::Selector;
use super::{Kind, Spec};
use crate::config::fields::Fields;

#[derive(Debug)]
pub(crate) struct InferencePool {
    /// Which of the two groups it is of.
    pub(crate) kind: Kind,
    pub(crate) selector: Selector,
    pub(crate) ports: Vec<u16>,
    /// The Service of the external picker: answered by the built-in one, and never a source of endpoints.
    pub(crate) picker: Option<Box<str>>,
}

impl Spec for InferencePool {
    fn read(top: &Fields<'_>, kind: Kind) -> Option<Self> {
        let spec = top.require("spec")?.fields()?;
        let selector = spec.require("selector");
        let (selector, ports, picker) = if kind == Kind::InferencePoolAlpha {
            let selector = selector.map(|field| field.pairs()).unwrap_or_default();
            let port = spec.require("targetPortNumber").and_then(|field| field.port());
            (selector, port.into_iter().collect(), picker(&spec, "extensionRef"))
        } else {
            let selector = selector.and_then(|field| field.fields());
            let selector = selector.map(|fields| match_labels(&fields)).unwrap_or_default();
            (selector, target_ports(&spec), picker(&spec, "endpointPickerRef"))
        };
        if selector.is_empty() {
            spec.error("selector must name at least one label");
        }
        if let Some(protocol) = spec.get("appProtocol").filter(|field| field.string() != Some("http")) {
            protocol.unsupported("only http is supported toward engines so far");
        }
        Some(Self { kind, selector, ports, picker })
    }
}

fn match_labels(selector: &Fields<'_>) -> Selector {
    selector.unsupported(&["matchExpressions"]);
    selector.require("matchLabels").map(|field| field.pairs()).unwrap_or_default()
}

fn target_ports(spec: &Fields<'_>) -> Vec<u16> {
    let items = spec.require("targetPorts").map(|field| field.items(8)).unwrap_or_default();
    if items.is_empty() {
        spec.error("targetPorts must name at least one port");
    }
    let mut ports = Vec::new();
    for item in &items {
        let number = item.fields().and_then(|fields| fields.require("number")?.port());
        match number {
            Some(number) if ports.contains(&number) => item.error(format!("port {number} is here twice")),
            Some(number) => ports.push(number),
            None => {}
        }
    }
    ports
}

fn picker(spec: &Fields<'_>, key: &str) -> Option<Box<str>> {
    let field = spec.get(key)?;
    field.info("answered by the built-in picker");
    let fields = field.fields()?;
    fields.skip(&["group", "port", "portNumber", "failureMode"]);
    let kind = fields.string("kind").unwrap_or("Service");
    let name = fields.required_string("name");
    (kind == "Service").then(|| name.into())
}
