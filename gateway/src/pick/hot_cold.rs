//! Prequal's hot/cold rule (NSDI'24): of the endpoints with little load, the one that answers soonest.
//!
//! A quarter of a sample is cold, and never none, so that load leads: of two to four endpoints only the least loaded.
//! Prequal takes five in six for cold because its latencies are measured at the load of the moment. Ours are of
//! answers that began before: with that many cold ones the fastest engine is filled long before it looks slow. Among
//! the cold, latencies that differ by noise are equal and load decides again, then chance: equal engines share evenly.
//! `simulation` compares the rule with two choices and with the load alone.
//!
//! An ejected endpoint is passed over, but for its one trial when the ejection has run out. Where every endpoint
//! is ejected the health is ignored: a guess is better than a certain refusal.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Picker;
use crate::endpoint::{Endpoint, Lease};

/// Of more endpoints than this, so many are looked at: gateways that know the same old counts do not all rush to one.
const SAMPLE: usize = 8;
/// One part in so many of a sample is cold.
const COLD: usize = 4;
/// Latencies that are longer than another by less than one part in so many are as good.
const NOISE: u64 = 4;

#[derive(Clone, Copy, Debug, Default)]
pub struct HotCold;

impl Picker for HotCold {
    fn pick(&self, endpoints: &[Arc<Endpoint>], tried: &[Arc<Endpoint>], first: bool) -> Option<Lease> {
        let sampled = if endpoints.len() > SAMPLE { sample(endpoints, tried) } else { None };
        let chosen = match sampled {
            Some(sample) => choose(sample)?,
            None => scan(endpoints, tried, first)?,
        };
        Some(chosen.reserve())
    }
}

/// Whether the load of an endpoint is above that of the cold ones among `endpoints`; for people to read.
#[must_use]
pub fn is_hot(endpoint: &Endpoint, endpoints: &[Arc<Endpoint>]) -> bool {
    let open = endpoints.iter().filter(|each| !each.health.is_ejected());
    let mut loads: Vec<u64> = open.map(|each| each.load()).collect();
    loads.sort_unstable();
    threshold(&loads, loads.len()).is_some_and(|threshold| endpoint.load() > threshold)
}

/// A place for each endpoint that is looked at.
type Sample<'e> = [Option<&'e Arc<Endpoint>>; SAMPLE];

/// Different ones, each set as likely as any other (Floyd's algorithm); `None` where one of them is closed.
fn sample<'e>(endpoints: &'e [Arc<Endpoint>], tried: &[Arc<Endpoint>]) -> Option<Sample<'e>> {
    let mut indices = [usize::MAX; SAMPLE];
    let mut sample = [None; SAMPLE];
    let first = endpoints.len().checked_sub(SAMPLE)?;
    for (place, last) in (first..endpoints.len()).enumerate() {
        let index = fastrand::usize(..=last);
        let index = if indices.contains(&index) { last } else { index };
        indices[place] = index;
        sample[place] = Some(endpoints.get(index).filter(|endpoint| is_open(endpoint, tried))?);
    }
    Some(sample)
}

fn is_open(endpoint: &Arc<Endpoint>, tried: &[Arc<Endpoint>]) -> bool {
    is_untried(endpoint, tried) && !endpoint.health.is_ejected()
}

fn is_untried(endpoint: &Arc<Endpoint>, tried: &[Arc<Endpoint>]) -> bool {
    !tried.iter().any(|other| Arc::ptr_eq(other, endpoint))
}

/// There are few endpoints, or the sample met one that is ejected or was tried. One pass over all of them, so that
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
    if first && let Some(trial) = ejected.find(|endpoint| endpoint.admits()) {
        return Some(trial);
    }
    let open = untried().filter(|endpoint| !endpoint.health.is_ejected());
    choose(reservoir(open)).or_else(|| choose(reservoir(untried())))
}

/// Some of them, each set as likely as any other (reservoir sampling).
fn reservoir<'e>(among: impl Iterator<Item = &'e Arc<Endpoint>>) -> Sample<'e> {
    let mut sample = [None; SAMPLE];
    for (seen, endpoint) in among.enumerate() {
        let place = if seen < SAMPLE { seen } else { fastrand::usize(..=seen) };
        if let Some(place) = sample.get_mut(place) {
            *place = Some(endpoint);
        }
    }
    sample
}

/// One look at the live figures of an endpoint: they change while it is chosen.
#[derive(Clone, Copy)]
struct Look<'e> {
    endpoint: &'e Arc<Endpoint>,
    load: u64,
    /// `None`: nothing is known, which counts as the best. A fresh endpoint is compared by load alone, so it gets its
    /// share and no crowd.
    latency_us: Option<u64>,
}

impl<'e> Look<'e> {
    fn at(endpoint: &'e Arc<Endpoint>) -> Self {
        let us = |ttft: std::time::Duration| u64::try_from(ttft.as_micros()).unwrap_or(u64::MAX);
        Self { endpoint, load: endpoint.load(), latency_us: endpoint.ttft().map(us) }
    }
}

fn choose<'e>(sample: Sample<'e>) -> Option<&'e Arc<Endpoint>> {
    let mut present = sample.iter().flatten();
    if let (Some(only), None) = (present.next(), present.next()) {
        return Some(only);
    }
    let looks = sample.map(|endpoint| endpoint.map(Look::at));
    let mut loads = looks.map(|look| look.map_or(u64::MAX, |look| look.load));
    loads.sort_unstable();
    let threshold = threshold(&loads, looks.iter().flatten().count())?;
    let cold = || looks.iter().flatten().filter(|look| look.load <= threshold);
    let soonest = cold().filter_map(|look| look.latency_us).min().unwrap_or(u64::MAX);
    let as_good = soonest.saturating_add(soonest / NOISE);
    least_loaded(cold().filter(|look| look.latency_us.is_none_or(|us| us <= as_good)))
}

/// The highest load that is cold; `loads` in their order, of which `count` are of endpoints.
fn threshold(loads: &[u64], count: usize) -> Option<u64> {
    loads.get(count.checked_sub(1)? / COLD).copied()
}

fn least_loaded<'a, 'e: 'a>(looks: impl Iterator<Item = &'a Look<'e>>) -> Option<&'e Arc<Endpoint>> {
    let mut best: Option<&Look<'e>> = None;
    let mut equals = 0;
    for look in looks {
        match best.map_or(Ordering::Less, |best| look.load.cmp(&best.load)) {
            Ordering::Less => (best, equals) = (Some(look), 1),
            Ordering::Equal => {
                equals += 1;
                // Each of n equals stays in one case of n.
                if fastrand::usize(..equals) == 0 {
                    best = Some(look);
                }
            }
            Ordering::Greater => {}
        }
    }
    best.map(|look| look.endpoint)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::endpoint::{Address, pass};
    use crate::kernel::EndpointCounts;

    fn endpoints<const N: usize>() -> [Arc<Endpoint>; N] {
        std::array::from_fn(|i| {
            Arc::new(Endpoint::new(Address::Tcp(([127, 0, 0, 1], 8000 + i as u16).into())))
        })
    }

    fn pick(endpoints: &[Arc<Endpoint>], tried: &[Arc<Endpoint>]) -> Option<Lease> {
        HotCold.pick(endpoints, tried, tried.is_empty())
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
        let endpoints = endpoints::<40>();
        let leases: Vec<_> = (0..1_000).map(|_| pick(&endpoints, &[]).unwrap()).collect();
        let loads: Vec<_> = endpoints.iter().map(|e| e.reservations()).collect();
        // One random choice would make the gap about 20.
        assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 4, "{loads:?}");
        drop(leases);
        assert!(endpoints.iter().all(|e| e.reservations() == 0));
    }

    #[test]
    fn a_sample_holds_different_endpoints_and_each_as_often() {
        fastrand::seed(9);
        let endpoints = endpoints::<12>();
        let mut counts = [0; 12];
        for _ in 0..6_000 {
            let sample = sample(&endpoints, &[]).unwrap().map(|endpoint| Arc::as_ptr(endpoint.unwrap()));
            for (endpoint, count) in endpoints.iter().zip(&mut counts) {
                let times = sample.iter().filter(|each| **each == Arc::as_ptr(endpoint)).count();
                assert!(times <= 1);
                *count += times;
            }
        }
        assert!(counts.iter().all(|count| (3_800..4_200).contains(count)), "{counts:?}");
    }

    /// Gives each so many reservations.
    fn load<const N: usize>(endpoints: &[Arc<Endpoint>; N], loads: [usize; N]) -> Vec<Lease> {
        let each = endpoints.iter().zip(loads);
        each.flat_map(|(endpoint, load)| (0..load).map(|_| endpoint.reserve())).collect()
    }

    #[test]
    fn of_the_least_loaded_quarter_the_soonest_wins() {
        let endpoints = endpoints::<8>();
        for (n, endpoint) in endpoints.iter().enumerate() {
            endpoint.observe_ttft(Duration::from_millis(800 >> n));
        }
        let leases = load(&endpoints, [4, 3, 4, 4, 4, 5, 6, 7]);
        assert_eq!(shares(&endpoints, 100), [0, 0, 0, 0, 100, 0, 0, 0]);
        let hot: Vec<_> = endpoints.iter().map(|endpoint| is_hot(endpoint, &endpoints)).collect();
        assert_eq!(hot, [false, false, false, false, false, true, true, true]);
        drop(leases);
        assert_eq!(shares(&endpoints, 100), [0, 0, 0, 0, 0, 0, 0, 100]);
    }

    #[test]
    fn latencies_that_differ_by_noise_are_equal() {
        fastrand::seed(10);
        let endpoints = endpoints::<3>();
        for (endpoint, ms) in endpoints.iter().zip([100, 124, 126]) {
            endpoint.observe_ttft(Duration::from_millis(ms));
        }
        let counts = shares(&endpoints, 1_000);
        assert!((400..600).contains(&counts[0]) && (400..600).contains(&counts[1]), "{counts:?}");
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
    fn a_slow_endpoint_gets_what_the_others_are_too_loaded_for_and_a_try_when_it_was_long_idle() {
        let endpoints = endpoints::<2>();
        endpoints[0].observe_ttft(Duration::from_millis(20));
        endpoints[1].observe_ttft(Duration::from_secs(60));
        assert_eq!(shares(&endpoints, 100), [100, 0]);
        let leases: Vec<_> = (0..90).map(|_| pick(&endpoints, &[]).unwrap()).collect();
        assert_eq!(endpoints[1].reservations(), 45);
        drop(leases);
        pass(Duration::from_secs(6));
        endpoints[0].observe_ttft(Duration::from_millis(20));
        assert!(shares(&endpoints, 100)[1] > 20);
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
        let endpoints = endpoints::<11>();
        eject(&endpoints[2]);
        let mut counts = shares(&endpoints, 10_000);
        assert_eq!(std::mem::replace(&mut counts[2], 1_000), 0);
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn after_an_ejection_one_request_tries_the_endpoint() {
        fastrand::seed(6);
        let endpoints = endpoints::<3>();
        eject(&endpoints[0]);
        assert_eq!(shares(&endpoints, 1_000)[0], 0);
        pass(Duration::from_millis(1_050));
        assert_eq!(shares(&endpoints, 1_000)[0], 1);
        endpoints[0].health.succeeded();
        assert!(shares(&endpoints, 1_000)[0] > 250);
    }

    #[test]
    fn a_retry_is_never_spent_on_a_trial() {
        let endpoints = endpoints::<4>();
        endpoints[..3].iter().for_each(|endpoint| eject(endpoint));
        pass(Duration::from_millis(1_050));
        let lease = pick(&endpoints, &endpoints[..1]).unwrap();
        assert!(Arc::ptr_eq(lease.endpoint(), &endpoints[3]));
    }

    #[test]
    fn all_ejected_fails_open() {
        fastrand::seed(8);
        let endpoints = endpoints::<12>();
        endpoints.iter().for_each(|endpoint| eject(endpoint));
        let counts = shares(&endpoints, 12_000);
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
