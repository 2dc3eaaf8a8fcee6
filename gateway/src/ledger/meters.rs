//! The meters by their labels: asked by the control side while it builds a snapshot, read by a scrape.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Meter, MeterReading};

/// The table is first pruned when it grows beyond this many label pairs.
const PRUNE_AT: usize = 1_024;

/// Every meter of the process by pool and model. Labels come from manifests, never from requests.
#[derive(Debug)]
pub struct Meters(Mutex<Table>);

#[derive(Debug)]
struct Table {
    /// By pool, then model; ordered, so that scrapes are too.
    by_labels: BTreeMap<(Box<str>, Box<str>), Arc<Meter>>,
    /// Twice what the last pruning left, so that pruning costs each insert O(1).
    prune_at: usize,
}

impl Default for Meters {
    fn default() -> Self {
        Self(Mutex::new(Table { by_labels: BTreeMap::new(), prune_at: PRUNE_AT }))
    }
}

impl Meters {
    /// The meter of a pool and model: the same one for the same labels, across reloads. Either may be empty
    /// (requests that reached no pool, models that no manifest names).
    #[must_use]
    pub fn meter(&self, pool: &str, model: &str) -> Arc<Meter> {
        let mut table = self.lock();
        let meter = table.by_labels.entry((pool.into(), model.into())).or_default().clone();
        table.prune();
        meter
    }

    /// Every label pair (pool, model) with its meter's state, in order.
    #[must_use]
    pub fn read(&self) -> Vec<(Box<str>, Box<str>, MeterReading)> {
        // The lock is held for the clones alone: reading the hundred counters of each needs none.
        let meters = self.lock().by_labels.clone();
        meters.into_iter().map(|((pool, model), meter)| (pool, model, meter.read())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A panic elsewhere leaves the table whole: each change is one insert.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Drops the meters that no snapshot and no request holds, once there are too many. Until then they stay, so
    /// that a model edited out and in again goes on counting where it was; Prometheus takes one that comes back
    /// from nothing for a counter reset.
    fn prune(&mut self) {
        if self.by_labels.len() > self.prune_at {
            self.by_labels.retain(|_, meter| Arc::strong_count(meter) > 1);
            self.prune_at = PRUNE_AT.max(2 * self.by_labels.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_labels_give_the_same_meter_although_nobody_held_it_meanwhile() {
        let meters = Meters::default();
        let address = Arc::as_ptr(&meters.meter("p", "m"));
        assert_eq!(address, Arc::as_ptr(&meters.meter("p", "m")));
        assert_ne!(address, Arc::as_ptr(&meters.meter("p", "other")));
        assert_ne!(address, Arc::as_ptr(&meters.meter("", "pm")));
    }

    #[test]
    fn endless_edits_do_not_grow_the_table_and_held_meters_stay() {
        let meters = Meters::default();
        let held = meters.meter("p", "held");
        for edit in 0..5 * PRUNE_AT {
            let _unheld = meters.meter("p", &edit.to_string());
        }
        assert!(meters.read().len() <= PRUNE_AT);
        assert!(Arc::ptr_eq(&held, &meters.meter("p", "held")));
    }

    #[test]
    fn many_held_meters_all_stay() {
        let meters = Meters::default();
        let held: Vec<_> = (0..3 * PRUNE_AT).map(|model| meters.meter("p", &model.to_string())).collect();
        assert_eq!(meters.read().len(), held.len());
    }
}
