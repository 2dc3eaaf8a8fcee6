//! Penstock: the gateway in front of the GPUs of a Linux host.
//!
//! ARCHITECTURE.md is the map. Two bands: CONTROL may block, allocate and lock on a runtime of its own; DATA
//! serves requests, one runtime per worker, without locks. They meet in [`snapshot`], and only `app` knows both.

pub mod endpoint;
pub mod failure;
pub mod ledger;
pub mod scan;
pub mod snapshot;
