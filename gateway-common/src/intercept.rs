//! Interception of connects to virtual addresses: keys, values and limits of the kernel's maps, and whose connects are
//! meant. The kernel half and the user half compile the same lines.

use crate::account::Ip;

/// Addresses that one gateway can intercept.
pub const DIALLED: usize = 256;
/// Cgroups that can be left out.
pub const EXCEPT: usize = 8;

/// An address as a process of one network namespace dials it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dialled {
    pub ip: Ip,
    /// The namespace's cookie: another one has another loopback, and cannot reach the gateway's.
    pub netns: u64,
    pub port: u16,
    pub reserved: [u16; 3],
}

/// An address and a port, in host order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub ip: Ip,
    pub port: u16,
    pub reserved: u16,
}

/// What is kept with a socket whose connect was intercepted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub dialled: Target,
    pub target: Target,
}

impl Kept {
    /// The peer as the client knows it, of a socket whose peer is `peer`.
    ///
    /// A socket may have been connected again since, past the gateway.
    #[must_use]
    #[inline(always)]
    pub fn shown(&self, peer: &Target) -> Option<Target> {
        if *peer == self.target { Some(self.dialled) } else { None }
    }
}

/// A cgroup: all of the processes in it and below.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// 0: none.
    pub id: u64,
    /// Cgroups above it.
    pub level: u64,
}

impl Cgroup {
    /// Whether a process is in it. `ancestor`: the cgroup of the process at a level, 0 where it has none.
    #[must_use]
    #[inline(always)]
    pub fn holds(&self, ancestor: impl FnOnce(u64) -> u64) -> bool {
        self.id != 0 && ancestor(self.level) == self.id
    }
}

/// What the user half tells the programs, and what they answer: one value of an array that it maps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The cookie of a socket that asks and does not connect; 0: none.
    pub asker: u64,
    /// The gateway's own process, as the host numbers it: its connects are left alone. 0: not known.
    pub own: u64,
    /// The gateway before or after it, while both serve. 0: none.
    pub other: u64,
    /// Whose connects are intercepted.
    pub within: Cgroup,
    /// And whose are not, though they are within.
    pub except: [Cgroup; EXCEPT],
    /// Connects that were intercepted.
    pub intercepted: u64,
    /// The asker that was answered last.
    pub answered: u64,
    /// Its process.
    pub asked_by: u64,
    /// What it dialled, as programs before ours have left it.
    pub seen_ip: Ip,
    pub seen_port: u64,
}

impl Control {
    /// Whether connects of a process are meant. `ancestor` as for [`Cgroup::holds`].
    #[must_use]
    #[inline(always)]
    pub fn admits(&self, process: u64, ancestor: impl Fn(u64) -> u64) -> bool {
        if process == self.own || process == self.other || !self.within.holds(&ancestor) {
            return false;
        }
        !self.except.iter().any(|cgroup| cgroup.holds(&ancestor))
    }
}

#[cfg(test)]
mod tests;
