//! Gathers conditions per object while the steps of the resolution run.

use std::collections::HashMap;

use crate::config::objects::{Kind, Meta};
use crate::config::report::{Condition, ObjectStatus, Place, Report};
use crate::snapshot::ObjectName;

pub(crate) struct Board {
    pub(crate) report: Report,
    /// Positions in `report.objects`.
    index: HashMap<(Kind, ObjectName), usize>,
}

impl Board {
    /// Goes on from what reading the objects found.
    pub(crate) fn new(report: Report) -> Self {
        Self { report, index: HashMap::new() }
    }

    pub(crate) fn set(&mut self, kind: Kind, meta: &Meta, condition: Condition) {
        let objects = &mut self.report.objects;
        let index = *self.index.entry((kind, meta.name.clone())).or_insert_with(|| {
            objects.push(ObjectStatus {
                kind: kind.word(),
                name: meta.shown(),
                position: meta.place.position.clone(),
                conditions: Vec::new(),
            });
            objects.len() - 1
        });
        if let Some(object) = objects.get_mut(index) {
            // What is about one part stays together.
            let last = object.conditions.iter().rposition(|known| known.about == condition.about);
            let place = last.map_or(object.conditions.len(), |last| last + 1);
            object.conditions.insert(place, condition);
        }
    }

    /// Whether this part of the object has been accepted.
    pub(crate) fn is_accepted(&self, kind: Kind, meta: &Meta, about: &str) -> bool {
        let index = self.index.get(&(kind, meta.name.clone()));
        let object = index.and_then(|index| self.report.objects.get(*index));
        let accepted = |known: &Condition| known.about == about && known.kind == "Accepted" && known.status;
        object.is_some_and(|object| object.conditions.iter().any(accepted))
    }

    /// All is well with this part of the object.
    pub(crate) fn holds(
        &mut self,
        kind: Kind,
        meta: &Meta,
        about: &str,
        what: &'static str,
        note: impl Into<String>,
    ) {
        self.set(kind, meta, Condition::new(about, what, true, what, note));
    }

    /// Something is not: the condition, and an error where it stands.
    pub(crate) fn refuse(&mut self, kind: Kind, meta: &Meta, place: &Place, condition: Condition) {
        self.report.error(place, format!("{}: {}", condition.reason, condition.message));
        self.set(kind, meta, condition);
    }
}
