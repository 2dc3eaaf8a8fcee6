//! Penstock: the gateway in front of the GPUs of a Linux host.
//!
//! ARCHITECTURE.md is the map. Two bands: CONTROL may block, allocate and lock on a runtime of its own; DATA
//! serves requests, one runtime per worker, without locks. They meet in [`snapshot`], and only `app` knows both.

pub mod admit;
pub mod endpoint;
pub mod explain;
pub mod failure;
pub mod forward;
pub mod gate;
pub mod inspect;
pub mod ledger;
pub mod listener;
pub mod pick;
pub mod relay;
pub mod request;
pub mod route;
pub mod scan;
pub mod snapshot;
pub mod upload;
pub mod worker;
