//! The user half of accounting: loads or adopts the programs, keeps their address table, and reads their counts.
//!
//! Three sources make one figure. The rows, mapped, count every opening and closing. The look, an iterator that
//! runs over all counted sockets of the host when it is read, says which of them are load. sock_diag finds the
//! connections that are older than the programs.

mod figures;
mod look;
pub(super) mod place;
mod programs;
mod table;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, ProgramInfo};
use penstock_common::account::Sight;
use rustix::thread::CapabilitySet;

use super::diag::{Diag, Found, Index, LEARN};
use super::messages::Messages;
use super::object::{full, map_data, take};
use super::sys::Rows;
use super::{Counts, EndpointCounts, own, privileges, sys};
use figures::Figures;
use look::Look;
pub use place::Place;
use place::{Lock, Membership};
use table::Table;

/// How often all is read while nobody else has a connection to an engine: there is no load that the gateway does not know.
const ALONE: Duration = Duration::from_millis(500);

/// The counts of the programs.
pub struct Account {
    place: Place,
    origin: &'static str,
    table: Table,
    rows: Rows,
    look: Look,
    /// Of each tracked endpoint that has a slot.
    figures: Vec<Option<Figures>>,
    older: Older,
    /// When all was read the last time, since the endpoints are tracked.
    read: Option<Instant>,
    messages: Option<Messages>,
    /// Last, because others may take the seat once it is given up.
    seat: Option<Membership>,
}

impl Account {
    /// Loads the programs, or adopts those that another gateway, alive or killed, has loaded from the same object.
    ///
    /// # Errors
    /// When this host or this process cannot, with what is missing.
    pub fn load(place: &Place) -> Result<Self, String> {
        let pins = |e: io::Error| format!("{}: {e}", place.pins.display());
        let lock = place.lock().map_err(pins)?;
        let seat = place.join(&lock)?;
        let others = place.living(&lock, seat.number);
        let loaded = prepare(place, others, &lock).and_then(|origin| {
            let messages = if others == 0 { messages(place) } else { None };
            Self::open(place, seat, others, origin, messages)
        });
        if loaded.is_err() && others == 0 {
            place.remove(&lock).map_err(pins)?;
        }
        loaded
    }

    fn open(
        place: &Place,
        seat: Membership,
        others: u32,
        origin: &'static str,
        messages: Option<Messages>,
    ) -> Result<Self, String> {
        let map = |name: &str| MapData::from_pin(place.pin(name)).map_err(|e| full(name, &e));
        let table = Map::from_map_data(map("ENDPOINTS")?).and_then(TryInto::try_into);
        let table = table.map_err(|e| full("ENDPOINTS", &e))?;
        let text = |e: io::Error| e.to_string();
        let rows = Rows::map(map("ROWS")?.fd().as_fd(), programs::rows()? as usize).map_err(text)?;
        let sockets = map("SOCKETS")?.fd().as_fd().try_clone_to_owned().map_err(text)?;
        let look = Look::new(sys::open_pin(&place.pin("link-look")).map_err(text)?);
        let netns = sys::netns_cookie().map_err(text)?;
        let table = Table::new(table, seat.number, netns, 1 << seat.number | others).map_err(text)?;
        own::into_storage(sockets, seat.number);
        Ok(Self {
            origin,
            table,
            rows,
            look,
            figures: Vec::new(),
            older: Older::new(Diag::open().map_err(text)?),
            read: None,
            messages,
            seat: Some(seat),
            place: place.clone(),
        })
    }

    /// How the programs came to be there.
    #[must_use]
    pub fn origin(&self) -> &'static str {
        self.origin
    }

    fn number(&self) -> u8 {
        self.seat.as_ref().map_or(0, |seat| seat.number)
    }

    /// Whether only this gateway is connected to the engines, now and when these counts were read.
    fn is_alone(&self, last: &[Option<EndpointCounts>]) -> bool {
        last.len() == self.figures.len()
            && last.iter().flatten().all(|counts| counts.foreign_open == 0 && counts.drift == 0)
            && !self.figures.iter().flatten().any(|of| of.has_others(&self.rows, self.number()))
    }
}

impl Counts for Account {
    fn track(&mut self, endpoints: &[SocketAddr]) -> io::Result<()> {
        let _lock = self.place.lock()?;
        let slots = self.table.track(endpoints, &self.rows)?;
        let mut old = std::mem::take(&mut self.figures);
        self.figures = slots
            .into_iter()
            .zip(endpoints)
            .map(|(slot, address)| {
                let slot = slot?;
                let is_same = |of: &Figures| of.address == *address && of.slot == slot;
                let before = old.iter_mut().find(|of| of.as_ref().is_some_and(is_same));
                before.and_then(Option::take).or_else(|| Some(Figures::new(*address, slot)))
            })
            .collect();
        self.older = Older {
            index: Index::new(endpoints),
            found: Vec::new(),
            looked: None,
            learned: None,
            ..self.older.take()?
        };
        self.read = None;
        Ok(())
    }

    fn read(&mut self, counts: &mut Vec<Option<EndpointCounts>>) -> io::Result<()> {
        if let Some(messages) = &mut self.messages {
            messages.flush();
        }
        if self.read.is_some_and(|at| at.elapsed() < ALONE) && self.is_alone(counts) {
            return Ok(());
        }
        if self.older.learned.is_none_or(|at| at.elapsed() >= LEARN) {
            let any = self.older.index.learn(&mut self.older.diag)?;
            let any: Vec<(u16, usize)> = any.iter().map(|(port, endpoint)| (*port, *endpoint)).collect();
            let _lock = self.place.lock()?;
            self.table.listen_anywhere(&any)?;
            self.older.learned = Some(Instant::now());
        }
        let sights = self.older.look(&mut self.look)?;
        let number = self.number();
        counts.clear();
        for (n, figures) in self.figures.iter_mut().enumerate() {
            let older = self.older.found.iter().filter(|found| found.endpoint == n);
            counts.push(figures.as_mut().map(|figures| figures.take(&self.rows, &sights, older, number)));
        }
        self.read = Some(Instant::now());
        Ok(())
    }

    fn rehearse(&mut self) -> io::Result<()> {
        self.table.rehearse()?;
        self.look.look().map(drop)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        own::nowhere();
        let left = self.place.lock().and_then(|lock| {
            if self.place.living(&lock, self.number()) == 0 {
                self.seat = None;
                self.place.remove(&lock)
            } else {
                let left = self.table.track(&[], &self.rows).map(drop);
                self.seat = None;
                left
            }
        });
        if let Err(error) = left {
            tracing::warn!(pins = %self.place.pins.display(), %error, "the kernel half is not unloaded whole");
        }
    }
}

/// Has the programs verified, asks which privileges their maps will need, and drops them again.
pub(super) fn verified() -> Result<String, String> {
    let mut ebpf = programs::load()?;
    let tags: Result<Vec<String>, String> = programs::PROGRAMS
        .iter()
        .map(|name| Ok(format!("{name} {:016x}", programs::tag(&ebpf, name)?)))
        .collect();
    let mut endpoints: programs::Table =
        take(&mut ebpf, "ENDPOINTS")?.try_into().map_err(|e| full("ENDPOINTS", &e))?;
    let needed = privileges::needed(|| table::rehearse(&mut endpoints)).map_err(|e| e.to_string())?;
    let after = if needed.contains(CapabilitySet::BPF) {
        "CAP_BPF stays after loading, because this kernel refuses the use of their maps without it"
    } else {
        "their maps need no capability after loading"
    };
    Ok(format!("the verifier accepts them: {}; {after}", tags?.join(", ")))
}

/// Connections that the programs do not know, because they are older.
struct Older {
    diag: Diag,
    index: Index,
    found: Vec<Found>,
    looked: Option<Instant>,
    learned: Option<Instant>,
}

impl Older {
    fn new(diag: Diag) -> Self {
        Self { diag, index: Index::default(), found: Vec::new(), looked: None, learned: None }
    }

    fn take(&mut self) -> io::Result<Self> {
        Ok(std::mem::replace(self, Self::new(Diag::open()?)))
    }

    /// Looks at all counted sockets, and searches for older ones: every few seconds, and each time while there are any.
    fn look(&mut self, look: &mut Look) -> io::Result<Vec<Sight>> {
        if self.found.is_empty() && self.looked.is_some_and(|at| at.elapsed() < LEARN) {
            return look.look();
        }
        let before = self.index.find(&mut self.diag)?;
        let sights = look.look()?;
        self.looked = Some(Instant::now());
        let known: HashSet<u64> = sights.iter().map(|sight| sight.cookie).collect();
        let unknown = |found: &Found| !known.contains(&found.cookie);
        self.found.clear();
        if before.iter().any(unknown) {
            // What was there before and after the look, and not in it, is older; the rest has just ended.
            let before: HashSet<u64> = before.iter().map(|found| found.cookie).collect();
            self.found = self.index.find(&mut self.diag)?;
            self.found.retain(|found| unknown(found) && before.contains(&found.cookie));
        }
        Ok(sights)
    }
}

/// Sees to it that the pins are there and of this object; answers how that came about.
fn prepare(place: &Place, others: u32, lock: &Lock) -> Result<&'static str, String> {
    let mut fresh = programs::load()?;
    let is_same = is_same(place, &fresh);
    if others != 0 {
        return match is_same {
            Ok(true) => Ok("shared with another gateway on this host"),
            Ok(false) => Err("another version of Penstock counts on this host; it must end first".into()),
            Err(e) => Err(format!("another gateway counts on this host, but its pins cannot be used: {e}")),
        };
    }
    if is_same == Ok(true) {
        return Ok("adopted from a gateway that was killed");
    }
    // Nothing there, or what another version left, or half of what was killed while it pinned.
    place.clear(lock).map_err(|e| format!("{}: {e}", place.pins.display()))?;
    attach(place, &mut fresh)?;
    Ok("loaded")
}

/// Whether all pins are there and were made from the object that was just loaded.
fn is_same(place: &Place, fresh: &Ebpf) -> Result<bool, String> {
    for name in programs::PROGRAMS {
        let pinned =
            ProgramInfo::from_pin(place.pin(&format!("program-{name}"))).map_err(|e| full(name, &e))?;
        if pinned.tag() != programs::tag(fresh, name)? {
            return Ok(false);
        }
    }
    for name in programs::MAPS {
        let pinned =
            MapData::from_pin(place.pin(name)).and_then(|map| map.info()).map_err(|e| full(name, &e))?;
        let fresh = fresh.maps().find(|(of, _)| *of == name).ok_or("a map is missing")?.1;
        let fresh = map_data(fresh)?.info().map_err(|e| full(name, &e))?;
        let shape = |map: &aya::maps::MapInfo| (map.key_size(), map.value_size(), map.max_entries());
        if shape(&pinned) != shape(&fresh) {
            return Ok(false);
        }
    }
    for name in ["link-account", "link-look"] {
        sys::open_pin(&place.pin(name)).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(true)
}

/// Attaches the programs and pins everything; the links last, which makes a half of it no whole.
fn attach(place: &Place, ebpf: &mut Ebpf) -> Result<(), String> {
    let pin = |name: &str| place.pin(name);
    programs::sock_ops(ebpf)?.pin(pin("program-account")).map_err(|e| full("program-account", &e))?;
    programs::iterator(ebpf)?.pin(pin("program-look")).map_err(|e| full("program-look", &e))?;
    let sockets = ebpf.map("SOCKETS").ok_or("the object has no map SOCKETS")?;
    let sockets = map_data(sockets)?.fd().as_fd().try_clone_to_owned().map_err(|e| e.to_string())?;
    for name in programs::MAPS {
        take(ebpf, name)?.pin(pin(name)).map_err(|e| full(name, &e))?;
    }
    let look = programs::iterator(ebpf)?;
    let look = sys::link_iterator(look.fd().map_err(|e| full("look", &e))?.as_fd(), sockets.as_fd())
        .map_err(|e| format!("cannot link the program `look`: {e}"))?;
    sys::pin(look.as_fd(), &pin("link-look")).map_err(|e| format!("link-look: {e}"))?;
    let cgroup =
        std::fs::File::open(&place.cgroup).map_err(|e| format!("{}: {e}", place.cgroup.display()))?;
    let account = programs::sock_ops(ebpf)?;
    let id = account
        .attach(&cgroup, CgroupAttachMode::Single)
        .map_err(|e| full(&format!("cannot attach to {}", place.cgroup.display()), &e))?;
    let link = account.take_link(id).map_err(|e| full("link-account", &e))?;
    let link: FdLink = link.try_into().map_err(|e| full("link-account", &e))?;
    link.pin(pin("link-account")).map_err(|e| full("link-account", &e))?;
    Ok(())
}

fn messages(place: &Place) -> Option<Messages> {
    let messages = ProgramInfo::from_pin(place.pin("program-account"))
        .map_err(|e| e.to_string())
        .and_then(|info| Messages::of(info.id()));
    messages
        .map_err(|error| {
            // deploy/ebpf.conf does without: for one rare message the capability would be much.
            tracing::info!(
                error,
                "messages of the kernel half will not be seen: that takes CAP_SYS_ADMIN at the start"
            )
        })
        .ok()
}
