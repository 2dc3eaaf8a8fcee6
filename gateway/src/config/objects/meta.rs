//! `metadata`: name, labels, age.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Kind;
use crate::config::fields::Fields;
use crate::config::report::Place;
use crate::config::units;
use crate::snapshot::ObjectName;

pub(crate) type Labels = BTreeMap<Box<str>, Box<str>>;

/// Pairs that labels must all hold; without any it selects nothing.
pub(crate) type Selector = Vec<(Box<str>, Box<str>)>;

#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) name: ObjectName,
    pub(crate) labels: Labels,
    /// `creationTimestamp`; sorts by age as text.
    created: Option<Box<str>>,
    pub(crate) place: Place,
}

impl Meta {
    pub(crate) fn read(top: &Fields<'_>, kind: Kind) -> Self {
        let place = top.place();
        let Some(fields) = top.require("metadata").and_then(|field| field.fields()) else {
            let name = ObjectName { namespace: "default".into(), name: "".into() };
            return Self { name, labels: Labels::new(), created: None, place };
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
        fields.skip(&[
            "annotations",
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
        Self { name, labels: labels.into_iter().collect(), created, place }
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
