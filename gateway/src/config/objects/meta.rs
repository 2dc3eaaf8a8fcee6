//! `metadata`: name, labels, age.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Kind;
use crate::config::fields::Fields;
use crate::config::report::Place;
use crate::config::units;
use crate::snapshot::ObjectName;

/// `auto` or `off`: the one setting of Penstock's own.
const SPLICE: &str = "penstock.dev/splice";

pub(crate) type Labels = BTreeMap<Box<str>, Box<str>>;

/// Pairs that labels must all hold; without any it selects nothing.
pub(crate) type Selector = Vec<(Box<str>, Box<str>)>;

#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) name: ObjectName,
    pub(crate) labels: Labels,
    /// `creationTimestamp`; sorts by age as text.
    created: Option<Box<str>>,
    /// Whether answers may be spliced, where an HTTPRoute says it.
    pub(crate) splice: Option<bool>,
    pub(crate) place: Place,
}

impl Meta {
    pub(crate) fn read(top: &Fields<'_>, kind: Kind) -> Self {
        let place = top.place();
        let Some(fields) = top.require("metadata").and_then(|field| field.fields()) else {
            let name = ObjectName { namespace: "default".into(), name: "".into() };
            return Self { name, labels: Labels::new(), created: None, splice: None, place };
        };
        let name = fields.required_string("name");
        if !name.is_empty() && !units::is_subdomain(name) {
            fields.error(format!("name: {name:?} is not a name; use a-z, 0-9, - and ."));
        }
        let namespace = fields.get("namespace").and_then(|field| field.nonempty()).unwrap_or("default");
        if !units::is_subdomain(namespace) {
            fields.error(format!("namespace: {namespace:?} is not a name; use a-z, 0-9 and -"));
        }
        let namespace = if kind.has_namespace() { namespace } else { "" };
        let created = fields.get("creationTimestamp").and_then(|field| {
            let text = field.string()?;
            let shaped = units::is_timestamp(text);
            if !shaped {
                field.warning("not a time like 2025-01-31T08:00:00Z; the object counts as the youngest");
            }
            shaped.then(|| text.into())
        });
        let labels = fields.get("labels").map(|field| field.pairs()).unwrap_or_default();
        let splice = fields.fields("annotations").and_then(|annotations| splice(&annotations, kind));
        fields.skip(&[
            "deletionGracePeriodSeconds",
            "deletionTimestamp",
            "finalizers",
            "generateName",
            "generation",
            "managedFields",
            "ownerReferences",
            "resourceVersion",
            "selfLink",
            "uid",
        ]);
        let name = ObjectName { namespace: Arc::from(namespace), name: Arc::from(name) };
        Self { name, labels: labels.into_iter().collect(), created, splice, place }
    }

    /// The name as people write it.
    pub(crate) fn shown(&self) -> String {
        match &*self.name.namespace {
            "" => self.name.name.to_string(),
            _ => self.name.to_string(),
        }
    }

    /// Sorts the oldest first; without a time, last and by name.
    pub(crate) fn age(&self) -> (bool, &Option<Box<str>>, &ObjectName) {
        (self.created.is_none(), &self.created, &self.name)
    }
}

fn splice(annotations: &Fields<'_>, kind: Kind) -> Option<bool> {
    annotations.skip_rest();
    let field = annotations.get(SPLICE)?;
    if kind != Kind::HttpRoute {
        field.warning("only an HTTPRoute says this; here it has no effect");
    }
    field.choice(&[("auto", true), ("off", false)])
}
