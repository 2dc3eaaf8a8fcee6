//! What the user half and the kernel half of Penstock share.
//!
//! Everything here is pure and `no_std`: it compiles into the gateway and into eBPF programs alike,
//! and is tested and fuzzed on the host.
#![no_std]
#![forbid(unsafe_code)]

pub mod account;
pub mod framing;
pub mod intercept;
pub mod splice;
pub mod steer;
