//! The kernel half, as the user half sees it: which rung the gateway stands on and why, and what the kernel counts.
//!
//! Each rung is right without the ones above it: full → account → sock_diag → userspace. Only this module and those
//! below it import aya.

pub mod account;
mod btf;
pub mod diag;
pub mod intercept;
mod messages;
mod object;
pub mod own;
pub mod privileges;
pub mod probe;
pub mod splice;
pub mod steer;
mod sys;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_common::account::{BUSY_WINDOW_NS, Ip, mapped};

use account::Account;
use diag::SockDiag;
use intercept::{Intercept, Scope};
use splice::Splice;
use steer::Steer;
pub use sys::{give_memory_back, passed};

/// Bytes that moved at most this long ago make a connection busy.
pub const BUSY_WINDOW: Duration = Duration::from_nanos(BUSY_WINDOW_NS);

/// How much of the kernel half is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    Userspace,
    /// Connections as the kernel lists them, of this network namespace.
    SockDiag,
    /// Connections as eBPF programs count them, of the whole host.
    Account,
    /// That, and events of engines that go to clients without waking the gateway.
    Full,
}

impl Rung {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Userspace => "userspace",
            Self::SockDiag => "sock_diag",
            Self::Account => "account",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What `--kernel` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Wanted {
    /// As much as this host and this build can do.
    #[default]
    Auto,
    /// Nothing in the kernel.
    Off,
    /// The kernel's list of connections, and no programs.
    SockDiag,
    /// True load of each engine, from the kernel's own counts.
    Account,
    /// Everything: events of engines on this host also go to clients without waking the gateway.
    Full,
}

/// Where the gateway stands.
pub struct Stand {
    pub rung: Rung,
    /// Why not higher, or how this rung came about.
    pub why: String,
    /// The kernel's counts; `None` in userspace.
    pub source: Option<Box<dyn Counts>>,
    /// Beside the rungs: what chooses the worker of a new connection, or why nothing does but a hash.
    pub steer: Result<Steer, String>,
    /// On the rung [`Rung::Full`], else why not.
    pub splice: Result<Arc<Splice>, String>,
    /// What sends connects to virtual addresses here, or why nothing does.
    pub intercept: Result<Intercept, String>,
}

/// What one endpoint has, as the kernel knows it. Totals never fall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointCounts {
    /// Connections, our own included.
    pub open: u32,
    /// Those of other processes, hosts and gateways.
    pub foreign_open: u32,
    /// Those of them that are load: waiting for an answer, or with bytes on the move.
    pub foreign_busy: u32,
    pub opened_total: u64,
    pub closed_total: u64,
    /// Connects from this host that were refused or never answered.
    pub failed_total: u64,
    /// Ended by a reset or a timeout.
    pub reset_total: u64,
    /// Mean over the connections that are open; 0: none.
    pub srtt_us: u32,
    pub retransmits_total: u64,
    /// SYN and FIN count as a byte.
    pub request_bytes_total: u64,
    pub answer_bytes_total: u64,
    /// Since bytes of a request last moved, to within the time between two reads.
    pub request_age: Option<Duration>,
    pub answer_age: Option<Duration>,
    /// The same for bytes that followed no request: of an answer that goes on. The head of an answer, and what a probe is
    /// told, may come from an engine whose model hangs.
    pub stream_age: Option<Duration>,
    /// Connections in `open` that are older than the counting, found by sock_diag.
    pub older: u32,
    /// Connections that the programs count and cannot be found, or the other way round; 0 when all is well.
    pub drift: i32,
}

/// No message is shorter: `HTTP/1.1`.
const LEAST_MESSAGE: u64 = 8;

impl EndpointCounts {
    /// Whether requests and answers have moved between two reads. The engine's kernel takes connections and ends them
    /// without it: a SYN or FIN counts as a byte, and is now and then seen one read before the connection it belongs to.
    fn moved_since(&self, last: &Self) -> (bool, bool) {
        let grown = |of: fn(&Self) -> u64| of(self).saturating_sub(of(last));
        let ends = grown(|counts| counts.opened_total) + grown(|counts| counts.closed_total);
        let moved = |bytes: u64| bytes >= ends + LEAST_MESSAGE;
        (moved(grown(|counts| counts.request_bytes_total)), moved(grown(|counts| counts.answer_bytes_total)))
    }
}

/// When an endpoint's bytes last moved.
#[derive(Debug, Default)]
struct Ages {
    requested: Option<Instant>,
    answered: Option<Instant>,
    streamed: Option<Instant>,
    /// At the read before.
    just_requested: bool,
}

impl Ages {
    fn take(&mut self, counts: &mut EndpointCounts, last: &EndpointCounts) {
        let (requested, answered) = counts.moved_since(last);
        let now = Instant::now();
        let age = |at: &mut Option<Instant>, moved: bool| {
            *at = if moved { Some(now) } else { *at };
            at.map(|at| now.saturating_duration_since(at))
        };
        counts.request_age = age(&mut self.requested, requested);
        counts.answer_age = age(&mut self.answered, answered);
        let streams = answered && !requested && !self.just_requested;
        counts.stream_age = age(&mut self.streamed, streams);
        self.just_requested = requested;
    }
}

/// A source of counts. Belongs to one thread of the control side, which reads it ten times a second.
pub trait Counts: Send {
    /// Says which endpoints are to be counted from now on.
    ///
    /// # Errors
    /// When the kernel cannot take the addresses; what was tracked before may then be tracked in part.
    fn track(&mut self, endpoints: &[SocketAddr]) -> io::Result<()>;

    /// Fills `counts` with one element for each tracked endpoint, in the order of `track`; `None` where there was no
    /// room to count it. What the last call filled in may stay where it still holds.
    ///
    /// # Errors
    /// When the kernel does not answer: the counts are then stale, and userspace weights take over.
    fn read(&mut self, counts: &mut Vec<Option<EndpointCounts>>) -> io::Result<()>;

    /// Makes the kind of calls that the others make, to no effect.
    ///
    /// # Errors
    /// What the kernel says to them: a refusal where this thread's privileges do not do.
    fn rehearse(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stand {
    fn new(rung: Rung, why: String, source: Option<Box<dyn Counts>>) -> Self {
        let not_tried = || "not tried".to_owned();
        Self {
            rung,
            why,
            source,
            steer: Err(not_tried()),
            splice: Err(not_tried()),
            intercept: Err(not_tried()),
        }
    }

    /// Takes the rung above [`Rung::Account`], or says why it stays.
    fn raised(mut self, memory: &Path) -> Self {
        let spliced = self_tested(memory);
        self.why = match &spliced {
            Ok((_, how)) => format!("{}; {how}", self.why),
            Err(why) => format!("{}; no splice: {why}", self.why),
        };
        self.rung = if spliced.is_ok() { Rung::Full } else { self.rung };
        self.splice = spliced.map(|(splice, _)| splice);
        self
    }

    /// [`Counts::rehearse`] of all that is loaded.
    ///
    /// # Errors
    /// As there.
    pub fn rehearse(&mut self) -> io::Result<()> {
        self.source.as_mut().map_or(Ok(()), |source| source.rehearse())?;
        self.splice.as_ref().map_or(Ok(()), Splice::rehearse)?;
        self.steer.as_mut().map_or(Ok(()), Steer::prove)?;
        self.intercept.as_mut().map_or(Ok(()), Intercept::rehearse)
    }
}

/// Takes the highest rung within what is wanted; `intercept`: whose connects are to be intercepted. Call it before
/// [`privileges::drop_all`]. `memory` is a folder that ends with the boot, where a self-test that went well is remembered.
///
/// # Errors
/// When a rung is demanded that this build or host does not have.
pub fn stand(wanted: Wanted, memory: &Path, intercept: Option<Scope>) -> Result<Stand, String> {
    let userspace = |why: &str| Stand::new(Rung::Userspace, why.into(), None);
    let mut stand = match wanted {
        Wanted::Off => Ok(userspace("asked for by --kernel off")),
        Wanted::SockDiag => sock_diag("asked for by --kernel sock-diag".into()),
        Wanted::Account => account(),
        Wanted::Full => account().map(|stand| stand.raised(memory)).and_then(|stand| match &stand.splice {
            Ok(_) => Ok(stand),
            Err(why) => Err(format!("--kernel full: no splice: {why}; --kernel auto goes without")),
        }),
        Wanted::Auto => Ok(account()
            .map(|stand| stand.raised(memory))
            .or_else(|why| sock_diag(format!("no accounting programs: {why}")))
            .unwrap_or_else(|why| userspace(&why))),
    }?;
    let programs = match wanted {
        Wanted::Off | Wanted::SockDiag => Err("--kernel asks for no programs".to_owned()),
        Wanted::Auto | Wanted::Account | Wanted::Full => probe::may_load(),
    };
    stand.steer = programs.clone().and_then(|()| Steer::load());
    stand.intercept = match intercept {
        Some(scope) => programs.and_then(|()| Intercept::load(scope)),
        None => Err("no --intercept".into()),
    };
    Ok(stand)
}

fn account() -> Result<Stand, String> {
    probe::capabilities()?;
    let account = Account::load(&account::Place::find()?)?;
    let why = account.origin().to_owned();
    Ok(Stand::new(Rung::Account, why, Some(Box::new(account))))
}

/// Splice, and how this kernel was found to be fit for it.
fn self_tested(memory: &Path) -> Result<(Arc<Splice>, String), String> {
    let splice = Splice::load(&account::Place::find()?, splice::SLOTS as u32)?;
    let outcome = splice::conformance(&splice, Some(memory));
    outcome.notes.iter().for_each(|note| tracing::info!("the self-test of splice: {note}"));
    match (outcome.failed, outcome.took) {
        (Some(why), _) => Err(format!("this kernel fails its self-test: {why}")),
        (None, Some(took)) => {
            Ok((splice, format!("the self-test of splice passed in {} ms", took.as_millis())))
        }
        (None, None) => Ok((splice, "the self-test of splice passed earlier on this boot".into())),
    }
}

fn sock_diag(why: String) -> Result<Stand, String> {
    let diag = SockDiag::open().map_err(|e| format!("{why}; no sock_diag: {e}"))?;
    Ok(Stand::new(Rung::SockDiag, why, Some(Box::new(diag))))
}

/// An address as both halves write it.
fn wire(address: &SocketAddr) -> (Ip, u16) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => mapped(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    };
    (ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_is_always_to_be_had() {
        let stand = stand(Wanted::Off, Path::new("/nowhere"), None).unwrap();
        assert_eq!(
            (stand.rung, stand.source.is_none(), stand.splice.is_err()),
            (Rung::Userspace, true, true)
        );
    }

    #[test]
    fn connections_that_come_and_go_are_no_answer() {
        let last = EndpointCounts { answer_bytes_total: 900, opened_total: 3, ..EndpointCounts::default() };
        let after = |bytes: u64, opened: u64, closed_total| {
            let (answer_bytes_total, opened_total) = (900 + bytes, 3 + opened);
            EndpointCounts { answer_bytes_total, opened_total, closed_total, ..last }.moved_since(&last).1
        };
        assert!(!after(0, 0, 0) && !after(2, 0, 0) && !after(40, 20, 20));
        assert!(after(8, 0, 0) && after(500, 20, 20));
    }

    #[test]
    fn a_head_that_follows_a_request_is_no_stream() {
        let mut ages = Ages::default();
        let mut last = EndpointCounts::default();
        let mut streams = |request: u64, answer: u64| {
            let mut counts = EndpointCounts {
                request_bytes_total: last.request_bytes_total + request,
                answer_bytes_total: last.answer_bytes_total + answer,
                ..EndpointCounts::default()
            };
            ages.take(&mut counts, &last);
            last = counts;
            (counts.answer_age.is_some(), counts.stream_age.is_some())
        };
        assert_eq!(streams(300, 0), (false, false));
        assert_eq!(streams(0, 200), (true, false));
        assert_eq!(streams(300, 200), (true, false));
        assert_eq!(streams(0, 0), (true, false));
        assert_eq!(streams(0, 40), (true, true));
    }

    #[test]
    fn an_ipv4_address_and_its_mapped_form_are_one() {
        let four: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let six: SocketAddr = "[::ffff:10.0.0.1]:80".parse().unwrap();
        assert_eq!(wire(&four), wire(&six));
    }
}
