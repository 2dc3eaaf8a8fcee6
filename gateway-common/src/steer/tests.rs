extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_000_000_000_000;

fn open(open: u64) -> Worker {
    Worker { open, ..Worker::default() }
}

fn choose(workers: &[Worker], mut random: impl FnMut() -> u32) -> Option<u32> {
    let mut choice = Choice::new();
    for (number, worker) in workers.iter().enumerate() {
        choice.look(number as u32, worker, NOW, &mut random);
    }
    choice.made()
}

#[test]
fn the_words_are_where_the_fields_are_and_the_program_has_a_cache_line_of_its_own() {
    let at = |offset: usize| offset / 8;
    assert_eq!(at(core::mem::offset_of!(Worker, open)), word::OPEN);
    assert_eq!(at(core::mem::offset_of!(Worker, busy_since_ns)), word::BUSY_SINCE);
    assert_eq!(at(core::mem::offset_of!(Worker, settled)), word::SETTLED);
    assert_eq!(at(core::mem::offset_of!(Worker, given)), word::GIVEN);
    assert_eq!((size_of::<Worker>(), word::GIVEN % 8), (word::COUNT * 8, 0));
    assert_eq!(size_of::<Table>(), WORKERS * size_of::<Worker>());
    assert_eq!((size_of::<Address>(), size_of::<Group>()), (20, 8));
}

#[test]
fn the_least_loaded_worker_is_taken_and_what_it_was_just_given_counts() {
    assert_eq!(choose(&[open(3), open(1), open(2)], || 0), Some(1));
    let given = Worker { open: 1, given: 12, settled: 10, ..Worker::default() };
    assert_eq!(choose(&[open(2), given], || 0), Some(0));
    let settled = Worker { settled: 12, ..given };
    assert_eq!(choose(&[open(2), settled], || 0), Some(1));
}

#[test]
fn a_loop_that_does_not_come_round_gets_nothing_and_one_that_sleeps_is_well() {
    let hangs = Worker { busy_since_ns: NOW - STALE_NS - 1, ..open(0) };
    let works = Worker { busy_since_ns: NOW - STALE_NS, ..open(7) };
    assert_eq!(choose(&[hangs, works], || 0), Some(1));
    assert_eq!(choose(&[hangs, open(9)], || 0), Some(1));
    assert_eq!(choose(&[hangs, hangs], || 0), None);
    assert_eq!(choose(&[], || 0), None);
    // A clock that was read on another CPU may be a little ahead.
    assert!(Worker { busy_since_ns: NOW + 5, ..open(0) }.is_live(NOW));
}

#[test]
fn equals_have_equal_chances() {
    let mut state = 7_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let workers = [open(1), open(0), open(0), open(1), open(0)];
    let mut taken = [0; 5];
    for _ in 0..30_000 {
        taken[choose(&workers, &mut random).unwrap() as usize] += 1;
    }
    assert_eq!((taken[0], taken[3]), (0, 0));
    for worker in [1, 2, 4] {
        assert!((9_400..10_600).contains(&taken[worker]), "{taken:?}");
    }
}

fn any_worker() -> impl Strategy<Value = Worker> {
    let word = || prop_oneof![0..4_u64, any::<u64>()];
    let busy = prop_oneof![Just(0), NOW - 2 * STALE_NS..NOW + 2 * STALE_NS, any::<u64>()];
    (word(), busy, word(), word()).prop_map(|(open, busy_since_ns, settled, given)| Worker {
        open,
        busy_since_ns,
        settled,
        given,
        ..Worker::default()
    })
}

proptest! {
    #[test]
    fn it_is_a_live_one_of_the_least_load(
        workers in prop::collection::vec(any_worker(), 0..WORKERS),
        draws in prop::collection::vec(any::<u32>(), WORKERS),
    ) {
        let mut draws = draws.into_iter();
        let chosen = choose(&workers, || draws.next().unwrap());
        let live: Vec<&Worker> = workers.iter().filter(|worker| worker.is_live(NOW)).collect();
        match chosen {
            None => prop_assert!(live.is_empty()),
            Some(number) => {
                let chosen = &workers[number as usize];
                prop_assert!(chosen.is_live(NOW));
                let least = live.iter().map(|worker| worker.load()).min().unwrap();
                prop_assert_eq!(chosen.load().min(LOAD_MAX), least.min(LOAD_MAX));
            }
        }
    }
}
