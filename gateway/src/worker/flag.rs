//! A word that is given once to every task of a worker.

use std::cell::Cell;

use tokio::sync::Notify;

/// Local to one thread: nothing is shared between workers, and waiting costs no reference count.
#[derive(Debug, Default)]
pub(super) struct Flag {
    is_set: Cell<bool>,
    told: Notify,
}

impl Flag {
    pub(super) fn set(&self) {
        self.is_set.set(true);
        self.told.notify_waiters();
    }

    pub(super) fn is_set(&self) -> bool {
        self.is_set.get()
    }

    /// Ready when it is set.
    pub(super) async fn wait(&self) {
        // No other task of this thread runs between the look and the registration.
        if !self.is_set.get() {
            self.told.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_reaches_those_who_wait_and_those_who_come_late() {
        let flag = Flag::default();
        tokio::join!(flag.wait(), flag.wait(), async { flag.set() });
        flag.wait().await;
    }
}
