//! What the workers route by: a table for each listening address, prepared once per snapshot.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Table;
use crate::ledger::Meter;
use crate::snapshot::Snapshot;

#[derive(Debug, Default)]
pub struct Tables {
    /// Few enough to be looked through: each request does.
    by_address: Vec<(SocketAddr, Arc<Table>)>,
    /// Counts what reached no listener.
    meter: Arc<Meter>,
}

impl Tables {
    /// The tables of a snapshot that follows on `before`: a listener that stays keeps the count of its connections,
    /// and an address that is closing keeps its table.
    #[must_use]
    pub fn new(
        snapshot: &Snapshot,
        meter: Arc<Meter>,
        before: &Self,
        closing: impl IntoIterator<Item = SocketAddr>,
    ) -> Self {
        let mut open: HashMap<_, _> = before
            .by_address
            .iter()
            .filter_map(|(_, table)| Some((table.door()?, table.open.clone())))
            .collect();
        let mut by_address = Vec::new();
        for address in snapshot.listeners.iter().flat_map(|listener| &listener.addresses) {
            if find(&by_address, *address).is_some() {
                continue;
            }
            let sharing = snapshot.listeners.iter().filter(|listener| listener.addresses.contains(address));
            let mut table = Table::new(sharing);
            if let Some(door) = table.door() {
                table.open = open.entry(door).or_default().clone();
            }
            by_address.push((*address, Arc::new(table)));
        }
        for address in closing {
            if find(&by_address, address).is_none()
                && let Some(table) = find(&before.by_address, address)
            {
                by_address.push((address, table.clone()));
            }
        }
        Self { by_address, meter }
    }

    /// The table of a listening address; `None` where a reload took it out.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Option<&Table> {
        find(&self.by_address, address).map(Arc::as_ref)
    }

    #[must_use]
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }
}

fn find(tables: &[(SocketAddr, Arc<Table>)], address: SocketAddr) -> Option<&Arc<Table>> {
    tables.iter().find(|(at, _)| *at == address).map(|(_, table)| table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::fixtures::listener;
    use crate::snapshot::{Hostname, Listener};

    const V4: ([u8; 4], u16) = ([0, 0, 0, 0], 80);
    const V6: ([u16; 8], u16) = ([0; 8], 80);

    fn snapshot(listeners: Vec<Listener>) -> Snapshot {
        Snapshot { listeners: listeners.into_iter().map(Arc::new).collect(), ..Snapshot::default() }
    }

    fn at(name: &str, hostname: Hostname, addresses: &[SocketAddr]) -> Listener {
        let listener = Arc::into_inner(listener(hostname, vec![])).unwrap();
        Listener { name: name.into(), addresses: addresses.to_vec(), ..listener }
    }

    #[test]
    fn the_addresses_of_a_listener_share_one_count_that_outlives_a_reload() {
        let (v4, v6): (SocketAddr, SocketAddr) = (V4.into(), V6.into());
        let exact = Hostname::Exact("a.org".into());
        let both = || at("web", Hostname::Any, &[v4, v6]);
        let first = snapshot(vec![both(), at("a", exact, &[v4])]);
        let tables = Tables::new(&first, Arc::default(), &Tables::default(), []);
        let open = &tables.at(v4).unwrap().open;
        assert!(Arc::ptr_eq(open, &tables.at(v6).unwrap().open));
        let other = SocketAddr::from(([127, 0, 0, 1], 81));
        let second = snapshot(vec![both(), at("other", Hostname::Any, &[other])]);
        let next = Tables::new(&second, Arc::default(), &tables, []);
        assert!(Arc::ptr_eq(open, &next.at(v6).unwrap().open));
        assert!(!Arc::ptr_eq(open, &next.at(other).unwrap().open));
    }

    #[test]
    fn an_address_that_closes_keeps_its_table_until_it_has_closed() {
        let (v4, v6): (SocketAddr, SocketAddr) = (V4.into(), V6.into());
        let both = snapshot(vec![at("web", Hostname::Any, &[v4, v6])]);
        let one = snapshot(vec![at("web", Hostname::Any, &[v6])]);
        let before = Tables::new(&both, Arc::default(), &Tables::default(), []);
        let closing = Tables::new(&one, Arc::default(), &before, [v4]);
        assert!(std::ptr::eq(closing.at(v4).unwrap(), before.at(v4).unwrap()));
        assert!(!std::ptr::eq(closing.at(v6).unwrap(), before.at(v6).unwrap()));
        let opened_again = Tables::new(&both, Arc::default(), &closing, [v4]);
        assert!(!std::ptr::eq(opened_again.at(v4).unwrap(), before.at(v4).unwrap()));
        assert!(Tables::new(&one, Arc::default(), &closing, []).at(v4).is_none());
    }
}
