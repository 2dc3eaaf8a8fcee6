//! Penstock: the gateway in front of the GPUs of a Linux host.
//!
//! ARCHITECTURE.md is the map. Two bands: CONTROL may block, allocate and lock on a runtime of its own; DATA
//! serves requests, one runtime per worker, without locks. They meet in [`snapshot`], and only `app` knows both.

#![forbid(unsafe_code)]

pub mod admin;
pub mod admit;
pub mod app;
pub mod check;
pub mod cli;
pub mod commands;
pub mod config;
pub mod discovery;
pub mod doctor;
pub mod endpoint;
pub mod engines;
pub mod explain;
pub mod failure;
pub mod forward;
pub mod gate;
pub mod inspect;
pub mod kernel;
pub mod ledger;
pub mod lifecycle;
pub mod listener;
pub mod log;
pub mod pick;
pub mod probe;
pub mod relay;
pub mod request;
pub mod route;
pub mod scan;
pub mod snapshot;
pub mod upload;
pub mod worker;
