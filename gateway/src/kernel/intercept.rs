//! The user half of interception: connects of this host's processes to virtual addresses come to sockets of ours.
//!
//! The programs run for each connect of the host, at the root of cgroup v2; whom they mean is in words that both halves map,
//! so that it can follow cgroups that come and go. They are meant for this network namespace alone: another one has another
//! loopback. Nothing is pinned: killed or not, the gateway takes them with it, and connects go where they went before.
//!
//! Asking is a connect that the program answers and refuses: so the gateway learns how the host numbers its process, whose
//! own connects are left alone, and whether somebody else's program redirects an address already.

mod proof;
mod scope;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use penstock_common::intercept::{Cgroup, Control, Dialled, EXCEPT, Target};
use socket2::{Domain, Protocol, Socket, Type};

use self::scope::Cgroups;
pub use self::scope::{Scope, cgroup};
use super::account::Place;
use super::object::{self, full, map_data, of_map, take};
use super::sys::{self, Pod, Words};
use super::{probe, wire};

/// Those that hide an intercepted address before those that intercept it.
const PROGRAMS: [&str; 4] = ["peer4", "peer6", "connect4", "connect6"];

/// The loaded programs and their maps.
pub struct Intercept {
    ebpf: Ebpf,
    rules: HashMap<MapData, Pod<Dialled>, Pod<Target>>,
    control: Words,
    cgroups: Cgroups,
    netns: u64,
    dialled: BTreeSet<SocketAddr>,
    /// The gateway before or after this one.
    other: Option<u32>,
}

impl Intercept {
    /// Loads the programs, proves them, and attaches them for the processes of `scope`. Nothing is intercepted yet.
    ///
    /// # Errors
    /// When this host or this process cannot, with what is missing.
    pub fn load(scope: Scope) -> Result<Self, String> {
        probe::capabilities()?;
        if scope.except.len() > EXCEPT {
            return Err(format!(
                "{} cgroups are to be left alone, and at most {EXCEPT} can be",
                scope.except.len()
            ));
        }
        let root = Place::cgroup()?;
        let mut ebpf = object::load(object::loader(&[]).btf(None))?;
        let rules = take(&mut ebpf, "RULES")?.try_into().map_err(|e| full("RULES", &e))?;
        let control = take(&mut ebpf, "CONTROL")?;
        let control = Words::map(map_data(&control)?.fd().as_fd(), size_of::<Control>() / 8)
            .map_err(|e| e.to_string())?;
        let netns = sys::netns_cookie().map_err(|e| e.to_string())?;
        let cgroup = File::open(&root).map_err(|e| format!("{}: {e}", root.display()))?;
        for name in PROGRAMS {
            let program = program(&mut ebpf, name)?;
            program.load().map_err(|e| full(&format!("the kernel refuses the program `{name}`"), &e))?;
            program
                .attach(&cgroup, CgroupAttachMode::Single)
                .map_err(|e| full(&format!("cannot attach `{name}` to {}", root.display()), &e))?;
        }
        // The programs hold their own, and those of others are not loaded here.
        let others: Vec<String> = ebpf.maps().map(|(name, _)| name.to_owned()).collect();
        others.iter().for_each(|name| drop(ebpf.take_map(name)));
        let cgroups = Cgroups::new(root, scope);
        let mut intercept =
            Self { ebpf, rules, control, cgroups, netns, dialled: BTreeSet::new(), other: None };
        intercept.prove().map_err(|e| format!("it does not intercept: {e}"))?;
        intercept.follow();
        Ok(intercept)
    }

    /// Where a connect of ours gets before our own program: elsewhere than `dialled`, if somebody else's redirects it.
    ///
    /// # Errors
    /// When the program is not asked: somebody has detached it, or there is no such address family.
    pub fn seen(&self, dialled: SocketAddr) -> io::Result<SocketAddr> {
        let asker = Socket::new(Domain::for_address(dialled), Type::STREAM, Some(Protocol::TCP))?;
        asker.set_nonblocking(true)?;
        let cookie = sys::socket_option_u64(asker.as_fd(), libc::SO_COOKIE)?;
        self.set(offset_of!(Control, asker), cookie);
        // Refused by the program, which says what it saw.
        let _ = asker.connect(&dialled.into());
        self.set(offset_of!(Control, asker), 0);
        if self.get(offset_of!(Control, answered)) != cookie {
            return Err(io::Error::other("the program does not run for a connect of our own"));
        }
        let ip = offset_of!(Control, seen_ip);
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&self.get(ip).to_ne_bytes());
        octets[8..].copy_from_slice(&self.get(ip + 8).to_ne_bytes());
        let port = self.get(offset_of!(Control, seen_port)) as u16;
        Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical(), port))
    }

    /// Has connects to `dialled` come to `target`, a loopback address, from now on.
    ///
    /// # Errors
    /// When there are as many already as there can be.
    pub fn redirect(&mut self, dialled: SocketAddr, target: SocketAddr) -> io::Result<()> {
        let (ip, port) = wire(&target);
        self.rules.insert(self.key(dialled), Pod(Target { ip, port, reserved: 0 }), 0).map_err(of_map)?;
        self.dialled.insert(dialled);
        Ok(())
    }

    /// Leaves connects to an address alone from now on.
    pub fn forget(&mut self, dialled: SocketAddr) {
        if self.dialled.remove(&dialled) {
            // What is not there need not be removed.
            let _ = self.rules.remove(&self.key(dialled));
        }
    }

    /// Leaves all connects alone. Clients of earlier ones still see the address that they dialled.
    pub fn forget_all(&mut self) {
        for dialled in std::mem::take(&mut self.dialled) {
            let _ = self.rules.remove(&self.key(dialled));
        }
    }

    /// Leaves the connects of another gateway alone, too, as long as its process lives: the engines of both may be at an
    /// address that both have intercepted.
    pub fn spare(&mut self, process: Option<u32>) {
        // A process of a container cannot know how the host numbers another one.
        let is_of_host = self.get(offset_of!(Control, own)) == u64::from(std::process::id());
        self.other = process.filter(|_| is_of_host);
        self.set(offset_of!(Control, other), self.other.map_or(0, u64::from));
    }

    /// Looks up who is meant and who is not: a cgroup may have come, gone, or been made anew, and the other gateway ended.
    pub fn follow(&mut self) {
        if self.other.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            self.spare(None);
        }
        let (within, except) = self.cgroups.look();
        self.mean(within, &except);
    }

    /// Connects that were intercepted so far.
    #[must_use]
    pub fn intercepted(&self) -> u64 {
        self.get(offset_of!(Control, intercepted))
    }

    /// [`Counts::rehearse`](super::Counts::rehearse).
    ///
    /// # Errors
    /// As there.
    pub fn rehearse(&mut self) -> io::Result<()> {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        self.redirect(nowhere, nowhere)?;
        self.forget(nowhere);
        self.seen(SocketAddr::from(([127, 0, 0, 1], 9))).map(drop)
    }

    fn mean(&self, within: Cgroup, except: &[Cgroup]) {
        let places = (0..).map(|n| offset_of!(Control, except) + n * size_of::<Cgroup>());
        let excepted = places.zip(except);
        for (at, cgroup) in [(offset_of!(Control, within), &within)].into_iter().chain(excepted) {
            // None, while it is half of each.
            if self.get(at) != cgroup.id {
                self.set(at, 0);
            }
            self.set(at + 8, cgroup.level);
            self.set(at, cgroup.id);
        }
    }

    fn key(&self, dialled: SocketAddr) -> Pod<Dialled> {
        let (ip, port) = wire(&dialled);
        Pod(Dialled { ip, netns: self.netns, port, reserved: [0; 3] })
    }

    /// A word of [`Control`], by its offset in bytes.
    fn get(&self, at: usize) -> u64 {
        self.control.get(at / 8).map_or(0, |word| word.load(Relaxed))
    }

    fn set(&self, at: usize, value: u64) {
        if let Some(word) = self.control.get(at / 8) {
            word.store(value, Relaxed);
        }
    }
}

/// Has the programs verified and proved, for connects of nobody else, and drops them again.
pub(super) fn verified() -> Result<String, String> {
    let mut intercept = Intercept::load(Scope::default())?;
    let tag = |name: &str| -> Result<String, String> {
        let info = program(&mut intercept.ebpf, name)?.info().map_err(|e| full(name, &e))?;
        Ok(format!("{name} {:016x}", info.tag()))
    };
    let tags: Vec<String> = PROGRAMS.into_iter().map(tag).collect::<Result<_, _>>()?;
    Ok(format!("the verifier accepts them, and connects go where they send them: {}", tags.join(", ")))
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut CgroupSockAddr, String> {
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object has no program `{name}`"))?;
    program.try_into().map_err(|e| full(&format!("the program `{name}`"), &e))
}
