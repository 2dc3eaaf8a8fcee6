//! What a backendRef or poolRef names, and why not.

use std::collections::HashMap;

use crate::config::objects::backend::Backend;
use crate::config::objects::http_route::BackendRef;
use crate::config::objects::inference_pool::InferencePool;
use crate::config::objects::service::{Service, ServicePort};
use crate::config::objects::{Kind, Object, Objects};
use crate::snapshot::ObjectName;

/// Names one pool of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PoolKey {
    pub(crate) name: ObjectName,
    pub(crate) kind: Kind,
    /// Of a Service; 0 elsewhere.
    pub(crate) port: u16,
}

/// The object behind a [`PoolKey`].
#[derive(Clone, Copy)]
pub(crate) enum Named<'a> {
    Pool(&'a Object<InferencePool>),
    Service(&'a Object<Service>, &'a ServicePort),
    Backend(&'a Object<Backend>),
}

/// A reference that leads nowhere: the reason of the condition and a message.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Objects that can take requests, by name.
pub(crate) struct References<'a> {
    objects: &'a Objects,
    pools: HashMap<(Kind, &'a ObjectName), &'a Object<InferencePool>>,
    services: HashMap<&'a ObjectName, &'a Object<Service>>,
    backends: HashMap<&'a ObjectName, &'a Object<Backend>>,
}

impl<'a> References<'a> {
    pub(crate) fn new(objects: &'a Objects) -> Self {
        Self {
            objects,
            pools: objects.pools.iter().map(|pool| ((pool.spec.kind, &pool.meta.name), pool)).collect(),
            services: objects.services.iter().map(|service| (&service.meta.name, service)).collect(),
            backends: objects.backends.iter().map(|backend| (&backend.meta.name, backend)).collect(),
        }
    }

    /// What the reference of an object in this namespace names.
    pub(crate) fn resolve(&self, namespace: &str, reference: &BackendRef) -> Result<PoolKey, Broken> {
        let Some(kind) = reference.kind else {
            let message = format!("{} cannot take requests; use an InferencePool", reference.kind_word);
            return Err(Broken { reason: "InvalidKind", message });
        };
        let wanted = reference.namespace.as_deref().unwrap_or(namespace);
        let name = ObjectName { namespace: wanted.into(), name: (&*reference.name).into() };
        if wanted != namespace {
            let message = format!("{name} is in another namespace, and ReferenceGrants are not read");
            return Err(Broken { reason: "RefNotPermitted", message });
        }
        let port = if kind == Kind::Service { reference.port.unwrap_or_default() } else { 0 };
        let key = PoolKey { name, kind, port };
        match self.named(&key) {
            Ok(_) => Ok(key),
            Err(broken) => Err(broken),
        }
    }

    /// The object that a key names.
    pub(crate) fn named(&self, key: &PoolKey) -> Result<Named<'a>, Broken> {
        let found = match key.kind {
            Kind::InferencePoolAlpha | Kind::InferencePool => {
                self.pools.get(&(key.kind, &key.name)).copied().map(Named::Pool)
            }
            Kind::Backend => self.backends.get(&key.name).copied().map(Named::Backend),
            Kind::Service => match self.services.get(&key.name) {
                Some(service) => return service_port(service, key.port),
                None => None,
            },
            _ => None,
        };
        found.ok_or_else(|| Broken { reason: "BackendNotFound", message: self.why_missing(key) })
    }

    fn why_missing(&self, key: &PoolKey) -> String {
        let (word, name) = (key.kind.word(), &key.name);
        if self.objects.is_refused(key.kind, name) {
            return format!("the {word} {name} is not accepted");
        }
        let other = match key.kind {
            Kind::InferencePoolAlpha => Kind::InferencePool,
            Kind::InferencePool => Kind::InferencePoolAlpha,
            other => other,
        };
        if self.pools.contains_key(&(other, name)) {
            let versions = other.versions().join(" or ");
            return format!("there is no {word} {name} of this group, but one of {versions}; mend the group");
        }
        format!("there is no {word} {name}")
    }
}

fn service_port(service: &Object<Service>, port: u16) -> Result<Named<'_>, Broken> {
    let name = &service.meta.name;
    if service.spec.external_name {
        let message = format!("the Service {name} is an ExternalName; use a Backend with fqdn");
        return Err(Broken { reason: "UnsupportedValue", message });
    }
    let found = service.spec.ports.iter().find(|known| known.port == port);
    let missing = || format!("the Service {name} has no port {port}");
    found
        .map(|port| Named::Service(service, port))
        .ok_or_else(|| Broken { reason: "BackendNotFound", message: missing() })
}
