//! The kernel half of Penstock: one file per program, with the same name as its user half in `gateway/src/kernel/`.
#![no_std]
#![no_main]
// The atomic add of i64: `AtomicI64` has none on this target, which lacks compare-and-swap.
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "as above")]

mod account;
mod intercept;
mod ops;
mod splice;
mod steer;
mod tcp;

/// Kernels give the helpers that we need only to programs that say they are GPL-compatible.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this could be reached.
    loop {}
}
