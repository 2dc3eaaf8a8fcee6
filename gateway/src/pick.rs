//! Which endpoint of a pool gets the next request.
//!
//! A picker is one small file with one type. It reads live counters only, takes no lock and allocates nothing.

#![forbid(unsafe_code)]

mod hot_cold;
#[cfg(test)]
mod simulation;

use std::sync::Arc;

use crate::endpoint::{Endpoint, Lease};

pub use hot_cold::{HotCold, is_hot};

pub trait Picker: Send + Sync {
    /// Chooses among the endpoints that this request has not tried, and reserves there at once, so that a burst
    /// sees itself. Only a request's `first` try may be the trial of an ejected endpoint. `None`: all were tried,
    /// or there are none.
    fn pick(&self, endpoints: &[Arc<Endpoint>], tried: &[Arc<Endpoint>], first: bool) -> Option<Lease>;
}
