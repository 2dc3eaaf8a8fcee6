//! No proxy: what load and engines cost by themselves, and the latency that others add to.

use super::{Packages, Peer};

pub(super) const PEER: Peer = Peer {
    name: "direct",
    about: "no proxy: the load asks the engines themselves",
    packages: Packages::Ours,
    version: || Some(String::new()),
    command: |_| Ok(None),
};
