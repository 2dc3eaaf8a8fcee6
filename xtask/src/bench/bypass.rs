//! The case `bypass`.
use anyhow::Result;
use super::Bench;
use super::report::Results;
pub(super) const ABOUT: &str = "two equal endpoints, 40 % of the traffic goes past Penstock onto one; what the kernel's counting costs";
pub(super) async fn run(_bench: &Bench, _results: &mut Results) -> Result<()> { Ok(()) }
