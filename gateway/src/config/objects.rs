//! Every object of the manifests, typed and checked one by one; what refers to what comes later, in `resolve`.
//!
//! One file per kind. An object with an error is refused whole and remembered as refused; the rest goes on.

pub(crate) mod backend;
pub(crate) mod client_policy;
pub(crate) mod endpoint_slice;
pub(crate) mod gateway;
pub(crate) mod gateway_class;
pub(crate) mod http_route;
pub(crate) mod inference_model;
pub(crate) mod inference_pool;
pub(crate) mod kind;
pub(crate) mod meta;
pub(crate) mod pod;
pub(crate) mod service;
pub(crate) mod target;
pub(crate) mod traffic_policy;

use std::collections::HashMap;
use std::sync::Arc;

use super::fields::{Fields, Reading};
use super::report::{Condition, ObjectStatus, Place, Position, Report};
use super::tree::{Node, Scalar, Value};
use backend::Backend;
use client_policy::ClientTrafficPolicy;
use endpoint_slice::EndpointSlice;
use gateway::Gateway;
use gateway_class::GatewayClass;
use http_route::HttpRoute;
use inference_model::InferenceModel;
use inference_pool::InferencePool;
pub(crate) use kind::Kind;
pub(crate) use meta::Meta;
use pod::Pod;
use service::Service;
use traffic_policy::BackendTrafficPolicy;

use crate::snapshot::ObjectName;

/// An object of some kind: its metadata, and the part that is its own.
#[derive(Debug)]
pub(crate) struct Object<T> {
    pub(crate) meta: Meta,
    pub(crate) spec: T,
}

/// How a kind reads itself. `None` and complaints go together: the object is refused by its [`Reading`].
trait Spec: Sized {
    fn read(top: &Fields<'_>, kind: Kind) -> Option<Self>;
}

#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) classes: Vec<Object<GatewayClass>>,
    pub(crate) gateways: Vec<Object<Gateway>>,
    pub(crate) routes: Vec<Object<HttpRoute>>,
    pub(crate) pools: Vec<Object<InferencePool>>,
    pub(crate) models: Vec<Object<InferenceModel>>,
    pub(crate) client_policies: Vec<Object<ClientTrafficPolicy>>,
    pub(crate) traffic_policies: Vec<Object<BackendTrafficPolicy>>,
    pub(crate) backends: Vec<Object<Backend>>,
    pub(crate) pods: Vec<Object<Pod>>,
    pub(crate) services: Vec<Object<Service>>,
    pub(crate) slices: Vec<Object<EndpointSlice>>,
    known: Known,
}

/// Every name that was read, where, and whether its object was refused.
type Known = HashMap<(Kind, ObjectName), (Position, bool)>;

impl Objects {
    /// Whether such an object is in the manifests but was refused.
    pub(crate) fn is_refused(&self, kind: Kind, name: &ObjectName) -> bool {
        self.known.get(&(kind, name.clone())).is_some_and(|(_, refused)| *refused)
    }

    /// Whether the manifests hold any object of the kind, refused ones included.
    pub(crate) fn any(&self, kind: Kind) -> bool {
        self.known.keys().any(|(known, _)| *known == kind)
    }

    /// Takes one document of a file.
    pub(crate) fn take(&mut self, file: &Arc<str>, node: &Node, report: &mut Report) {
        self.take_at(&Document { file, node, path: String::new() }, None, report);
    }

    /// `inherited`: `apiVersion` and `kind` that a typed list gives to its items.
    fn take_at(&mut self, document: &Document<'_>, inherited: Option<(&str, &str)>, report: &mut Report) {
        let (api_version, kind) = match (document.text("apiVersion"), document.text("kind"), inherited) {
            (Some(api_version), Some(kind), _) => (api_version, kind),
            (None, None, Some(inherited)) => inherited,
            _ => return report.error(&document.place(), "not a manifest: apiVersion or kind is missing"),
        };
        if let Some(of) = kind.strip_suffix("List").filter(|_| document.node.get("items").is_some()) {
            return self.take_list(document, Some((api_version, of)).filter(|_| !of.is_empty()), report);
        }
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        match Kind::of(group, kind) {
            None => report.info(&document.place(), format!("{kind} ({api_version}) is not used, skipped")),
            Some(kind) if !kind.versions().contains(&api_version) => {
                let known = kind.versions().join(" or ");
                let message = format!("{api_version} of {} is not supported; use {known}", kind.word());
                report.error(&document.place(), message);
            }
            Some(kind) => self.take_object(document, kind, report),
        }
    }

    fn take_list(&mut self, list: &Document<'_>, inherited: Option<(&str, &str)>, report: &mut Report) {
        let Some(Value::Sequence(items)) = list.node.get("items").map(|items| &items.value) else {
            return report.error(&list.place(), "items must be a list");
        };
        for (i, node) in items.iter().enumerate() {
            let dot = if list.path.is_empty() { "" } else { "." };
            let path = format!("{}{dot}items[{i}]", list.path);
            self.take_at(&Document { file: list.file, node, path }, inherited, report);
        }
    }

    fn take_object(&mut self, document: &Document<'_>, kind: Kind, report: &mut Report) {
        let known = &mut self.known;
        match kind {
            Kind::GatewayClass => read(&mut self.classes, known, document, kind, report),
            Kind::Gateway => read(&mut self.gateways, known, document, kind, report),
            Kind::HttpRoute => read(&mut self.routes, known, document, kind, report),
            Kind::InferencePoolAlpha | Kind::InferencePool => {
                read(&mut self.pools, known, document, kind, report);
            }
            Kind::InferenceModel => read(&mut self.models, known, document, kind, report),
            Kind::ClientTrafficPolicy => read(&mut self.client_policies, known, document, kind, report),
            Kind::BackendTrafficPolicy => read(&mut self.traffic_policies, known, document, kind, report),
            Kind::Backend => read(&mut self.backends, known, document, kind, report),
            Kind::Pod => read(&mut self.pods, known, document, kind, report),
            Kind::Service => read(&mut self.services, known, document, kind, report),
            Kind::EndpointSlice => read(&mut self.slices, known, document, kind, report),
        }
    }
}

fn read<T: Spec>(
    into: &mut Vec<Object<T>>,
    known: &mut Known,
    document: &Document<'_>,
    kind: Kind,
    report: &mut Report,
) {
    let reading = Reading::new(document.file, kind.is_strict());
    let Some(top) = Fields::top(&reading, document.node, &document.path) else { return };
    top.skip(&["apiVersion", "kind", "status"]);
    let meta = Meta::read(&top, kind);
    if let Some((first, _)) = known.get(&(kind, meta.name.clone())) {
        let message = format!("{} {} is defined twice, first at {first}", kind.word(), meta.shown());
        return report.error(&meta.place, message);
    }
    let spec = T::read(&top, kind);
    drop(top);
    let (diagnostics, refusal) = reading.finish();
    diagnostics.into_iter().for_each(|diagnostic| report.push(diagnostic));
    let position = meta.place.position.clone();
    known.insert((kind, meta.name.clone()), (position.clone(), refusal.is_some()));
    match (refusal, spec) {
        (None, Some(spec)) => into.push(Object { meta, spec }),
        (None, None) => {}
        (Some(refusal), _) => {
            let accepted = Condition::new("", "Accepted", false, refusal.reason, refusal.message);
            report.objects.push(ObjectStatus {
                kind: kind.word(),
                name: meta.shown(),
                position,
                conditions: vec![accepted],
            });
        }
    }
}

/// One manifest, be it a whole document or an item of a list.
struct Document<'a> {
    file: &'a Arc<str>,
    node: &'a Node,
    /// Where in the document it stands (`items[3]`); empty: it is the document.
    path: String,
}

impl Document<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        match &self.node.get(key)?.value {
            Value::Scalar(scalar) => Scalar::string(scalar),
            _ => None,
        }
    }

    fn place(&self) -> Place {
        let at = self.node.at;
        let position = Position { file: self.file.clone(), line: at.line, column: at.column };
        Place { position, path: self.path.as_str().into() }
    }
}
