//! Which InferenceModels hold: the oldest of those that claim one name in one pool.

use std::collections::HashMap;

use super::board::Board;
use super::references::{PoolKey, References};
use crate::config::objects::inference_model::InferenceModel;
use crate::config::objects::{Kind, Object, Objects};
use crate::config::report::Condition;
use crate::snapshot::ObjectName;

/// The models that hold, oldest first, each with its pool.
pub(crate) fn accepted<'a>(
    objects: &'a Objects,
    references: &References<'_>,
    board: &mut Board,
) -> Vec<(&'a Object<InferenceModel>, PoolKey)> {
    let mut models: Vec<_> = objects.models.iter().collect();
    models.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
    let mut taken: HashMap<(PoolKey, &str), &ObjectName> = HashMap::new();
    let mut accepted = Vec::new();
    for model in models {
        let namespace = model.meta.name.namespace.clone();
        let name = ObjectName { namespace, name: (&*model.spec.pool).into() };
        let key = PoolKey { name, kind: model.spec.pool_kind, port: 0 };
        if let Err(broken) = references.named(&key) {
            let condition = Condition::new("", "Accepted", false, "Pending", broken.message);
            board.refuse(Kind::InferenceModel, &model.meta, &model.spec.pool_place, condition);
            continue;
        }
        if let Some(first) = taken.get(&(key.clone(), &*model.spec.model)) {
            let message = format!(
                "{first} serves {:?} in {}: the oldest does, then the first name",
                model.spec.model, key.name
            );
            let condition = Condition::new("", "Accepted", false, "ModelNameInUse", message);
            board.refuse(Kind::InferenceModel, &model.meta, &model.meta.place, condition);
            continue;
        }
        taken.insert((key.clone(), &model.spec.model), &model.meta.name);
        board.holds(Kind::InferenceModel, &model.meta, "", "Accepted", "");
        accepted.push((model, key));
    }
    accepted
}
