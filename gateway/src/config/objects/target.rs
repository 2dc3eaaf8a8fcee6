//! What a policy is attached to: `targetRef`, `targetRefs`, `targetSelectors`.

use super::kind::GATEWAY_GROUP;
use super::meta::Selector;
use crate::config::fields::{Field, Fields};
use crate::config::report::Place;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TargetKind {
    Gateway,
    HttpRoute,
}

/// One object, or a listener (rule) of it, in the policy's own namespace.
#[derive(Debug)]
pub(crate) struct TargetRef {
    pub(crate) kind: TargetKind,
    pub(crate) name: Box<str>,
    /// `sectionName`: a listener of a Gateway, a named rule of an HTTPRoute.
    pub(crate) section: Option<Box<str>>,
    pub(crate) place: Place,
}

/// Every object with these labels.
#[derive(Debug)]
pub(crate) struct TargetSelector {
    pub(crate) kind: TargetKind,
    pub(crate) labels: Selector,
}

#[derive(Debug, Default)]
pub(crate) struct Targets {
    pub(crate) refs: Vec<TargetRef>,
    pub(crate) selectors: Vec<TargetSelector>,
}

impl Targets {
    /// Reads all three fields; kinds other than the given ones make the policy unsupported.
    pub(crate) fn read(spec: &Fields<'_>, kinds: &[TargetKind]) -> Self {
        let one = spec.get("targetRef");
        let many = spec.items("targetRefs", 16);
        let refs = one.iter().chain(&many).filter_map(|item| target_ref(item, kinds)).collect();
        let selectors = spec.items("targetSelectors", 16);
        if one.is_none() && many.is_empty() && selectors.is_empty() {
            spec.error("targetRefs is missing: name the Gateway that the policy is for");
        }
        if one.is_some() && !many.is_empty() {
            spec.error("give targetRef or targetRefs, not both");
        }
        let selectors = selectors.iter().filter_map(|item| target_selector(item, kinds)).collect();
        Self { refs, selectors }
    }
}

fn target_ref(item: &Field<'_>, kinds: &[TargetKind]) -> Option<TargetRef> {
    let fields = item.fields()?;
    let group = fields.require("group").and_then(|field| field.string()).unwrap_or_default();
    let kind = target_kind(item, group, fields.required_string("kind"), kinds);
    let name = fields.required_string("name").into();
    let section = fields.string("sectionName").map(Into::into);
    Some(TargetRef { kind: kind?, name, section, place: fields.place() })
}

fn target_selector(item: &Field<'_>, kinds: &[TargetKind]) -> Option<TargetSelector> {
    let fields = item.fields()?;
    let group = fields.string("group").unwrap_or(GATEWAY_GROUP);
    let kind = target_kind(item, group, fields.required_string("kind"), kinds);
    fields.unsupported(&["matchExpressions", "namespaces"]);
    let labels = fields.get("matchLabels").map(|field| field.pairs()).unwrap_or_default();
    Some(TargetSelector { kind: kind?, labels })
}

fn target_kind(item: &Field<'_>, group: &str, kind: &str, kinds: &[TargetKind]) -> Option<TargetKind> {
    let known = match (group, kind) {
        (GATEWAY_GROUP, "Gateway") => Some(TargetKind::Gateway),
        (GATEWAY_GROUP, "HTTPRoute") => Some(TargetKind::HttpRoute),
        _ => None,
    };
    let known = known.filter(|kind| kinds.contains(kind));
    if known.is_none() && !kind.is_empty() {
        item.unsupported(format!("a target of kind {kind} (group {group:?}) is not supported"));
    }
    known
}
