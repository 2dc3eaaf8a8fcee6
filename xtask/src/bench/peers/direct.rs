//! No proxy: what load and engines cost by themselves, and the latency that others add to.

use super::{Packages, Peer};

pub(super) fn peer() -> Peer {
    Peer {
        name: "direct".to_owned(),
        about: "no proxy: the load asks the engines themselves",
        packages: Packages::Ours,
        splices: false,
        version: Box::new(|| Some(String::new())),
        command: Box::new(|_| Ok(None)),
    }
}
