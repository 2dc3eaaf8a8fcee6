//! The models that an engine reports.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// Published by the control side after it asked the engine, sorted; empty until then.
#[derive(Debug, Default)]
pub struct Served(ArcSwap<Vec<Box<str>>>);

impl Served {
    pub fn publish(&self, mut models: Vec<Box<str>>) {
        models.sort_unstable();
        self.0.store(Arc::new(models));
    }

    #[must_use]
    pub fn models(&self) -> Arc<Vec<Box<str>>> {
        self.0.load_full()
    }

    #[must_use]
    pub fn has(&self, model: &str) -> bool {
        self.0.load().binary_search_by(|served| (**served).cmp(model)).is_ok()
    }
}
