//! InferenceModel v1alpha2: a model name, its pool and what engines call it.

use super::kind::ALPHA_GROUP;
use super::{Kind, Spec};
use crate::config::fields::{Field, Fields};
use crate::config::report::Place;
use crate::snapshot::{Criticality, ModelTarget};

#[derive(Debug)]
pub(crate) struct InferenceModel {
    pub(crate) model: Box<str>,
    pub(crate) criticality: Criticality,
    pub(crate) targets: Vec<ModelTarget>,
    /// Which of the two InferencePool kinds.
    pub(crate) pool_kind: Kind,
    pub(crate) pool: Box<str>,
    pub(crate) pool_place: Place,
}

impl Spec for InferenceModel {
    fn read(top: &Fields<'_>, _: Kind) -> Option<Self> {
        let spec = top.require("spec")?.fields()?;
        let name = spec.require("modelName");
        let model = name.as_ref().and_then(Field::nonempty).unwrap_or_default();
        if let Some(field) = name.filter(|_| !is_usable(model) && !model.is_empty()) {
            field.error("must have at most 256 bytes, no control characters, no space at either end");
        }
        let words = [
            ("Critical", Criticality::Critical),
            ("Standard", Criticality::Standard),
            ("Sheddable", Criticality::Sheddable),
        ];
        let criticality = spec.get("criticality");
        let criticality = criticality.and_then(|field| {
            let chosen = field.choice(&words);
            if chosen == Some(Criticality::Sheddable) {
                field.info("has no effect yet: this version sheds no requests by their criticality");
            }
            chosen
        });
        let pool = spec.require("poolRef")?.fields()?;
        let group = pool.string("group").unwrap_or(ALPHA_GROUP);
        let kind = pool.string("kind").unwrap_or("InferencePool");
        let pool_kind = Kind::of(group, kind);
        let pools = [Some(Kind::InferencePoolAlpha), Some(Kind::InferencePool)];
        if !pools.contains(&pool_kind) {
            pool.error(format!("{kind} of group {group:?} is not an InferencePool"));
        }
        Some(Self {
            model: model.into(),
            criticality: criticality.unwrap_or_default(),
            targets: targets(&spec),
            pool_kind: pool_kind.unwrap_or(Kind::InferencePoolAlpha),
            pool: pool.required_string("name").into(),
            pool_place: pool.place(),
        })
    }
}

/// Whether the scanner would ever yield this name.
fn is_usable(model: &str) -> bool {
    model.len() <= 256 && model.trim() == model && !model.chars().any(char::is_control)
}

fn targets(spec: &Fields<'_>) -> Vec<ModelTarget> {
    let items = spec.items("targetModels", 10);
    let mut targets = Vec::new();
    let mut weighted = 0;
    for item in &items {
        let Some(fields) = item.fields() else { continue };
        let name = fields.required_string("name");
        if name.len() > 253 {
            fields.error("name: must have at most 253 bytes");
        }
        let weight = fields.get("weight").and_then(|field| field.integer(0..=1_000_000));
        weighted += usize::from(weight.is_some());
        let weight = weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(1);
        targets.push(ModelTarget { name: name.into(), weight });
    }
    if let Some(field) = spec.get("targetModels") {
        let zeros = targets.iter().filter(|target| target.weight == 0).count();
        if weighted != 0 && weighted != targets.len() {
            field.error("give a weight to every target or to none");
        } else if zeros != 0 && zeros == targets.len() {
            field.warning("every weight is 0: the name is reserved and requests for it get 404");
        } else if zeros != 0 {
            field.error(
                "a weight of 0 only goes with 0 everywhere, which reserves the name; leave the target out",
            );
        }
    }
    targets
}
