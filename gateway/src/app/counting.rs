//! Carries the kernel's counts to the endpoints, from a thread of its own: reading them blocks. It is also the gateway's
//! heartbeat for the streams that are spliced, and tells the endpoints which of them speak.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::endpoint::{Address, Endpoint};
use crate::kernel::splice::{self, Splice};
use crate::kernel::{Counts, EndpointCounts};
use crate::snapshot::Snapshot;

/// How often the counts are read.
const READ: Duration = Duration::from_millis(100);
/// Reading takes one part in so many of a core at most: with thousands of connections it is done less often.
const SHARE: u32 = 50;
/// How often where they cannot be had.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// How often splice is shown life, and asked for it.
const BEAT: Duration = Duration::from_millis(500);
/// A kernel that is slower keeps nobody waiting.
const TRACKED: Duration = Duration::from_secs(1);

/// The thread that reads. It ends, and unloads what is in the kernel, when this is dropped.
pub(super) struct Counting {
    wanted: Option<mpsc::Sender<Wanted>>,
    /// Closed by the end of the thread.
    ended: mpsc::Receiver<()>,
}

struct Wanted {
    endpoints: Vec<Arc<Endpoint>>,
    done: oneshot::Sender<()>,
}

impl Counting {
    /// # Errors
    /// When there can be no thread.
    pub(super) fn start(source: Box<dyn Counts>, splice: Option<Arc<Splice>>) -> io::Result<Self> {
        let (wanted, inbox) = mpsc::channel();
        let (ends, ended) = mpsc::channel();
        thread::Builder::new().name("counting".into()).spawn(move || {
            let reader = Reader {
                source,
                pulse: splice.map(|splice| Pulse { splice, beaten: Instant::now() }),
                endpoints: Vec::new(),
                is_tracked: true,
                fails: false,
                uncounted: 0,
                disbelieved: 0,
            };
            reader.run(&inbox);
            drop::<mpsc::Sender<()>>(ends);
        })?;
        Ok(Self { wanted: Some(wanted), ended })
    }

    /// Has the endpoints of a snapshot counted; before workers see it, so that no connection is older than its count.
    pub(super) async fn track(&self, snapshot: &Snapshot) {
        let (done, is_done) = oneshot::channel();
        let wanted = Wanted { endpoints: tcp_endpoints(snapshot), done };
        if self.wanted.as_ref().is_some_and(|to| to.send(wanted).is_ok()) {
            // Counting late is better than serving late.
            let _ = timeout(TRACKED, is_done).await;
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.wanted = None;
        let _ = self.ended.recv_timeout(TRACKED);
    }
}

fn tcp_endpoints(snapshot: &Snapshot) -> Vec<Arc<Endpoint>> {
    let mut endpoints: Vec<_> =
        snapshot.endpoints().filter(|endpoint| tcp(endpoint).is_some()).cloned().collect();
    endpoints.sort_by_key(tcp);
    endpoints.dedup_by_key(|endpoint| tcp(endpoint));
    endpoints
}

fn tcp(endpoint: &Arc<Endpoint>) -> Option<SocketAddr> {
    match endpoint.address {
        Address::Tcp(address) => Some(address),
        Address::Unix(_) => None,
    }
}

/// The sign of life between the gateway and what it has spliced.
struct Pulse {
    splice: Arc<Splice>,
    beaten: Instant,
}

impl Pulse {
    /// Shows life, and has the endpoints heard whose events pass unseen.
    fn beat(&mut self, endpoints: &[Arc<Endpoint>]) {
        if self.beaten.elapsed() < BEAT {
            return;
        }
        self.beaten = Instant::now();
        self.splice.beat();
        let mut heard: HashMap<u64, u64> = HashMap::new();
        self.splice.voices(|owner, last_ns| {
            let last = heard.entry(owner).or_default();
            *last = last_ns.max(*last);
        });
        for endpoint in endpoints {
            if let Some(last_ns) = heard.get(&endpoint.number()) {
                endpoint.silence.ended(splice::instant_of(*last_ns).elapsed());
            }
        }
    }
}

struct Reader {
    source: Box<dyn Counts>,
    pulse: Option<Pulse>,
    endpoints: Vec<Arc<Endpoint>>,
    is_tracked: bool,
    fails: bool,
    /// Endpoints that there was no room to count.
    uncounted: usize,
    /// Endpoints whose counts drift.
    disbelieved: usize,
}

impl Reader {
    fn run(mut self, inbox: &mpsc::Receiver<Wanted>) {
        let mut counts = Vec::new();
        let mut next = Instant::now();
        loop {
            let wanted = match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Wanted { endpoints, done }) => {
                    self.endpoints = endpoints;
                    self.is_tracked = false;
                    Some(done)
                }
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(pulse) = &mut self.pulse {
                pulse.beat(&self.endpoints);
            }
            let began = cpu_time();
            let read = self.read(&mut counts);
            let pause = READ.max(cpu_time().saturating_sub(began) * SHARE);
            if let Some(done) = wanted {
                // Who asked may have stopped waiting.
                let _ = done.send(());
            }
            self.say(read);
            let pause = if self.fails { READ_AGAIN } else { pause };
            next = Instant::now() + if self.pulse.is_some() { pause.min(BEAT) } else { pause };
        }
    }

    fn read(&mut self, counts: &mut Vec<Option<EndpointCounts>>) -> io::Result<usize> {
        if !self.is_tracked {
            let addresses: Vec<_> = self.endpoints.iter().filter_map(tcp).collect();
            self.source.track(&addresses)?;
            self.is_tracked = true;
        }
        self.source.read(counts)?;
        self.say_uncounted(counts.iter().filter(|counts| counts.is_none()).count());
        let each = self.endpoints.iter().zip(counts.iter());
        let counted = each.filter_map(|(endpoint, counts)| Some((endpoint, (*counts)?)));
        Ok(counted.filter(|(endpoint, counts)| !endpoint.counted.publish(*counts)).count())
    }

    /// Once for each change.
    fn say_uncounted(&mut self, uncounted: usize) {
        if uncounted > 0 && uncounted != self.uncounted {
            tracing::warn!(
                uncounted,
                endpoints = self.endpoints.len(),
                "the kernel half has no room to count all endpoints; the rest go by the gateway's own load"
            );
        }
        self.uncounted = uncounted;
    }

    /// Once for each change.
    fn say(&mut self, read: io::Result<usize>) {
        match &read {
            Err(error) if !self.fails => {
                tracing::warn!(%error, "the kernel's counts cannot be read; picking goes by the gateway's own");
            }
            Ok(_) if self.fails => tracing::info!("the kernel's counts are read again"),
            _ => {}
        }
        self.fails = read.is_err();
        let disbelieved = read.unwrap_or(self.disbelieved);
        if (disbelieved == 0) != (self.disbelieved == 0) {
            if disbelieved > 0 {
                tracing::warn!(
                    endpoints = disbelieved,
                    "the kernel's counts drift; they are not believed there"
                );
            } else {
                tracing::info!("the kernel's counts no longer drift");
            }
        }
        self.disbelieved = disbelieved;
    }
}

/// What this thread has had of a core; time on the clock would make a busy host look like a slow kernel.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::route::fixtures::pool_of;

    /// Counts as many busy requests as the endpoint's port says, while it works.
    struct Fake {
        works: Arc<AtomicBool>,
        tracked: Arc<Mutex<Vec<SocketAddr>>>,
        dropped: Arc<AtomicBool>,
    }

    impl Counts for Fake {
        fn track(&mut self, endpoints: &[SocketAddr]) -> io::Result<()> {
            *self.tracked.lock().unwrap() = endpoints.to_vec();
            Ok(())
        }

        fn read(&mut self, counts: &mut Vec<Option<EndpointCounts>>) -> io::Result<()> {
            if !self.works.load(Ordering::Relaxed) {
                return Err(io::Error::other("as the test wants it"));
            }
            let of = |address: &SocketAddr| u32::from(address.port());
            let tracked = self.tracked.lock().unwrap();
            *counts = tracked
                .iter()
                .map(|each| Some(EndpointCounts { foreign_busy: of(each), ..EndpointCounts::default() }))
                .collect();
            Ok(())
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            self.dropped.store(true, Ordering::Relaxed);
        }
    }

    fn snapshot(addresses: &[Address]) -> Snapshot {
        let endpoints = addresses.iter().map(|address| Arc::new(Endpoint::new(address.clone()))).collect();
        Snapshot { pools: vec![pool_of("pool", endpoints)], ..Snapshot::default() }
    }

    #[tokio::test]
    async fn tracked_endpoints_are_counted_at_once_and_a_source_that_fails_is_asked_again() {
        let works = Arc::new(AtomicBool::new(true));
        let (tracked, dropped) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let fake = Fake { works: works.clone(), tracked, dropped: dropped.clone() };
        let counting = Counting::start(Box::new(fake), None).unwrap();
        let tcp = |port| Address::Tcp(([127, 0, 0, 1], port).into());
        let snapshot = snapshot(&[tcp(7), Address::Unix("/engine".into()), tcp(9), tcp(7)]);
        counting.track(&snapshot).await;
        let busy = || snapshot.pools[0].endpoints.iter().map(|each| each.counted.foreign_busy()).sum::<u32>();
        assert_eq!(busy(), 16);

        works.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(2_300)).await;
        assert_eq!(busy(), 0, "old counts are no load");
        works.store(true, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(busy(), 16);

        drop(counting);
        assert!(dropped.load(Ordering::Relaxed));
    }
}
