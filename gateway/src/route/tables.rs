//! What the workers route by: a table for each listening address, prepared once per snapshot.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Table;
use crate::ledger::Meter;
use crate::snapshot::Snapshot;

#[derive(Debug, Default)]
pub struct Tables {
    by_address: HashMap<SocketAddr, Table>,
    /// Counts what reached no listener.
    meter: Arc<Meter>,
}

impl Tables {
    #[must_use]
    pub fn new(snapshot: &Snapshot, meter: Arc<Meter>) -> Self {
        let addresses = snapshot.listeners.iter().flat_map(|listener| &listener.addresses);
        let by_address = addresses.map(|address| {
            let sharing = snapshot.listeners.iter().filter(|listener| listener.addresses.contains(address));
            (*address, Table::new(sharing))
        });
        Self { by_address: by_address.collect(), meter }
    }

    /// The table of a listening address; `None` where a reload took it out.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Option<&Table> {
        self.by_address.get(&address)
    }

    #[must_use]
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }
}
