//! Splice: what an engine writes goes into the client's socket, without waking the gateway.
//!
//! * `bind`: sock_ops on the cgroup v2 root. Finds the engine's end of a connection that a gateway has marked, and puts it
//!   into ENGINES. Reads and writes BOUND and PAIRS, writes SLOTS. Runs when a connection is made.
//! * `splice`: sk_msg on ENGINES. Redirects one write, or passes it to the gateway. Reads CLIENTS and ALIVE, reads and
//!   writes BOUND and SLOTS. Runs each time an engine writes.
//!
//! Linux 6.6 and a self-test: sockmaps have broken in stable kernels. Nothing is pinned, so nothing outlives the gateway.
//! Without them every byte goes through the relay.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
use aya_ebpf::bindings::{
    BPF_ANY, BPF_F_MMAPABLE, BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB,
    BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, bpf_sock,
};
use aya_ebpf::btf_maps::{Array, LruHashMap, SkStorage, SockHash};
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_msg_pull_data, bpf_msg_redirect_hash, bpf_probe_read_kernel,
    bpf_sk_storage_get, bpf_sock_hash_update,
};
use aya_ebpf::macros::{btf_map, sk_msg, sock_ops};
use aya_ebpf::programs::{SkMsgContext, SockOpsContext};
use penstock_common::splice::{
    Bound, Buffer, MAX_WRITE, MIN_TAILED, Mark, Pair, Reason, SLOTS as SLOTS_MAX, Slot, TAIL, TAILS, whole,
};

use crate::ops::{local, netns, remote, sk, word};
use crate::tcp::tcp;

/// Marks of the gateway's own sockets, by socket.
#[btf_map]
static MARKS: SkStorage<Mark> = SkStorage::new();

/// From the client's end's last step of the handshake to the engine's; what never finds its engine on this host is pushed
/// out.
#[btf_map]
static PAIRS: LruHashMap<Pair, Mark, 4096> = LruHashMap::new();

#[btf_map]
static BOUND: SkStorage<Bound> = SkStorage::new();

/// Ends of engines, by cookie.
#[btf_map]
static ENGINES: SockHash<u64, SLOTS_MAX> = SockHash::new();

/// Sockets of clients, by cookie.
#[btf_map]
static CLIENTS: SockHash<u64, { SLOTS_MAX * 2 }> = SockHash::new();

#[btf_map]
static SLOTS: Array<Slot, SLOTS_MAX, { BPF_F_MMAPABLE as usize }> = Array::new();

/// When the gateway last showed life, CLOCK_MONOTONIC.
#[btf_map]
static ALIVE: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Offsets in the kernel's structures, set from its BTF at load.
#[unsafe(no_mangle)]
static REDIRECTED_TO_AT: u32 = 0;
#[unsafe(no_mangle)]
static WRITE_SEQ_AT: u32 = 0;
#[unsafe(no_mangle)]
static QUEUED_AT: u32 = 0;
#[unsafe(no_mangle)]
static LIMIT_AT: u32 = 0;

/// No offset in a write has more bits; the verifier wants to see it.
const MASK: u32 = MAX_WRITE - 1;

#[sock_ops]
pub fn bind(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => connected(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(&ctx),
        _ => {}
    }
    1
}

/// A connection of ours is answered. The last step of its handshake is not sent yet, so that the engine's end comes later.
#[inline(always)]
fn connected(ctx: &SockOpsContext) {
    let sk = sk(ctx);
    if sk.is_null() {
        return;
    }
    let mark = unsafe { bpf_sk_storage_get(at(&raw const MARKS), sk.cast(), core::ptr::null_mut(), 0) };
    let Some(mark) = (unsafe { mark.cast::<Mark>().as_ref() }) else { return };
    let ((client_ip, client_port), (engine_ip, engine_port)) = (local(ctx), remote(ctx));
    let (sent, received) = sequences(ctx);
    let pair = Pair::new((client_ip, client_port, sent), (engine_ip, engine_port, received), netns(ctx));
    let _ = PAIRS.insert(pair, *mark, BPF_ANY as u64);
}

/// An engine's end, if a pair says so.
#[inline(always)]
fn accepted(ctx: &SockOpsContext) {
    let ((engine_ip, engine_port), (client_ip, client_port)) = (local(ctx), remote(ctx));
    let (sent, received) = sequences(ctx);
    let pair = Pair::new((client_ip, client_port, received), (engine_ip, engine_port, sent), netns(ctx));
    let Some(mark) = (unsafe { PAIRS.get(pair) }) else { return };
    let mark = *mark;
    let _ = PAIRS.remove(pair);
    let Some(slot) = SLOTS.get_ptr_mut(mark.slot) else { return };
    let slot = unsafe { &mut *slot };
    if slot.wish.generation != mark.generation {
        return;
    }
    let sk = sk(ctx);
    if sk.is_null() {
        return;
    }
    let Some(bound) = bound(sk, BPF_SK_STORAGE_GET_F_CREATE) else { return };
    let mut cookie = unsafe { bpf_get_socket_cookie(ctx.ops.cast()) };
    *bound = Bound { generation: mark.generation, cookie, slot: mark.slot, first: sent, ..Bound::default() };
    let put = unsafe {
        bpf_sock_hash_update(ctx.ops, at(&raw const ENGINES), (&raw mut cookie).cast(), BPF_ANY as u64)
    };
    if put == 0 {
        slot.report.bound = mark.generation;
    } else {
        slot.report.held = mark.generation;
    }
}

/// The next sequence numbers, sent and received; right behind the SYNs here.
#[inline(always)]
fn sequences(ctx: &SockOpsContext) -> (u32, u32) {
    let ops = ctx.ops;
    unsafe { (word(&raw const (*ops).snd_nxt), word(&raw const (*ops).rcv_nxt)) }
}

#[sk_msg]
pub fn splice(ctx: SkMsgContext) -> u32 {
    let sk = unsafe { (*ctx.msg).__bindgen_anon_3.sk };
    if sk.is_null() {
        return SK_PASS;
    }
    let Some(bound) = bound(sk, 0) else { return SK_PASS };
    let Some(slot) = SLOTS.get_ptr_mut(bound.slot) else { return SK_PASS };
    let slot = unsafe { &mut *slot };
    let arm = unsafe { (&raw const slot.wish.arm).read_volatile() };
    if arm == 0 {
        return SK_PASS;
    }
    if bound.arm != arm {
        if !follow(bound, slot, arm) {
            return SK_PASS;
        }
    } else if slot.report.over != 0 {
        return SK_PASS;
    }
    match redirect(&ctx, sk, bound, slot) {
        Ok(()) => SK_PASS,
        Err(Not::Chosen(reason)) => {
            slot.report.over = reason as u32;
            SK_PASS
        }
        Err(Not::Fit(reason)) => {
            slot.report.over = reason as u32;
            // The choice cannot be taken back: chosen anew is the engine's own socket, which is to pass it on.
            let own = unsafe {
                bpf_msg_redirect_hash(ctx.msg, at(&raw const ENGINES), (&raw mut bound.cookie).cast(), 0)
            };
            if own == SK_PASS as i64 { SK_PASS } else { SK_DROP }
        }
    }
}

/// Takes a new wish over, if it is this connection's.
#[inline(always)]
fn follow(bound: &mut Bound, slot: &mut Slot, arm: u64) -> bool {
    // What was written before `arm` is read after it.
    barrier(slot);
    let wish = unsafe { (&raw const slot.wish).read_volatile() };
    if wish.arm != arm || wish.generation != bound.generation {
        return false;
    }
    bound.follow(&wish);
    slot.report.begin(&wish);
    barrier(slot);
    unsafe { (&raw mut slot.report.arm).write_volatile(wish.arm) };
    true
}

/// A full one.
#[inline(always)]
fn barrier(slot: &mut Slot) {
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(&raw mut slot.report.reserved, 1) };
}

enum Not {
    /// Nothing is chosen yet.
    Chosen(Reason),
    /// The client's socket is chosen, and must not be.
    Fit(Reason),
}

/// Chooses the client's socket for this write and books it.
#[inline(always)]
fn redirect(ctx: &SkMsgContext, sk: *mut bpf_sock, bound: &mut Bound, slot: &mut Slot) -> Result<(), Not> {
    let len = ctx.size();
    let now = unsafe { bpf_ktime_get_ns() };
    let sent = write_seq(sk).ok_or(Not::Chosen(Reason::Late))?.wrapping_sub(bound.first);
    let alive = ALIVE.get_ptr(0).map_or(0, |alive| unsafe { alive.read_volatile() });
    let report = &mut slot.report;
    bound.admits(sent, report.passed, len, now.saturating_sub(alive)).map_err(Not::Chosen)?;
    let mut data = (ctx.data(), ctx.data_end());
    if data.0 + len as usize > data.1 {
        // It lies in two pages, or in pages of others.
        unsafe { bpf_msg_pull_data(ctx.msg, 0, len, 0) };
        data = (ctx.data(), ctx.data_end());
    }
    let whole = whole(len, |offset| window(data, offset)).ok_or(Not::Chosen(Reason::Shape))?;
    let client = (&raw mut bound.client).cast();
    if unsafe { bpf_msg_redirect_hash(ctx.msg, at(&raw const CLIENTS), client, 0) } != SK_PASS as i64 {
        return Err(Not::Chosen(Reason::Gone));
    }
    let buffer = buffer(ctx).ok_or(Not::Fit(Reason::Gone))?;
    bound.fits(buffer, len).map_err(Not::Fit)?;
    bound.expected = buffer.next.wrapping_add(len);
    bound.begun = 1;
    report.book(len, whole, now);
    if len >= MIN_TAILED {
        keep_tail(slot, data.0, len);
    }
    Ok(())
}

/// Eight bytes of the write. In one load, however they lie: the kernel's own sources rely on that where it has sockmaps.
#[inline(always)]
fn window((data, end): (usize, usize), offset: u32) -> Option<u64> {
    // For the verifier: `whole` stays below the write's length.
    let from = data + (offset & MASK) as usize;
    if from + 8 > end {
        return None;
    }
    Some(unsafe { (from as *const u64).read_volatile() })
}

/// How many bytes, modulo 2^32, have been put into a socket's send queue, from a random number on.
#[inline(always)]
fn write_seq(sk: *mut bpf_sock) -> Option<u32> {
    Some(tcp(sk.cast())?.field(&raw const WRITE_SEQ_AT))
}

/// The state of the socket that was chosen for this write.
#[inline(always)]
fn buffer(ctx: &SkMsgContext) -> Option<Buffer> {
    // The context is the kernel's own `struct sk_msg`; its view for programs hides the choice.
    let chosen: u64 = peek(ctx.msg as u64, &raw const REDIRECTED_TO_AT)?;
    Some(Buffer {
        limit: peek(chosen, &raw const LIMIT_AT)?,
        queued: peek(chosen, &raw const QUEUED_AT)?,
        next: peek(chosen, &raw const WRITE_SEQ_AT)?,
    })
}

#[inline(always)]
fn keep_tail(slot: &mut Slot, data: usize, len: u32) {
    let n = slot.report.tailed % TAILS as u32;
    let kept = if len > TAIL as u32 { TAIL as u32 } else { len };
    let from = data + ((len - kept) & MASK) as usize;
    if let (Some(tail), Some(tail_len)) =
        (slot.tails.get_mut(n as usize), slot.report.tail_len.get_mut(n as usize))
    {
        unsafe { bpf_probe_read_kernel(tail.as_mut_ptr().cast(), kept, from as *const _) };
        *tail_len = kept;
        slot.report.tailed += 1;
    }
}

#[inline(always)]
fn bound(sk: *mut bpf_sock, flags: u32) -> Option<&'static mut Bound> {
    let bound =
        unsafe { bpf_sk_storage_get(at(&raw const BOUND), sk.cast(), core::ptr::null_mut(), flags as u64) };
    unsafe { bound.cast::<Bound>().as_mut() }
}

/// Reads a field of a kernel structure at an offset that is known since load.
#[inline(always)]
fn peek<T: Copy + Default>(base: u64, offset: *const u32) -> Option<T> {
    let mut value = T::default();
    let read = unsafe {
        let from = base + offset.read_volatile() as u64;
        bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, from as *const _)
    };
    (read == 0).then_some(value)
}

#[inline(always)]
fn at<T>(map: *const T) -> *mut core::ffi::c_void {
    map.cast_mut().cast()
}
