//! The picker among simulated engines: evidence for its rule. Prints what each rule gives:
//! `cargo test -p penstock --lib pick::simulation -- --nocapture`

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{HotCold, Picker};
use crate::endpoint::{Address, Endpoint, Lease, pass};
use crate::kernel::EndpointCounts;

/// What engines have to do, and who sends it.
#[derive(Clone)]
struct World {
    name: &'static str,
    /// 1 is an engine that prefills [`PREFILL_PER_S`].
    speeds: Vec<f64>,
    gateways: usize,
    /// Work that comes, as a part of what the engines can do.
    offered: f64,
    /// The part of all requests that goes past the gateways to the first engine.
    bypass: f64,
    /// Tokens of a mean request.
    prompt: f64,
    output: f64,
}

/// Requests of one run; after so many it ends.
const REQUESTS: usize = 6_000;
const RUNS: u64 = 4;
/// Requests that an engine works on at once.
const SLOTS: usize = 32;
const PREFILL_PER_S: f64 = 10_000.0;
/// How often a gateway learns what others have at the engines, as `app::counting` reads it.
const COUNTED_US: u64 = 100_000;

fn worlds() -> Vec<World> {
    let world = |name, speeds: &[f64], gateways, offered, bypass| World {
        name,
        speeds: speeds.to_vec(),
        gateways,
        offered,
        bypass,
        prompt: 1_000.0,
        output: 200.0,
    };
    let mixed = [1.0, 0.4].repeat(32);
    let sick = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.1];
    let many = world("64 mixed, 4 gateways", &mixed, 4, 0.8, 0.0);
    vec![
        world("2 equal, idle", &[1.0; 2], 1, 0.3, 0.0),
        world("2 equal, 40 % bypass", &[1.0; 2], 1, 0.7, 0.4),
        world("2 equal, 40 % bypass, 2 gateways", &[1.0; 2], 2, 0.7, 0.4),
        world("2 mixed", &mixed[..2], 1, 0.7, 0.0),
        world("4 mixed", &mixed[..4], 1, 0.7, 0.0),
        world("8 mixed", &mixed[..8], 1, 0.7, 0.0),
        world("8, one is ten times slower", &sick, 1, 0.7, 0.0),
        World { prompt: 100.0, output: 4.0, ..world("8 mixed, short, 4 gateways", &mixed[..8], 4, 0.6, 0.0) },
        world("64 mixed", &mixed, 1, 0.7, 0.0),
        many,
    ]
}

/// An engine with continuous batching: one prefill after the other, and what is prefilled shares the decoding.
struct Engine {
    speed: f64,
    batch: usize,
    waiting: VecDeque<usize>,
    /// When it is done with the prefills that it has begun.
    prefilled_us: u64,
}

struct Request {
    came_us: u64,
    prompt: f64,
    output: f64,
    engine: usize,
    /// `None` past the gateways.
    lease: Option<Lease>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// At a gateway, or past them all.
    Came(Option<usize>),
    FirstByte(usize),
    Done(usize),
    /// A gateway reads the kernel's counts.
    Counted(usize),
}

struct Run<'a> {
    world: &'a World,
    picker: &'a dyn Picker,
    now_us: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    engines: Vec<Engine>,
    requests: Vec<Request>,
    /// The endpoints as each gateway knows them.
    endpoints: Vec<Vec<Arc<Endpoint>>>,
    ttfts_us: Vec<u64>,
}

impl<'a> Run<'a> {
    fn new(world: &'a World, picker: &'a dyn Picker) -> Self {
        let engine =
            |speed: &f64| Engine { speed: *speed, batch: 0, waiting: VecDeque::new(), prefilled_us: 0 };
        let endpoint = |n| Arc::new(Endpoint::new(Address::Tcp(([127, 0, 0, 1], n as u16).into())));
        Self {
            world,
            picker,
            now_us: 0,
            events: BinaryHeap::new(),
            scheduled: 0,
            engines: world.speeds.iter().map(engine).collect(),
            requests: Vec::new(),
            endpoints: (0..world.gateways).map(|_| (0..world.speeds.len()).map(endpoint).collect()).collect(),
            ttfts_us: Vec::new(),
        }
    }

    /// Times to first byte of the gateways' requests, in their order.
    fn run(mut self) -> Vec<u64> {
        for gateway in 0..self.world.gateways {
            self.next(Some(gateway));
            self.after(fastrand::u64(..COUNTED_US), Event::Counted(gateway));
        }
        self.next(None);
        while self.requests.len() < REQUESTS
            && let Some(Reverse((at_us, _, event))) = self.events.pop()
        {
            pass(Duration::from_millis(at_us / 1_000 - self.now_us / 1_000));
            self.now_us = at_us;
            match event {
                Event::Came(gateway) => self.came(gateway),
                Event::FirstByte(request) => self.first_byte(request),
                Event::Done(request) => self.done(request),
                Event::Counted(gateway) => self.counted(gateway),
            }
        }
        self.ttfts_us.sort_unstable();
        self.ttfts_us
    }

    fn after(&mut self, wait_us: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now_us + wait_us, self.scheduled, event)));
    }

    /// Schedules what comes next, by a Poisson process.
    fn next(&mut self, gateway: Option<usize>) {
        let world = self.world;
        let decoded_s = world.output * token_us(SLOTS) / 1e6;
        let slots = SLOTS as f64 / (decoded_s + world.prompt / PREFILL_PER_S);
        let most_per_s = slots.min(PREFILL_PER_S / world.prompt) * world.speeds.iter().sum::<f64>();
        let part = match gateway {
            Some(_) => (1.0 - world.bypass) / world.gateways as f64,
            None => world.bypass,
        };
        if part > 0.0 {
            let mean_us = 1e6 / (most_per_s * world.offered * part);
            self.after((-mean_us * (1.0 - fastrand::f64()).ln()) as u64, Event::Came(gateway));
        }
    }

    fn came(&mut self, gateway: Option<usize>) {
        let lease = gateway.map(|gateway| {
            let mut lease = self.picker.pick(&self.endpoints[gateway], &[], true).unwrap();
            lease.commit();
            lease
        });
        let engine = gateway.zip(lease.as_ref()).map_or(0, |(gateway, lease)| {
            self.endpoints[gateway].iter().position(|each| Arc::ptr_eq(each, lease.endpoint())).unwrap()
        });
        let (prompt, output) = (size(self.world.prompt), size(self.world.output));
        self.requests.push(Request { came_us: self.now_us, prompt, output, engine, lease });
        self.engines[engine].waiting.push_back(self.requests.len() - 1);
        self.begin(engine);
        self.next(gateway);
    }

    fn begin(&mut self, engine: usize) {
        let engine = &mut self.engines[engine];
        if engine.batch == SLOTS {
            return;
        }
        let Some(request) = engine.waiting.pop_front() else { return };
        engine.batch += 1;
        let prefill_us = self.requests[request].prompt / (PREFILL_PER_S * engine.speed) * 1e6;
        engine.prefilled_us = engine.prefilled_us.max(self.now_us) + prefill_us as u64;
        let wait_us = engine.prefilled_us - self.now_us;
        self.after(wait_us, Event::FirstByte(request));
    }

    fn first_byte(&mut self, at: usize) {
        let request = &self.requests[at];
        let engine = &self.engines[request.engine];
        if let Some(lease) = &request.lease {
            let ttft_us = self.now_us - request.came_us;
            lease.endpoint().observe_ttft(Duration::from_micros(ttft_us));
            self.ttfts_us.push(ttft_us);
        }
        let decode_us = request.output * token_us(engine.batch) / engine.speed;
        self.after(decode_us as u64, Event::Done(at));
    }

    fn done(&mut self, at: usize) {
        self.requests[at].lease = None;
        let engine = self.requests[at].engine;
        self.engines[engine].batch -= 1;
        self.begin(engine);
    }

    fn counted(&mut self, gateway: usize) {
        for (engine, endpoint) in self.engines.iter().zip(&self.endpoints[gateway]) {
            let all = engine.batch + engine.waiting.len();
            let foreign_busy = all as u32 - endpoint.leases();
            endpoint.counted.publish(EndpointCounts { foreign_busy, ..EndpointCounts::default() });
        }
        self.after(COUNTED_US, Event::Counted(gateway));
    }
}

fn token_us(batch: usize) -> f64 {
    10_000.0 + 300.0 * batch as f64
}

/// Log-normal: the largest of a hundred is six times the mean.
fn size(mean: f64) -> f64 {
    let normal =
        (-2.0 * (1.0 - fastrand::f64()).ln()).sqrt() * (std::f64::consts::TAU * fastrand::f64()).cos();
    (mean * (normal - 0.5).exp()).max(1.0)
}

/// Of two at random the one with less load × time to first byte, as in peak EWMA.
struct TwoChoices;

impl Picker for TwoChoices {
    fn pick(&self, endpoints: &[Arc<Endpoint>], _: &[Arc<Endpoint>], _: bool) -> Option<Lease> {
        let (a, b) = (fastrand::usize(..endpoints.len()), fastrand::usize(..endpoints.len() - 1));
        let (a, b) = (&endpoints[a], &endpoints[b + usize::from(b >= a)]);
        let us = |each: &Endpoint| each.ttft().map_or(1, |ttft| ttft.as_micros() as u64);
        let cost = |each: &Endpoint| (each.load() + 1) * us(each);
        Some(if cost(a) < cost(b) { a } else { b }.reserve())
    }
}

/// The least loaded of all.
struct LeastLoaded;

impl Picker for LeastLoaded {
    fn pick(&self, endpoints: &[Arc<Endpoint>], _: &[Arc<Endpoint>], _: bool) -> Option<Lease> {
        endpoints.iter().min_by_key(|each| (each.load(), fastrand::u32(..))).map(Endpoint::reserve)
    }
}

/// The median and the 99th percentile in ms, means of some runs.
fn percentiles(world: &World, picker: &dyn Picker) -> (f64, f64) {
    let runs = (0..RUNS).map(|seed| {
        fastrand::seed(seed);
        let ttfts_us = Run::new(world, picker).run();
        let at = |part: usize| ttfts_us[ttfts_us.len() * part / 100] as f64 / 1e3 / RUNS as f64;
        (at(50), at(99))
    });
    runs.fold((0.0, 0.0), |sum, run| (sum.0 + run.0, sum.1 + run.1))
}

#[test]
fn engines_answer_sooner_than_with_two_choices_or_by_load_alone() {
    let pickers: [(&str, &dyn Picker); 3] =
        [("hot/cold", &HotCold), ("two choices", &TwoChoices), ("least loaded", &LeastLoaded)];
    println!("time to first byte in ms, p50 and p99");
    println!("{:<34}{}", "engines", pickers.map(|(name, _)| format!("{name:>16}")).concat());
    let mut sums = [(0.0, 0.0); 3];
    for world in worlds() {
        let of = pickers.map(|(_, picker)| percentiles(&world, picker));
        println!("{:<34}{}", world.name, of.map(|(p50, p99)| format!("{p50:>9.0}{p99:>7.0}")).concat());
        for (sum, (p50, p99)) in sums.iter_mut().zip(of) {
            *sum = (sum.0 + f64::ln(p50), sum.1 + f64::ln(p99));
        }
    }
    let n = worlds().len() as f64;
    let [ours, two, least] = sums.map(|(p50, p99)| (f64::exp(p50 / n), f64::exp(p99 / n)));
    println!(
        "{:<34}{}",
        "geometric mean",
        [ours, two, least].map(|(p50, p99)| format!("{p50:>9.0}{p99:>7.0}")).concat()
    );
    assert!(ours.0 < 0.9 * two.0 && ours.1 < 0.95 * two.1, "{ours:?} against {two:?}");
    assert!(ours.0 < 1.02 * least.0 && ours.1 < least.1, "{ours:?} against {least:?}");
}
