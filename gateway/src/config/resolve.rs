//! What refers to what: Gateways to classes, routes to listeners, destinations to pools, policies to targets.
//! Each step writes the conditions that Kubernetes would write and hands on only what holds.

pub(crate) mod board;
pub(crate) mod gateways;
pub(crate) mod models;
pub(crate) mod policies;
pub(crate) mod references;
pub(crate) mod routes;
