//! The address table: which addresses the programs count, and under which slot; shared by the host's gateways.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;

use aya::maps::MapError;
use penstock_common::account::{ENDPOINTS, Entry, Key, OWNERS, Side, row};

use super::programs;
use crate::kernel::sys::{Pod, Rows};
use crate::kernel::wire;

/// Changed under the lock of the pins only.
pub(super) struct Table {
    map: programs::Table,
    /// This gateway's bit in `Entry::wanted_by`.
    bit: u32,
    netns: u64,
    /// The slots of what `track` was told last, in its order; `None`: all are taken.
    slots: Vec<Option<u32>>,
}

impl Table {
    /// Takes the table over, and out of it what only gateways wanted that are no longer alive.
    pub(super) fn new(map: programs::Table, number: u8, netns: u64, alive: u32) -> io::Result<Self> {
        let mut table = Self { map, bit: 1 << number, netns, slots: Vec::new() };
        for (key, entry) in table.entries()? {
            let dead = entry.wanted_by & !alive;
            // Taken over until the first `track`, so that an endpoint which stays keeps its slot and what is booked to it.
            let adopted = if dead == 0 { 0 } else { table.bit };
            table.put(key, Entry { wanted_by: entry.wanted_by & alive | adopted, ..entry })?;
        }
        Ok(table)
    }

    /// Has these addresses counted, as far as there are slots, and no others as far as this gateway goes; answers with
    /// their slots.
    pub(super) fn track(&mut self, endpoints: &[SocketAddr], rows: &Rows) -> io::Result<Vec<Option<u32>>> {
        let keys: Vec<Key> = endpoints.iter().map(|address| self.key(address)).collect();
        let wanted: HashSet<Key> = keys.iter().copied().collect();
        let mut entries: HashMap<Key, Entry> = self.entries()?.into_iter().collect();
        let slots_wanted: HashSet<u32> =
            entries.iter().filter(|(key, _)| wanted.contains(key)).map(|(_, entry)| entry.slot).collect();
        for (key, mut entry) in std::mem::take(&mut entries) {
            if !slots_wanted.contains(&entry.slot) {
                entry.wanted_by &= !self.bit;
            }
            // Unwanted but with connections: kept, so that the endpoint finds its slot again if it comes back.
            if entry.wanted_by != 0 || !is_quiet(entry.slot, rows) {
                self.map.insert(Pod(key), Pod(entry), 0).map_err(io::Error::other)?;
                entries.insert(key, entry);
            } else {
                self.map.remove(&Pod(key)).map_err(io::Error::other)?;
            }
        }
        let mut used: HashSet<u32> = entries.values().map(|entry| entry.slot).collect();
        let mut slots = Vec::with_capacity(keys.len());
        for key in keys {
            let known = entries.get(&key).copied();
            let Some(mut entry) = known.or_else(|| Some(Entry { slot: free(&used, rows)?, wanted_by: 0 }))
            else {
                slots.push(None);
                continue;
            };
            entry.wanted_by |= self.bit;
            self.put(key, entry)?;
            entries.insert(key, entry);
            used.insert(entry.slot);
            slots.push(Some(entry.slot));
        }
        self.slots.clone_from(&slots);
        Ok(slots)
    }

    /// Has these ports counted on every local address, each for one tracked endpoint; and no others.
    pub(super) fn listen_anywhere(&mut self, ports: &[(u16, usize)]) -> io::Result<()> {
        let wanted: HashMap<Key, u32> = ports
            .iter()
            .filter_map(|(port, endpoint)| {
                Some((Key::any(*port, self.netns), (*self.slots.get(*endpoint)?)?))
            })
            .collect();
        let entries: HashMap<Key, Entry> = self.entries()?.into_iter().collect();
        for (key, entry) in &entries {
            if key.ip == [0; 16] && entry.wanted_by & self.bit != 0 && wanted.get(key) != Some(&entry.slot) {
                self.put(*key, Entry { wanted_by: entry.wanted_by & !self.bit, ..*entry })?;
            }
        }
        for (key, slot) in wanted {
            match entries.get(&key) {
                // Another gateway leads the port to another endpoint: first come, first counted.
                Some(entry) if entry.slot != slot && entry.wanted_by & !self.bit != 0 => {}
                Some(entry) if entry.slot == slot && entry.wanted_by & self.bit != 0 => {}
                Some(entry) if entry.slot == slot => {
                    self.put(key, Entry { slot, wanted_by: entry.wanted_by | self.bit })?;
                }
                _ => self.put(key, Entry { slot, wanted_by: self.bit })?,
            }
        }
        Ok(())
    }

    /// [`rehearse`] on this table.
    pub(super) fn rehearse(&mut self) -> io::Result<()> {
        rehearse(&mut self.map)
    }

    fn key(&self, address: &SocketAddr) -> Key {
        let (ip, port) = wire(address);
        Key::new(ip, port, self.netns)
    }

    fn entries(&self) -> io::Result<Vec<(Key, Entry)>> {
        let entries: Result<Vec<_>, _> = self.map.iter().collect();
        Ok(entries.map_err(io::Error::other)?.into_iter().map(|(key, entry)| (key.0, entry.0)).collect())
    }

    fn put(&mut self, key: Key, entry: Entry) -> io::Result<()> {
        if entry.wanted_by == 0 {
            self.map.remove(&Pod(key)).map_err(io::Error::other)
        } else {
            self.map.insert(Pod(key), Pod(entry), 0).map_err(io::Error::other)
        }
    }
}

/// The calls that a [`Table`] makes, to no effect: an address that no endpoint has is looked for and taken out.
pub(super) fn rehearse(map: &mut programs::Table) -> io::Result<()> {
    let nobody = Pod(Key { ip: [0xff; 16], netns: u64::MAX, port: 0, reserved: [0; 3] });
    map.keys().next().transpose().map_err(of_kernel)?;
    let absent = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    match map.remove(&nobody).map_err(of_kernel) {
        Err(e) if !absent(&e) => Err(e),
        _ => Ok(()),
    }
}

/// What the kernel said, without aya's words around it.
fn of_kernel(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        error => io::Error::other(error),
    }
}

/// A slot that no address has and no open connection is booked to; its rows start from nothing.
fn free(used: &HashSet<u32>, rows: &Rows) -> Option<u32> {
    let slot = (0..ENDPOINTS as u32).find(|slot| !used.contains(slot) && is_quiet(*slot, rows))?;
    for cpu in 0..rows.cpus() {
        for (side, owner) in places() {
            rows.clear(row(cpu, slot, side as u8, owner));
        }
    }
    Some(slot)
}

fn is_quiet(slot: u32, rows: &Rows) -> bool {
    places().all(|(side, owner)| rows.sum(slot, side, owner).open == 0)
}

fn places() -> impl Iterator<Item = (Side, u8)> {
    [Side::Active, Side::Passive]
        .into_iter()
        .flat_map(|side| (0..OWNERS as u8).map(move |owner| (side, owner)))
}
