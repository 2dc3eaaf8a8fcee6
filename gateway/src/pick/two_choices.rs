//! Two endpoints at random, the better one wins: load × time to first byte, as in peak EWMA.
//!
//! An ejected endpoint is passed over, but for its one trial when the ejection has run out. Where every endpoint
//! is ejected the health is ignored: a guess is better than a certain refusal.

use std::sync::Arc;

use super::Picker;
use crate::endpoint::{Endpoint, Lease};

/// One latency counts at most this many times the other. A figure from a cold start is only replaced by new
/// answers, so it must not keep an endpoint from ever getting one.
const MAX_LATENCY_RATIO: u64 = 8;

#[derive(Clone, Copy, Debug, Default)]
pub struct TwoChoices;

impl Picker for TwoChoices {
    fn pick(&self, endpoints: &[Arc<Endpoint>], tried: &[Arc<Endpoint>], first: bool) -> Option<Lease> {
        let chosen = match two_at_random(endpoints) {
            Some((a, b)) if is_open(a, tried) && is_open(b, tried) => better(a, b),
            _ => scan(endpoints, tried, first)?,
        };
        Some(chosen.reserve())
    }
}

fn two_at_random(endpoints: &[Arc<Endpoint>]) -> Option<(&Arc<Endpoint>, &Arc<Endpoint>)> {
    if endpoints.len() < 2 {
        return None;
    }
    let first = fastrand::usize(..endpoints.len());
    let second = fastrand::usize(..endpoints.len() - 1);
    let second = second + usize::from(second >= first);
    Some((endpoints.get(first)?, endpoints.get(second)?))
}

fn is_open(endpoint: &Arc<Endpoint>, tried: &[Arc<Endpoint>]) -> bool {
    is_untried(endpoint, tried) && !endpoint.health.is_ejected()
}

fn is_untried(endpoint: &Arc<Endpoint>, tried: &[Arc<Endpoint>]) -> bool {
    !tried.iter().any(|other| Arc::ptr_eq(other, endpoint))
}

/// The sample met an endpoint that is ejected or was tried, or there is only one. One pass over all of them, so that
/// the neighbours of a dead endpoint do not inherit its share.
fn scan<'e>(
    endpoints: &'e [Arc<Endpoint>],
    tried: &[Arc<Endpoint>],
    first: bool,
) -> Option<&'e Arc<Endpoint>> {
    let untried = || endpoints.iter().filter(|endpoint| is_untried(endpoint, tried));
    // Asking hands out the trial, so only the endpoint that takes it is asked. It goes before the healthy ones:
    // otherwise a dead endpoint among idle ones would never be tried again. Retries are for healthy ones.
    let mut ejected = untried().filter(|endpoint| endpoint.health.is_ejected());
    if first && let Some(trial) = ejected.find(|endpoint| endpoint.health.admits()) {
        return Some(trial);
    }
    let open = untried().filter(|endpoint| !endpoint.health.is_ejected());
    better_of_sample(open).or_else(|| better_of_sample(untried()))
}

/// Two of them, each pair as likely as any other (reservoir sampling), and the better of the two.
fn better_of_sample<'e>(mut among: impl Iterator<Item = &'e Arc<Endpoint>>) -> Option<&'e Arc<Endpoint>> {
    let mut first = among.next()?;
    let Some(mut second) = among.next() else { return Some(first) };
    for (seen, endpoint) in among.enumerate() {
        match fastrand::usize(..seen + 3) {
            0 => first = endpoint,
            1 => second = endpoint,
            _ => {}
        }
    }
    Some(better(first, second))
}

fn better<'e>(a: &'e Arc<Endpoint>, b: &'e Arc<Endpoint>) -> &'e Arc<Endpoint> {
    let (latency_a, latency_b) = latencies(a, b);
    let cost_a = load(a).saturating_mul(latency_a);
    let cost_b = load(b).saturating_mul(latency_b);
    match cost_a.cmp(&cost_b) {
        std::cmp::Ordering::Less => a,
        std::cmp::Ordering::Greater => b,
        std::cmp::Ordering::Equal => {
            if fastrand::bool() {
                a
            } else {
                b
            }
        }
    }
}

/// Our own requests, those of others as the kernel sees them, and the one to come.
fn load(endpoint: &Endpoint) -> u64 {
    let own = u64::from(endpoint.leases()) + u64::from(endpoint.reservations());
    own + u64::from(endpoint.counted.foreign_busy()) + 1
}

/// Times to first byte in µs. An unknown one counts as the other's: a fresh endpoint is compared by load alone,
/// so it gets its share and no crowd.
fn latencies(a: &Endpoint, b: &Endpoint) -> (u64, u64) {
    let us =
        |endpoint: &Endpoint| endpoint.ttft().map(|ttft| u64::try_from(ttft.as_micros()).unwrap_or(u64::MAX));
    let (Some(a), Some(b)) = (us(a), us(b)) else { return (1, 1) };
    let most = a.min(b).saturating_mul(MAX_LATENCY_RATIO);
    (a.min(most), b.min(most))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::endpoint::Address;
    use crate::kernel::EndpointCounts;

    fn endpoints<const N: usize>() -> [Arc<Endpoint>; N] {
        std::array::from_fn(|i| {
            Arc::new(Endpoint::new(Address::Tcp(([127, 0, 0, 1], 8000 + i as u16).into())))
        })
    }

    fn pick(endpoints: &[Arc<Endpoint>], tried: &[Arc<Endpoint>]) -> Option<Lease> {
        TwoChoices.pick(endpoints, tried, tried.is_empty())
    }

    fn eject(endpoint: &Endpoint) {
        while endpoint.health.failed().is_none() {}
    }

    /// How often each is picked when every request ends before the next begins.
    fn shares<const N: usize>(endpoints: &[Arc<Endpoint>; N], picks: usize) -> [usize; N] {
        let mut counts = [0; N];
        for _ in 0..picks {
            let lease = pick(endpoints, &[]).unwrap();
            counts[endpoints.iter().position(|e| Arc::ptr_eq(e, lease.endpoint())).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn idle_equals_get_equal_shares() {
        fastrand::seed(1);
        let counts = shares(&endpoints::<5>(), 10_000);
        assert!(counts.iter().all(|count| (1_800..2_200).contains(count)), "{counts:?}");
        let two = shares(&endpoints::<2>(), 10_000);
        assert!(two.iter().all(|count| (4_800..5_200).contains(count)), "{two:?}");
    }

    #[test]
    fn a_burst_sees_itself_and_spreads() {
        fastrand::seed(2);
        let endpoints = endpoints::<10>();
        let leases: Vec<_> = (0..1_000).map(|_| pick(&endpoints, &[]).unwrap()).collect();
        let loads: Vec<_> = endpoints.iter().map(|e| e.reservations()).collect();
        // Two choices keep the gap at O(log log n); one random choice would make it about 30.
        assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 6, "{loads:?}");
        drop(leases);
        assert!(endpoints.iter().all(|e| e.reservations() == 0));
    }

    #[test]
    fn of_two_the_less_loaded_wins_whether_leased_or_reserved() {
        let endpoints = endpoints::<2>();
        let mut lease = endpoints[0].reserve();
        assert_eq!(shares(&endpoints, 100), [0, 100]);
        lease.commit();
        assert_eq!(shares(&endpoints, 100), [0, 100]);
    }

    #[test]
    fn what_others_have_at_an_engine_is_load() {
        let endpoints = endpoints::<2>();
        endpoints[0].counted.publish(EndpointCounts { foreign_busy: 1, ..EndpointCounts::default() });
        assert_eq!(shares(&endpoints, 100), [0, 100]);
        let leases: Vec<_> = (0..2).map(|_| endpoints[1].reserve()).collect();
        assert_eq!(shares(&endpoints, 100), [100, 0]);
        drop(leases);
    }

    #[test]
    fn a_slow_endpoint_gets_less_but_is_not_starved() {
        fastrand::seed(3);
        let endpoints = endpoints::<2>();
        endpoints[0].observe_ttft(Duration::from_millis(20));
        endpoints[1].observe_ttft(Duration::from_secs(60));
        let leases: Vec<_> = (0..90).map(|_| pick(&endpoints, &[]).unwrap()).collect();
        let slow = endpoints[1].reservations();
        assert!((8..=12).contains(&slow), "{slow} of {}", leases.len());
    }

    #[test]
    fn a_fresh_endpoint_gets_a_share_and_no_crowd() {
        fastrand::seed(4);
        let endpoints = endpoints::<3>();
        endpoints[0].observe_ttft(Duration::from_millis(20));
        endpoints[1].observe_ttft(Duration::from_millis(20));
        let leases: Vec<_> = (0..300).map(|_| pick(&endpoints, &[]).unwrap()).collect();
        let fresh = endpoints[2].reservations();
        assert!((90..=110).contains(&fresh), "{fresh} of {}", leases.len());
    }

    #[test]
    fn an_ejected_endpoint_gets_nothing_and_its_share_is_spread() {
        fastrand::seed(5);
        let endpoints = endpoints::<5>();
        eject(&endpoints[2]);
        let counts = shares(&endpoints, 10_000);
        assert_eq!(counts[2], 0);
        let others = [counts[0], counts[1], counts[3], counts[4]];
        assert!(others.iter().all(|count| (2_300..2_700).contains(count)), "{counts:?}");
    }

    #[test]
    fn after_an_ejection_one_request_tries_the_endpoint() {
        fastrand::seed(6);
        let endpoints = endpoints::<3>();
        eject(&endpoints[0]);
        assert_eq!(shares(&endpoints, 1_000)[0], 0);
        std::thread::sleep(Duration::from_millis(1_050));
        assert_eq!(shares(&endpoints, 1_000)[0], 1);
        endpoints[0].health.succeeded();
        assert!(shares(&endpoints, 1_000)[0] > 250);
    }

    #[test]
    fn a_retry_is_never_spent_on_a_trial() {
        let endpoints = endpoints::<4>();
        endpoints[..3].iter().for_each(|endpoint| eject(endpoint));
        std::thread::sleep(Duration::from_millis(1_050));
        let lease = pick(&endpoints, &endpoints[..1]).unwrap();
        assert!(Arc::ptr_eq(lease.endpoint(), &endpoints[3]));
    }

    #[test]
    fn all_ejected_fails_open() {
        fastrand::seed(8);
        let endpoints = endpoints::<3>();
        endpoints.iter().for_each(|endpoint| eject(endpoint));
        let counts = shares(&endpoints, 3_000);
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
        assert!(pick(&endpoints[..1], &[]).is_some());
    }

    #[test]
    fn tried_endpoints_are_left_out_until_none_is_left() {
        let endpoints = endpoints::<3>();
        let tried = [endpoints[0].clone(), endpoints[2].clone()];
        for _ in 0..100 {
            let lease = pick(&endpoints, &tried).unwrap();
            assert!(Arc::ptr_eq(lease.endpoint(), &endpoints[1]));
        }
        eject(&endpoints[1]);
        assert!(pick(&endpoints, &tried).is_some());
        assert!(pick(&endpoints, &endpoints).is_none());
        assert!(pick(&[], &[]).is_none());
    }
}
