//! Penstock: the gateway in front of the GPUs of a Linux host.
//!
//! ARCHITECTURE.md is the map. Two bands: CONTROL may block, allocate and lock on a runtime of its own; DATA
//! serves requests, one runtime per worker, without locks. They meet in `snapshot`, and only `app` knows both.

// Only `kernel::sys` and `scan::simd` allow it.
#![deny(unsafe_code)]
#![allow(
    unreachable_pub,
    reason = "`pub` says what a module offers to its neighbours; only those below are public"
)]

mod admin;
mod admit;
mod alarm;
pub mod app;
mod check;
pub mod cli;
pub mod commands;
mod config;
mod discovery;
pub mod doctor;
mod endpoint;
mod engines;
mod explain;
mod failure;
mod forward;
mod gate;
mod inspect;
pub mod kernel;
mod ledger;
mod lifecycle;
mod listener;
pub mod log;
mod pick;
mod probe;
mod relay;
mod request;
mod route;
pub mod scan;
mod snapshot;
mod takeover;
mod upload;
mod worker;
