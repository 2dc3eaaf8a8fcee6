//! One live [`Endpoint`] per address, whatever snapshots come and go.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::endpoint::{Address, Endpoint};

/// Hands out endpoints; an endpoint lives as long as some snapshot or request holds it.
#[derive(Debug, Default)]
pub struct Registry {
    known: HashMap<Address, Weak<Endpoint>>,
}

impl Registry {
    /// The endpoint at this address: the living one, or a new one.
    pub fn endpoint(&mut self, address: &Address) -> Arc<Endpoint> {
        if let Some(endpoint) = self.known.get(address).and_then(Weak::upgrade) {
            return endpoint;
        }
        let endpoint = Arc::new(Endpoint::new(address.clone()));
        self.known.insert(address.clone(), Arc::downgrade(&endpoint));
        endpoint
    }

    /// Forgets addresses that nobody holds any more.
    pub fn prune(&mut self) {
        self.known.retain(|_, endpoint| endpoint.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_endpoint_while_anybody_holds_it() {
        let address = Address::Tcp(([127, 0, 0, 1], 8000).into());
        let mut registry = Registry::default();
        let first = registry.endpoint(&address);
        let lease = first.reserve();
        assert!(Arc::ptr_eq(&first, &registry.endpoint(&address)));
        drop(first);
        assert_eq!(registry.endpoint(&address).reservations(), 1, "the lease keeps it alive");
        drop(lease);
        registry.prune();
        assert!(registry.known.is_empty());
    }
}
