//! Host names of engines and Gateways, resolved on the control side; the last good answer is kept.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::task::JoinSet;

/// A resolver that takes longer has failed for now.
const PATIENCE: Duration = Duration::from_secs(5);

/// What host names stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    known: HashMap<Box<str>, Vec<IpAddr>>,
}

/// What a look at the resolver brought.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// Whether a new snapshot is due.
    pub changed: bool,
    /// Names without an answer this time; an earlier answer still holds.
    pub failed: Vec<(Box<str>, io::Error)>,
}

impl Names {
    /// The addresses of a name; none until it was resolved once.
    #[must_use]
    pub fn get(&self, hostname: &str) -> &[IpAddr] {
        self.known.get(hostname).map_or(&[], Vec::as_slice)
    }

    /// Gives a name its addresses by hand.
    #[cfg(test)]
    pub fn insert(&mut self, hostname: &str, addresses: Vec<IpAddr>) {
        self.known.insert(hostname.into(), addresses);
    }

    /// Resolves every name at once and forgets the ones that are no longer asked for.
    pub async fn refresh(&mut self, hostnames: &[Box<str>]) -> Refreshed {
        let before = self.known.len();
        self.known.retain(|known, _| hostnames.contains(known));
        let mut refreshed = Refreshed { changed: self.known.len() != before, failed: Vec::new() };
        let mut lookups = JoinSet::new();
        for hostname in hostnames.iter().cloned() {
            lookups.spawn(async move {
                let answer = resolve(&hostname).await;
                (hostname, answer)
            });
        }
        while let Some(done) = lookups.join_next().await {
            match done {
                Ok((hostname, Ok(addresses))) => {
                    let old = self.known.insert(hostname, addresses.clone());
                    refreshed.changed |= old.as_ref() != Some(&addresses);
                }
                Ok((hostname, Err(error))) => refreshed.failed.push((hostname, error)),
                // A lookup is neither cancelled nor can it panic.
                Err(_) => {}
            }
        }
        refreshed
    }
}

/// Sorted, and of one family: IPv4 where there is any, as Envoy Gateway prefers it. `localhost` would otherwise
/// be two endpoints of one engine, one of them dead.
pub async fn resolve(hostname: &str) -> io::Result<Vec<IpAddr>> {
    let lookup = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((hostname, 0)));
    let answer = lookup.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) =
        answer.map(|address| address.ip().to_canonical()).partition(IpAddr::is_ipv4);
    let mut addresses = if v4.is_empty() { v6 } else { v4 };
    addresses.sort_unstable();
    addresses.dedup();
    match addresses.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
        false => Ok(addresses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_no_longer_resolves_keeps_its_last_good_answer() {
        let mut names = Names::default();
        let old: IpAddr = [10, 0, 0, 1].into();
        names.insert("gone.invalid", vec![old]);
        names.insert("unwanted.invalid", vec![old]);
        let refreshed = names.refresh(&["gone.invalid".into()]).await;
        assert_eq!(refreshed.failed.len(), 1);
        assert!(refreshed.changed, "one name was forgotten");
        assert_eq!(names.get("gone.invalid"), [old]);
        assert_eq!(names.get("unwanted.invalid"), [] as [IpAddr; 0]);
    }

    #[tokio::test]
    async fn localhost_is_one_endpoint() {
        let mut names = Names::default();
        let refreshed = names.refresh(&["localhost".into()]).await;
        assert!(refreshed.changed && refreshed.failed.is_empty());
        assert_eq!(names.get("localhost").len(), 1);
        assert!(!names.refresh(&["localhost".into()]).await.changed);
    }
}
