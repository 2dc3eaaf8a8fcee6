//! Interception: a process of this host that dials a virtual address reaches the gateway, and believes it reached the address.
//!
//! * `connect4`, `connect6`: cgroup/connect, on the cgroup v2 root. Linux 5.7 (cookies and cgroups of the caller). Read
//!   RULES and CONTROL, write KEPT, and answer who asks in CONTROL. Run once for each connect of the host.
//! * `peer4`, `peer6`: cgroup/getpeername, there too. Linux 5.8. Read KEPT.
//!
//! Without them a virtual address cannot be served: the gateway refuses to start on one, and says why.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock_addr};
use aya_ebpf::btf_maps::{Array, HashMap, SkStorage};
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_pid_tgid, bpf_get_netns_cookie,
    bpf_get_socket_cookie, bpf_sk_storage_get,
};
use aya_ebpf::macros::{btf_map, cgroup_sock_addr};
use aya_ebpf::programs::SockAddrContext;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use penstock_common::account::{Ip, mapped};
use penstock_common::intercept::{Control, DIALLED, Dialled, Kept, Target};

use crate::ops::word;

#[btf_map]
static RULES: HashMap<Dialled, Target, DIALLED> = HashMap::new();

#[btf_map]
static CONTROL: Array<Control, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

#[btf_map]
static KEPT: SkStorage<Kept> = SkStorage::new();

const REFUSE: i32 = 0;
const ALLOW: i32 = 1;
const IPPROTO_TCP: u32 = 6;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    match decide(&ctx, address4(&ctx)) {
        Verdict::Leave => ALLOW,
        Verdict::Refuse => REFUSE,
        Verdict::Redirect(target) => {
            write4(&ctx, &target);
            ALLOW
        }
    }
}

/// Also for IPv4 by a mapped address.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    match decide(&ctx, address6(&ctx)) {
        Verdict::Leave => ALLOW,
        Verdict::Refuse => REFUSE,
        Verdict::Redirect(target) => {
            write6(&ctx, &target);
            ALLOW
        }
    }
}

#[cgroup_sock_addr(getpeername4)]
pub fn peer4(ctx: SockAddrContext) -> i32 {
    if let Some(dialled) = kept(&ctx, 0).and_then(|kept| kept.shown(&address4(&ctx))) {
        write4(&ctx, &dialled);
    }
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub fn peer6(ctx: SockAddrContext) -> i32 {
    if let Some(dialled) = kept(&ctx, 0).and_then(|kept| kept.shown(&address6(&ctx))) {
        write6(&ctx, &dialled);
    }
    ALLOW
}

enum Verdict {
    Leave,
    /// It only asked.
    Refuse,
    Redirect(Target),
}

#[inline(always)]
fn decide(ctx: &SockAddrContext, dialled: Target) -> Verdict {
    if word(unsafe { &raw const (*ctx.sock_addr).protocol }) != IPPROTO_TCP {
        return Verdict::Leave;
    }
    let Some(control) = CONTROL.get_ptr_mut(0).and_then(|control| unsafe { control.as_mut() }) else {
        return Verdict::Leave;
    };
    let process = unsafe { bpf_get_current_pid_tgid() } >> 32;
    if control.asker != 0 && unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) } == control.asker {
        control.asked_by = process;
        control.seen_ip = dialled.ip;
        control.seen_port = dialled.port as u64;
        control.answered = control.asker;
        return Verdict::Refuse;
    }
    let netns = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) };
    let key = Dialled { ip: dialled.ip, netns, port: dialled.port, reserved: [0; 3] };
    let Some(target) = (unsafe { RULES.get(key) }).copied() else { return Verdict::Leave };
    if !control.admits(process, |level| unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) }) {
        return Verdict::Leave;
    }
    // Where it cannot be kept, getpeername tells the truth.
    if let Some(kept) = kept(ctx, BPF_SK_STORAGE_GET_F_CREATE) {
        *kept = Kept { dialled, target };
    }
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut control.intercepted, 1) };
    Verdict::Redirect(target)
}

#[inline(always)]
fn kept(ctx: &SockAddrContext, flags: u32) -> Option<&mut Kept> {
    let sk = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if sk.is_null() {
        return None;
    }
    let map = (&raw const KEPT).cast_mut().cast();
    let kept = unsafe { bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags as u64) };
    unsafe { kept.cast::<Kept>().as_mut() }
}

#[inline(always)]
fn address4(ctx: &SockAddrContext) -> Target {
    let ip = word(unsafe { &raw const (*ctx.sock_addr).user_ip4 });
    target(ctx, mapped(ip.to_ne_bytes()))
}

#[inline(always)]
fn address6(ctx: &SockAddrContext) -> Target {
    let first: *const u32 = unsafe { &raw const (*ctx.sock_addr).user_ip6 }.cast();
    let words = [0, 1, 2, 3].map(|n| word(first.wrapping_add(n)));
    target(ctx, unsafe { core::mem::transmute::<[u32; 4], Ip>(words) })
}

#[inline(always)]
fn target(ctx: &SockAddrContext, ip: Ip) -> Target {
    let port = word(unsafe { &raw const (*ctx.sock_addr).user_port });
    Target { ip, port: u16::from_be(port as u16), reserved: 0 }
}

/// The address must be one of IPv4, mapped.
#[inline(always)]
fn write4(ctx: &SockAddrContext, target: &Target) {
    let [.., a, b, c, d] = target.ip;
    write(unsafe { &raw mut (*ctx.sock_addr).user_ip4 }, u32::from_ne_bytes([a, b, c, d]));
    write_port(ctx, target.port);
}

#[inline(always)]
fn write6(ctx: &SockAddrContext, target: &Target) {
    let first: *mut u32 = unsafe { &raw mut (*ctx.sock_addr).user_ip6 }.cast();
    let [a, b, c, d] = unsafe { core::mem::transmute::<Ip, [u32; 4]>(target.ip) };
    write(first, a);
    write(first.wrapping_add(1), b);
    write(first.wrapping_add(2), c);
    write(first.wrapping_add(3), d);
    write_port(ctx, target.port);
}

#[inline(always)]
fn write_port(ctx: &SockAddrContext, port: u16) {
    let context: *mut bpf_sock_addr = ctx.sock_addr;
    write(unsafe { &raw mut (*context).user_port }, port.to_be() as u32);
}

/// Volatile for the reasons of [`word`].
#[inline(always)]
fn write(to: *mut u32, value: u32) {
    unsafe { to.write_volatile(value) };
}
