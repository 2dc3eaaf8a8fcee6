//! Which addresses stand behind a pool: the union of ready Pods, EndpointSlices and Backends.
//!
//! Pure and synchronous: host names come resolved in a [`Names`] table. Everything is looked up by label through
//! an index, so 10,000 Pods and many pools stay cheap.

mod index;
mod names;
mod registry;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

pub use names::{Names, resolve};
pub use registry::Registry;

use crate::config::objects::backend::{Backend, BackendEndpoint};
use crate::config::objects::endpoint_slice::EndpointSlice;
use crate::config::objects::inference_pool::InferencePool;
use crate::config::objects::pod::Pod;
use crate::config::objects::service::{Service, ServicePort, TargetPort};
use crate::config::objects::{Object, Objects};
use crate::endpoint::Address;
use crate::snapshot::ObjectName;
use index::Index;

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Finds the addresses of pools; sorted, each once.
pub(crate) struct Finder<'a> {
    names: &'a Names,
    pods: Index<'a, Object<Pod>>,
    /// By `spec.selector`, not by their own labels.
    services: Index<'a, Object<Service>>,
    slices: Index<'a, Object<EndpointSlice>>,
    slices_of: HashMap<(&'a str, &'a str), Vec<&'a Object<EndpointSlice>>>,
    backends: Index<'a, Object<Backend>>,
}

impl<'a> Finder<'a> {
    pub(crate) fn new(objects: &'a Objects, names: &'a Names) -> Self {
        let mut slices_of: HashMap<_, Vec<_>> = HashMap::new();
        for slice in &objects.slices {
            if let Some(service) = slice.meta.labels.get(SERVICE_NAME) {
                let key = (&*slice.meta.name.namespace, &**service);
                slices_of.entry(key).or_default().push(slice);
            }
        }
        Self {
            names,
            pods: Index::by_labels(&objects.pods),
            services: Index::by(&objects.services, |service| {
                service.spec.selector.iter().map(|(k, v)| (k, v))
            }),
            slices: Index::by_labels(&objects.slices),
            slices_of,
            backends: Index::by_labels(&objects.backends),
        }
    }

    pub(crate) fn of_pool(&self, name: &ObjectName, pool: &InferencePool) -> BTreeSet<Address> {
        let namespace = &*name.namespace;
        let mut found = BTreeSet::new();
        for pod in self.pods.find(namespace, &pool.selector).iter().filter(|pod| pod.spec.ready) {
            found.extend(tcp(pod.spec.ip, &pool.ports));
        }
        let picker = pool.picker.as_deref();
        for service in self.services.find(namespace, &pool.selector) {
            let service = &*service.meta.name.name;
            if picker == Some(service) {
                continue;
            }
            for slice in self.slices_of(namespace, service) {
                // The slice stands for the same Pods, so the pool's ports hold whatever the Service names.
                found.extend(slice.spec.addresses.iter().flat_map(|ip| tcp(Some(*ip), &pool.ports)));
            }
        }
        for slice in self.slices.find(namespace, &pool.selector) {
            let service = slice.meta.labels.get(SERVICE_NAME).map(|name| &**name);
            if picker.is_none() || service != picker {
                let ports = slice_ports(&slice.spec, &pool.ports);
                found.extend(slice.spec.addresses.iter().flat_map(|ip| tcp(Some(*ip), &ports)));
            }
        }
        for backend in self.backends.find(namespace, &pool.selector) {
            found.extend(self.of_backend(&backend.spec));
        }
        found
    }

    pub(crate) fn of_service(&self, service: &Object<Service>, port: &ServicePort) -> BTreeSet<Address> {
        let ObjectName { namespace, name } = &service.meta.name;
        let mut found = BTreeSet::new();
        for slice in self.slices_of(namespace, name) {
            let ports = slice.spec.ports.iter().filter(|(name, _)| *name == port.name);
            let ports: Vec<u16> = ports.map(|(_, number)| *number).collect();
            found.extend(slice.spec.addresses.iter().flat_map(|ip| tcp(Some(*ip), &ports)));
        }
        for pod in self.pods.find(namespace, &service.spec.selector).iter().filter(|pod| pod.spec.ready) {
            let named = |name| pod.spec.ports.iter().filter(move |(known, _)| known == name).map(|(_, n)| *n);
            let ports: Vec<u16> = match &port.target {
                TargetPort::Number(number) => vec![*number],
                TargetPort::Name(name) => named(name).collect(),
            };
            found.extend(tcp(pod.spec.ip, &ports));
        }
        found
    }

    pub(crate) fn of_backend(&self, backend: &Backend) -> BTreeSet<Address> {
        let mut found = BTreeSet::new();
        for endpoint in &backend.endpoints {
            match endpoint {
                BackendEndpoint::Address(address) => {
                    found.insert(address.clone());
                }
                BackendEndpoint::Fqdn { hostname, port } => {
                    let addresses = self.names.get(hostname).iter();
                    found.extend(addresses.flat_map(|ip| tcp(Some(*ip), &[*port])));
                }
            }
        }
        found
    }

    fn slices_of(&self, namespace: &str, service: &str) -> Vec<&'a Object<EndpointSlice>> {
        self.slices_of.get(&(namespace, service)).cloned().unwrap_or_default()
    }
}

/// The pool's ports where the slice has any of them or names none; else the slice's own, as someone who writes
/// slices by hand means it.
fn slice_ports(slice: &EndpointSlice, wanted: &[u16]) -> Vec<u16> {
    let own: Vec<u16> = slice.ports.iter().map(|(_, number)| *number).collect();
    if own.is_empty() {
        return wanted.to_vec();
    }
    let both: Vec<u16> = own.iter().copied().filter(|port| wanted.contains(port)).collect();
    if both.is_empty() { own } else { both }
}

fn tcp(ip: Option<IpAddr>, ports: &[u16]) -> Vec<Address> {
    let address = |ip| ports.iter().map(move |port| Address::Tcp(SocketAddr::new(ip, *port)));
    ip.into_iter().flat_map(address).collect()
}
