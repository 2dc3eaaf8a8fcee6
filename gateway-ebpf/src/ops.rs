//! What programs of sock_ops read of their context.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::programs::SockOpsContext;
use penstock_common::account::{Ip, mapped};

const AF_INET6: u32 = 10;

#[inline(always)]
pub fn sk(ctx: &SockOpsContext) -> *mut bpf_sock {
    unsafe { (*ctx.ops).__bindgen_anon_2.sk }
}

#[inline(always)]
pub fn netns(ctx: &SockOpsContext) -> u64 {
    unsafe { bpf_get_netns_cookie(ctx.ops.cast()) }
}

#[inline(always)]
pub fn local(ctx: &SockOpsContext) -> (Ip, u16) {
    let ops = ctx.ops;
    let (four, six) = unsafe { (word(&raw const (*ops).local_ip4), words(&raw const (*ops).local_ip6)) };
    let port = word(unsafe { &raw const (*ops).local_port });
    (if is_v6(ctx) { v6(six) } else { mapped(four.to_ne_bytes()) }, port as u16)
}

#[inline(always)]
pub fn remote(ctx: &SockOpsContext) -> (Ip, u16) {
    let ops = ctx.ops;
    let (four, six) = unsafe { (word(&raw const (*ops).remote_ip4), words(&raw const (*ops).remote_ip6)) };
    // In network order, unlike the local one.
    let port = u32::from_be(word(unsafe { &raw const (*ops).remote_port }));
    (if is_v6(ctx) { v6(six) } else { mapped(four.to_ne_bytes()) }, port as u16)
}

/// An IPv6 socket that speaks IPv6, and not IPv4 by a mapped address.
#[inline(always)]
fn is_v6(ctx: &SockOpsContext) -> bool {
    let family = word(unsafe { &raw const (*ctx.ops).family });
    let [a, b, c, _] = words(unsafe { &raw const (*ctx.ops).remote_ip6 });
    family == AF_INET6 && !(a == 0 && b == 0 && c == 0xffff_u32.to_be())
}

/// Four words of the context.
#[inline(always)]
fn words(of: *const [u32; 4]) -> [u32; 4] {
    let first: *const u32 = of.cast();
    [word(first), word(first.wrapping_add(1)), word(first.wrapping_add(2)), word(first.wrapping_add(3))]
}

/// One word of the context. Volatile, and read before any choice: the verifier refuses the narrower loads and the
/// chosen addresses that the compiler would make of it.
#[inline(always)]
pub fn word(of: *const u32) -> u32 {
    unsafe { of.read_volatile() }
}

#[inline(always)]
fn v6(words: [u32; 4]) -> Ip {
    unsafe { core::mem::transmute(words) }
}
