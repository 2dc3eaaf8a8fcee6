//! Asks every endpoint for its models, beside everything else; a silent one keeps its last answer.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::endpoint::{Address, Endpoint};
use crate::probe;
use crate::snapshot::Snapshot;

/// Questions in flight at once: thousands of engines must not cost as many descriptors.
const AT_ONCE: usize = 32;

pub(super) struct Probes {
    running: JoinSet<Address>,
    /// Being asked, or waiting for it: no endpoint is asked twice at once.
    asked: HashSet<Address>,
    room: Arc<Semaphore>,
}

impl Probes {
    pub(super) fn new() -> Self {
        Self { running: JoinSet::new(), asked: HashSet::new(), room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Begins to ask every endpoint that is not still being asked.
    pub(super) fn begin(&mut self, snapshot: &Snapshot) {
        while let Some(done) = self.running.try_join_next() {
            if let Ok(address) = done {
                self.asked.remove(&address);
            }
        }
        for endpoint in snapshot.endpoints() {
            if !self.asked.contains(&endpoint.address) {
                self.asked.insert(endpoint.address.clone());
                self.running.spawn(ask(endpoint.clone(), self.room.clone()));
            }
        }
    }
}

async fn ask(endpoint: Arc<Endpoint>, room: Arc<Semaphore>) -> Address {
    // The semaphore is never closed, so this is always a permit.
    let _permit = room.acquire().await;
    match probe::models(&endpoint.address).await {
        Ok(models) => endpoint.served.publish(models),
        Err(e) => tracing::debug!(endpoint = %endpoint.label, error = %e, "cannot ask for models"),
    }
    endpoint.address.clone()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::route::fixtures::pool_of;

    fn snapshot(endpoints: Vec<Arc<Endpoint>>) -> Snapshot {
        let pools = vec![pool_of("a", endpoints.clone()), pool_of("b", endpoints)];
        Snapshot { pools, ..Snapshot::default() }
    }

    #[tokio::test]
    async fn an_endpoint_of_two_pools_that_never_answers_is_asked_once() {
        let engine = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Arc::new(Endpoint::new(Address::Tcp(engine.local_addr().unwrap())));
        let snapshot = snapshot(vec![endpoint]);
        let mut probes = Probes::new();
        probes.begin(&snapshot);
        let held = engine.accept().await.unwrap();
        probes.begin(&snapshot);
        assert!(timeout(Duration::from_millis(200), engine.accept()).await.is_err());
        drop(held);
        let again = async {
            loop {
                probes.begin(&snapshot);
                if timeout(Duration::from_millis(20), engine.accept()).await.is_ok() {
                    break;
                }
            }
        };
        timeout(Duration::from_secs(5), again).await.expect("it is asked again once it has failed");
    }

    #[tokio::test]
    async fn many_endpoints_are_asked_a_few_at_a_time() {
        // All of 127.0.0.0/8 is this host: one socket stands for a hundred engines.
        let any = TcpListener::bind(("0.0.0.0", 0)).await.unwrap();
        let port = any.local_addr().unwrap().port();
        let endpoint = |host: u8| Arc::new(Endpoint::new(Address::Tcp(([127, 0, 1, host], port).into())));
        let mut probes = Probes::new();
        probes.begin(&snapshot((0..100).map(endpoint).collect()));
        let mut held = Vec::new();
        while let Ok(accepted) = timeout(Duration::from_millis(300), any.accept()).await {
            held.push(accepted.unwrap());
        }
        assert_eq!(held.len(), AT_ONCE);
    }
}
