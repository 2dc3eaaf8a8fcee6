//! Finds engines that hang: asked and silent, while others of their pool answer.
//!
//! A long prefill is silent too. So the silence must last for seconds and be several times as long as the longest that
//! the pool needed lately, and a peer must have said something since it began. Where no peer speaks nothing is
//! judged: a pool is never emptied. The bytes of our own answers tell, on every rung; the kernel's counts add those of
//! others. Heads do not: vLLM sends one before the prefill, by a server that outlives its model. What was judged wrongly is
//! restored by its next byte.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{MissedTickBehavior, interval};

use crate::endpoint::Endpoint;
use crate::snapshot::Snapshot;

/// How often the endpoints are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// No shorter silence is judged.
const LEAST: Duration = Duration::from_secs(5);
/// Nor one that is less than so many times the pool's longest time to first byte of late.
const TIMES: u32 = 3;

pub(super) async fn watch(snapshot: Arc<ArcSwap<Snapshot>>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        look(&snapshot.load());
    }
}

fn look(snapshot: &Snapshot) {
    for endpoint in snapshot.endpoints() {
        endpoint.listen();
    }
    // An endpoint of two pools hangs if it does in the eyes of one.
    let mut verdicts: HashMap<*const Endpoint, (&Arc<Endpoint>, Verdict)> = HashMap::new();
    for pool in &snapshot.pools {
        for endpoint in &pool.endpoints {
            let verdict = judge(endpoint, &pool.endpoints);
            let (_, gravest) = verdicts.entry(Arc::as_ptr(endpoint)).or_insert((endpoint, verdict));
            *gravest = verdict.max(*gravest);
        }
    }
    for (endpoint, verdict) in verdicts.into_values() {
        settle(endpoint, verdict);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// Nobody waits, or not for long.
    Fine,
    /// It is silent, and nobody else speaks.
    AsItsPeers,
    Hangs,
}

fn judge(endpoint: &Arc<Endpoint>, pool: &[Arc<Endpoint>]) -> Verdict {
    let Some(silent) = endpoint.silent().filter(|silent| *silent >= LEAST) else {
        return Verdict::Fine;
    };
    // Its peers' too: what is long for one of them is as long for the next that gets such a prompt.
    let longest = pool.iter().filter_map(|each| each.slowest_ttft()).max().unwrap_or_default();
    let bound = LEAST.max(longest.saturating_mul(TIMES));
    if silent < bound {
        return Verdict::Fine;
    }
    // A peer that may be about to hang too is no evidence; a verdict stands until it surely does.
    let doubt = if endpoint.health.is_hung() { bound } else { bound / 2 };
    let flows = |peer: &Arc<Endpoint>| {
        !Arc::ptr_eq(peer, endpoint)
            && !peer.health.is_ejected()
            && peer.silence.ended_within(silent)
            && peer.silent().is_none_or(|silent| silent < doubt)
    };
    if pool.iter().any(flows) { Verdict::Hangs } else { Verdict::AsItsPeers }
}

fn settle(endpoint: &Endpoint, verdict: Verdict) {
    let was_hung = endpoint.health.is_hung();
    match verdict {
        // Only others wait, perhaps by their own fault: one of our requests tries it when the ejection has run out.
        Verdict::Hangs if was_hung && !endpoint.is_asked() => {}
        Verdict::Hangs => {
            if endpoint.health.hangs().is_some() && !was_hung {
                let silent = endpoint.silent().unwrap_or_default();
                tracing::warn!(
                    endpoint = %endpoint.label,
                    silent_s = silent.as_secs_f64(),
                    "the engine is asked and silent while its peers answer; it is left alone until it speaks"
                );
            }
        }
        Verdict::Fine if was_hung && endpoint.speaks_again() => endpoint.succeeded(),
        Verdict::AsItsPeers if was_hung => {
            endpoint.health.succeeded();
            tracing::warn!(endpoint = %endpoint.label, "its peers are silent too; the engine is asked again");
        }
        Verdict::Fine | Verdict::AsItsPeers => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::endpoint::{Lease, pass};
    use crate::kernel::EndpointCounts;
    use crate::pick::{HotCold, Picker};
    use crate::route::fixtures::pool;

    struct World(Snapshot);

    impl World {
        fn of(count: u16) -> Self {
            Self(Snapshot { pools: vec![pool("pool", count)], ..Snapshot::default() })
        }

        fn endpoint(&self, at: usize) -> &Arc<Endpoint> {
            &self.0.pools[0].endpoints[at]
        }

        fn ask(&self, at: usize) -> Lease {
            let mut lease = self.endpoint(at).reserve();
            lease.commit();
            look(&self.0);
            lease
        }

        fn answer(&self, at: usize, ttft: Duration) {
            self.endpoint(at).silence.end(Instant::now());
            self.endpoint(at).observe_ttft(ttft);
        }

        /// Lets time pass, with looks and, where somebody is named, its bytes.
        fn pass(&self, seconds: u64, speaks: Option<usize>) {
            for _ in 0..seconds * 4 {
                pass(LOOK);
                speaks.iter().for_each(|at| self.endpoint(*at).silence.end(Instant::now()));
                look(&self.0);
            }
        }

        fn hung(&self) -> Vec<bool> {
            self.0.pools[0].endpoints.iter().map(|endpoint| endpoint.health.is_hung()).collect()
        }

        fn picks(&self, at: usize) -> usize {
            let picks = (0..100).filter_map(|_| HotCold.pick(&self.0.pools[0].endpoints, &[], true));
            picks.filter(|lease| Arc::ptr_eq(lease.endpoint(), self.endpoint(at))).count()
        }
    }

    const SHORT: Duration = Duration::from_millis(100);

    #[test]
    fn the_silent_one_among_flowing_peers_hangs_until_it_speaks() {
        let world = World::of(3);
        (0..3).for_each(|at| world.answer(at, SHORT));
        let _waits = world.ask(0);
        world.pass(4, Some(1));
        assert_eq!(world.hung(), [false; 3]);
        world.pass(2, Some(1));
        assert_eq!((world.hung(), world.picks(0)), (vec![true, false, false], 0));
        world.pass(60, Some(1));
        assert_eq!(world.picks(0), 0, "those that wait are trial enough");
        world.endpoint(0).silence.end(Instant::now());
        world.pass(1, None);
        assert_eq!(world.hung(), [false; 3]);
        assert!(world.picks(2) > 0);
    }

    #[test]
    fn one_request_tries_it_when_nobody_waits_any_more() {
        let world = World::of(2);
        let waits = world.ask(0);
        world.pass(6, Some(1));
        drop(waits);
        assert_eq!(world.picks(0), 0);
        world.pass(2, Some(1));
        assert_eq!(world.picks(0), 1);
        assert_eq!(world.picks(0), 0);
        let trial = world.ask(0);
        world.pass(30, Some(1));
        assert_eq!(world.picks(0), 0, "one at a time");
        drop(trial);
        world.pass(1, Some(1));
        assert_eq!(world.picks(0), 0, "the ejection after a failed trial is longer");
        world.pass(2, Some(1));
        assert_eq!(world.picks(0), 1);
        assert_eq!(world.endpoint(0).health.ejections(), 2);
    }

    #[test]
    fn a_pool_of_slow_prefills_is_not_mistaken_for_hung() {
        let world = World::of(2);
        (0..2).for_each(|at| world.answer(at, Duration::from_secs(20)));
        let _waits = world.ask(0);
        world.pass(59, Some(1));
        assert_eq!(world.hung(), [false; 2]);
        world.pass(2, Some(1));
        assert_eq!(world.hung(), [true, false]);
    }

    #[test]
    fn one_that_never_answered_is_measured_by_its_peers() {
        let world = World::of(2);
        world.answer(1, Duration::from_secs(4));
        let _waits = world.ask(0);
        world.pass(11, Some(1));
        assert_eq!(world.hung(), [false; 2]);
        world.pass(2, Some(1));
        assert_eq!(world.hung(), [true, false]);
    }

    #[test]
    fn where_all_are_silent_nobody_hangs() {
        let world = World::of(2);
        (0..2).for_each(|at| world.answer(at, SHORT));
        let waits = [world.ask(0), world.ask(1)];
        world.pass(60, None);
        assert_eq!(world.hung(), [false; 2]);
        world.pass(1, Some(1));
        assert_eq!(world.hung(), [true, false]);
        world.pass(4, None);
        assert_eq!(world.hung(), [true, false], "the other is slow, and flowed");
        world.pass(2, None);
        assert_eq!(world.hung(), [false; 2]);
        drop(waits);
    }

    #[test]
    fn nobody_to_compare_with_nobody_to_ask_or_a_slow_client_is_no_hang() {
        let alone = World::of(1);
        let _waits = alone.ask(0);
        alone.pass(60, None);
        assert_eq!(alone.hung(), [false]);

        let world = World::of(2);
        let mut lease = world.ask(0);
        lease.begin();
        world.pass(60, Some(1));
        assert_eq!(world.hung(), [false; 2]);
    }

    fn counts(answer_age: u64, stream_age: u64) -> EndpointCounts {
        let age = |seconds| Some(Duration::from_secs(seconds));
        let (answer_age, stream_age) = (age(answer_age), age(stream_age));
        EndpointCounts { foreign_busy: 1, answer_age, stream_age, ..EndpointCounts::default() }
    }

    #[test]
    fn what_others_wait_for_in_vain_is_seen_by_the_kernel() {
        let world = World::of(2);
        for _ in 0..6 {
            world.endpoint(0).counted.publish(counts(100, 100));
            world.pass(1, Some(1));
        }
        assert_eq!((world.hung(), world.picks(0)), (vec![true, false], 0));
        world.endpoint(0).counted.publish(counts(0, 100));
        world.pass(1, Some(1));
        assert_eq!(world.hung(), [true, false], "a head or a probe is no proof");
        world.endpoint(0).counted.publish(counts(0, 0));
        world.pass(1, Some(1));
        assert_eq!(world.hung(), [false; 2]);
    }

    #[test]
    fn half_a_request_of_another_costs_an_engine_one_short_ejection() {
        let world = World::of(2);
        let others_wait = |seconds: u64| {
            for _ in 0..seconds {
                world.endpoint(0).counted.publish(counts(100, 100));
                world.pass(1, Some(1));
            }
        };
        others_wait(8);
        assert_eq!((world.hung(), world.picks(0)), (vec![true, false], 1));
        world.answer(0, SHORT);
        world.endpoint(0).succeeded();
        others_wait(60);
        assert_eq!((world.hung(), world.endpoint(0).health.ejections()), (vec![false; 2], 1));

        world.endpoint(0).counted.publish(EndpointCounts::default());
        world.pass(1, Some(1));
        others_wait(6);
        assert_eq!(world.hung(), [true, false], "others ask anew");
    }

    #[test]
    fn what_was_long_for_one_of_a_pool_is_no_hang_of_another() {
        let world = World::of(2);
        world.answer(0, SHORT);
        world.answer(1, Duration::from_secs(20));
        for _ in 0..1_000 {
            world.answer(1, SHORT);
        }
        let _waits = world.ask(0);
        world.pass(59, Some(1));
        assert_eq!(world.hung(), [false; 2]);
        world.pass(2, Some(1));
        assert_eq!(world.hung(), [true, false]);
    }

    #[test]
    fn an_engine_that_streams_to_others_or_answers_them_at_once_does_not_hang() {
        let (streams, answers) = (World::of(2), World::of(2));
        let _waits = streams.ask(0);
        for _ in 0..20 {
            streams.endpoint(0).counted.publish(counts(0, 0));
            streams.pass(1, Some(1));
            answers.endpoint(0).counted.publish(counts(0, 100));
            answers.pass(1, Some(1));
        }
        assert_eq!((streams.hung(), answers.hung()), (vec![false; 2], vec![false; 2]));
    }
}
