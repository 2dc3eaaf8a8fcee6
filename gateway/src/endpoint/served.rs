//! The models that an engine reports.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// Published by the control side after it asked the engine; empty until then.
#[derive(Debug, Default)]
pub struct Served(ArcSwap<Vec<Box<str>>>);

impl Served {
    pub fn publish(&self, models: Vec<Box<str>>) {
        self.0.store(Arc::new(models));
    }

    #[must_use]
    pub fn models(&self) -> Arc<Vec<Box<str>>> {
        self.0.load_full()
    }

    #[must_use]
    pub fn has(&self, model: &str) -> bool {
        self.0.load().iter().any(|served| &**served == model)
    }
}
