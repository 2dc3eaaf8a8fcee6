//! The pools that rules reach: endpoints, and the models that manifests name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::MeterFn;
use super::plan::Planned;
use crate::config::objects::inference_model::InferenceModel;
use crate::config::objects::{Kind, Object, Objects};
use crate::config::report::{Condition, Place};
use crate::config::resolve::board::Board;
use crate::config::resolve::references::{Named, PoolKey, References};
use crate::discovery::{Names, Registry};
use crate::endpoint::Address;
use crate::inspect::MODEL_HEADER;
use crate::snapshot::{Criticality, Model, Pool, ValueMatch};

pub(super) struct Pools<'a> {
    pub(super) objects: &'a Objects,
    pub(super) references: &'a References<'a>,
    pub(super) models: &'a [(&'a Object<InferenceModel>, PoolKey)],
    pub(super) names: &'a Names,
}

impl Pools<'_> {
    pub(super) fn build(
        &self,
        planned: &[Planned],
        registry: &mut Registry,
        meter: MeterFn<'_>,
        board: &mut Board,
    ) -> HashMap<PoolKey, Arc<Pool>> {
        let finder = crate::discovery::Finder::new(self.objects, self.names);
        let mut models = self.declared();
        let mut pools = HashMap::new();
        for (key, spelled) in reached(planned) {
            let Ok(named) = self.references.named(&key) else { continue };
            let (addresses, place) = match named {
                Named::Pool(pool) => (finder.of_pool(&key.name, &pool.spec), &pool.meta.place),
                Named::Service(service, port) => (finder.of_service(service, port), &service.meta.place),
                Named::Backend(backend) => (finder.of_backend(&backend.spec), &backend.meta.place),
            };
            warn_if_empty(&addresses, &key, place, board);
            let label = key.name.to_string();
            let models = with_spelled(models.remove(&key).unwrap_or_default(), spelled);
            let model = |(name, model): (Box<str>, Option<&InferenceModel>)| {
                let made = Model {
                    name: name.clone(),
                    criticality: model.map_or(Criticality::Standard, |model| model.criticality),
                    targets: model.map_or(Vec::new(), |model| model.targets.clone()),
                    meter: meter(&label, &name),
                };
                (name, Arc::new(made))
            };
            let models = models.into_iter().map(model).collect();
            let pool = Pool {
                name: key.name.clone(),
                kind: key.kind.word(),
                endpoints: addresses.iter().map(|address| registry.endpoint(address)).collect(),
                models,
                meter: meter(&label, "other"),
            };
            pools.insert(key, Arc::new(pool));
        }
        self.note_pools(&pools, board);
        self.note_names(board);
        pools
    }

    /// The models of InferenceModels, by pool.
    fn declared(&self) -> HashMap<PoolKey, BTreeMap<Box<str>, Option<&InferenceModel>>> {
        let mut declared: HashMap<_, BTreeMap<_, _>> = HashMap::new();
        for (model, key) in self.models {
            let models = declared.entry(key.clone()).or_default();
            models.insert(model.spec.model.clone(), Some(&model.spec));
        }
        declared
    }

    /// The conditions of InferencePools.
    fn note_pools(&self, pools: &HashMap<PoolKey, Arc<Pool>>, board: &mut Board) {
        for pool in &self.objects.pools {
            let key = PoolKey { name: pool.meta.name.clone(), kind: pool.spec.kind, port: 0 };
            let built = pools.get(&key);
            let note = match built {
                Some(pool) => format!("endpoints: {}", pool.endpoints.len()),
                None => "no route leads here".to_owned(),
            };
            if built.is_none() {
                board.report.warning(&pool.meta.place, "no route leads to this InferencePool");
            }
            board.holds(pool.spec.kind, &pool.meta, "", "Accepted", note);
            let picker = if pool.spec.picker.is_some() { "answered by the built-in picker" } else { "" };
            board.holds(pool.spec.kind, &pool.meta, "", "ResolvedRefs", picker);
        }
    }

    /// The conditions of Backends.
    fn note_names(&self, board: &mut Board) {
        for backend in &self.objects.backends {
            let condition = Condition::new("", "Accepted", true, "Accepted", "");
            board.set(Kind::Backend, &backend.meta, condition);
            for hostname in backend.spec.hostnames().filter(|name| self.names.get(name).is_empty()) {
                board.report.info(&backend.meta.place, format!("{hostname} is not resolved yet"));
            }
        }
    }
}

/// The pools that some rule sends requests to, each with the model names that rules spell out on the way.
fn reached(planned: &[Planned]) -> BTreeMap<PoolKey, BTreeSet<Box<str>>> {
    let mut reached: BTreeMap<PoolKey, BTreeSet<Box<str>>> = BTreeMap::new();
    for rule in planned {
        let headers = rule.matches.iter().flat_map(|one| &one.headers);
        let spelled = headers.filter_map(|(name, value)| match value {
            ValueMatch::Exact(value) if *name == MODEL_HEADER => Some(value.clone()),
            _ => None,
        });
        let spelled: Vec<Box<str>> = spelled.collect();
        for key in rule.destinations.iter().filter_map(|destination| destination.target.as_ref().ok()) {
            reached.entry(key.clone()).or_default().extend(spelled.iter().cloned());
        }
    }
    reached
}

/// Names that only a rule spells out are models without settings; a declared one stays as it is.
fn with_spelled(
    mut declared: BTreeMap<Box<str>, Option<&InferenceModel>>,
    spelled: BTreeSet<Box<str>>,
) -> BTreeMap<Box<str>, Option<&InferenceModel>> {
    for name in spelled {
        declared.entry(name).or_default();
    }
    declared
}

fn warn_if_empty(addresses: &BTreeSet<Address>, key: &PoolKey, place: &Place, board: &mut Board) {
    if addresses.is_empty() {
        let message = match key.kind {
            Kind::InferencePoolAlpha | Kind::InferencePool => {
                "no ready endpoint, requests get 503: add Backends with the labels of the selector, or Pods"
            }
            _ => "no ready endpoint, requests get 503",
        };
        board.report.warning(place, message);
    }
}
