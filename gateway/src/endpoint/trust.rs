//! Whether an endpoint's answers may be spliced: until the first that did not add up.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

#[derive(Debug, Default)]
pub struct Trust {
    anomalies: AtomicU32,
}

impl Trust {
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.anomalies() == 0
    }

    /// What was spliced and what the client's socket took differ. True for the first time.
    pub fn lose(&self) -> bool {
        self.anomalies.fetch_add(1, Relaxed) == 0
    }

    /// How often that was.
    #[must_use]
    pub fn anomalies(&self) -> u32 {
        self.anomalies.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_anomaly_ends_it_and_every_one_counts() {
        let trust = Trust::default();
        assert!(trust.is_trusted());
        assert!(trust.lose() && !trust.lose());
        assert_eq!((trust.is_trusted(), trust.anomalies()), (false, 2));
    }
}
