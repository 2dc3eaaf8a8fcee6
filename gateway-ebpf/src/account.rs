//! Accounting: how many connections each engine has, whose they are, and which of them are load.
//!
//! * `account`: sock_ops on the cgroup v2 root. Linux 5.15 (network namespace cookies). Reads ENDPOINTS and OWN, writes
//!   ROWS, SOCKETS and OWN. Runs when a connection is made and ends, and once per round trip of what it sends.
//! * `look`: an iterator over SOCKETS, Linux 5.9. Run by user halves, ten times a second.
//!
//! Without them the user half asks sock_diag, which sees one network namespace and no connection between two looks.

use core::ffi::{c_int, c_void};
use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::{
    BPF_ANY, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE,
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTT_CB,
    BPF_SOCK_OPS_RTT_CB_FLAG, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
};
use aya_ebpf::btf_maps::{Array, HashMap, SkStorage};
use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_seq_write,
    bpf_sk_storage_delete, bpf_sk_storage_get,
};
use aya_ebpf::macros::{btf_map, sock_ops};
use aya_ebpf::programs::SockOpsContext;
use aya_log_ebpf::warn;
use penstock_common::account::{
    ENDPOINTS as ENDPOINTS_MAX, Entry, Key, Look, OWN_CONNECTIONS, Own, ROWS_PER_CPU, Row, Side, Sight,
    Socket, is_reset, row, stage,
};

use crate::ops::{local, netns, remote, sk, word};
use crate::tcp::tcp;

/// Two keys per endpoint: its address, and its port on any address.
#[btf_map]
static ENDPOINTS: HashMap<Key, Entry, { ENDPOINTS_MAX * 2 }> = HashMap::new();

#[btf_map]
static OWN: HashMap<Own, u32, OWN_CONNECTIONS, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// The user half makes it as long as there are CPUs.
#[btf_map]
static ROWS: Array<Row, ROWS_PER_CPU, { BPF_F_MMAPABLE as usize }> = Array::new();

#[btf_map]
static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// Offsets in the kernel's `struct tcp_sock`, set from its BTF at load: aya-ebpf cannot ask for their relocation.
#[unsafe(no_mangle)]
static RECEIVED_AT: u32 = 0;
#[unsafe(no_mangle)]
static SENT_AT: u32 = 0;
#[unsafe(no_mangle)]
static SRTT_AT: u32 = 0;
#[unsafe(no_mangle)]
static RETRANSMITS_AT: u32 = 0;
#[unsafe(no_mangle)]
static RECEIVED_WHEN_SENT_AT: u32 = 0;

const TCP_CLOSE: u32 = 7;

#[sock_ops]
pub fn account(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(&ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => connected(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(&ctx),
        BPF_SOCK_OPS_RTT_CB => acknowledged(&ctx),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == TCP_CLOSE => closed(&ctx),
        _ => {}
    }
    1
}

/// A SYN is about to go to an engine.
#[inline(always)]
fn connecting(ctx: &SockOpsContext) {
    let (remote, netns) = (remote(ctx), netns(ctx));
    let Some(entry) = (unsafe { ENDPOINTS.get(Key::new(remote.0, remote.1, netns)) }) else { return };
    let slot = entry.slot;
    let Some(socket) = storage(ctx, BPF_SK_STORAGE_GET_F_CREATE) else { return };
    begin(ctx, socket, slot, Side::Active, netns);
    socket.stage = stage::CONNECTING;
    let owner = socket.owner as u32;
    if owner != 0 {
        // The user half then subtracts by number, but cannot tell which are busy.
        if OWN.insert(own(ctx, slot), owner, BPF_ANY as u64).is_err() {
            warn!(
                ctx,
                "OWN is full: a gateway's connection from port {} counts as foreign",
                ctx.local_port()
            );
        }
    }
    let _ = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
}

#[inline(always)]
fn connected(ctx: &SockOpsContext) {
    let Some(socket) = storage(ctx, 0) else { return };
    if socket.stage == stage::CONNECTING {
        open(ctx, socket);
    }
}

#[inline(always)]
fn accepted(ctx: &SockOpsContext) {
    let (local, netns) = (local(ctx), netns(ctx));
    let entry = match unsafe { ENDPOINTS.get(Key::new(local.0, local.1, netns)) } {
        Some(entry) => entry,
        None => match unsafe { ENDPOINTS.get(Key::any(local.1, netns)) } {
            Some(entry) => entry,
            None => return,
        },
    };
    let slot = entry.slot;
    let (ip, port) = remote(ctx);
    let owner = unsafe { OWN.get(Own { ip, slot, port, reserved: 0 }) }.map_or(0, |owner| *owner as u8);
    let Some(socket) = storage(ctx, BPF_SK_STORAGE_GET_F_CREATE) else { return };
    begin(ctx, socket, slot, Side::Passive, netns);
    socket.owner = owner;
    open(ctx, socket);
}

#[inline(always)]
fn acknowledged(ctx: &SockOpsContext) {
    let Some(socket) = storage(ctx, 0) else { return };
    let sk = sk(ctx);
    if sk.is_null() {
        return;
    }
    let Some(tcp) = tcp(sk.cast()) else { return };
    let ops = ctx.ops;
    let (received, next) = unsafe { ((*ops).bytes_received, word(&raw const (*ops).rcv_nxt)) };
    socket.acknowledged(received, next, tcp.field(&raw const RECEIVED_WHEN_SENT_AT));
}

#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    let Some(socket) = storage(ctx, 0) else { return };
    if let Some(row) = row_of(socket) {
        let ops = ctx.ops;
        if socket.stage == stage::OPEN {
            add(&raw mut row.open, -1);
            add(&raw mut row.reset, i64::from(is_reset(ctx.arg(0))));
            add(&raw mut row.received, unsafe { (*ops).bytes_received } as i64);
            add(&raw mut row.sent, unsafe { (*ops).bytes_acked } as i64);
            add(&raw mut row.retransmits, i64::from(unsafe { (*ops).total_retrans }));
        } else if socket.stage == stage::CONNECTING {
            add(&raw mut row.failed, 1);
        }
    }
    if socket.side == Side::Active as u8 && socket.owner != 0 {
        let _ = OWN.remove(own(ctx, socket.slot));
    }
    let sk = sk(ctx);
    // The verifier wants the check after each load of the field.
    if !sk.is_null() {
        unsafe { bpf_sk_storage_delete((&raw const SOCKETS).cast_mut().cast(), sk.cast()) };
    }
}

#[inline(always)]
fn begin(ctx: &SockOpsContext, socket: &mut Socket, slot: u32, side: Side, netns: u64) {
    // The owner stays: a gateway marked its socket before it connected.
    socket.cookie = unsafe { bpf_get_socket_cookie(ctx.ops.cast()) };
    socket.netns = netns;
    socket.slot = slot;
    socket.side = side as u8;
}

#[inline(always)]
fn open(ctx: &SockOpsContext, socket: &mut Socket) {
    socket.stage = stage::OPEN;
    if let Some(row) = row_of(socket) {
        add(&raw mut row.open, 1);
        add(&raw mut row.opened, 1);
    }
    let flags = BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG;
    let _ = ctx.set_cb_flags((ctx.cb_flags() | flags) as i32);
}

#[inline(always)]
fn row_of(socket: &Socket) -> Option<&'static mut Row> {
    let cpu = unsafe { bpf_get_smp_processor_id() };
    ROWS.get_ptr_mut(row(cpu, socket.slot, socket.side, socket.owner)).map(|row| unsafe { &mut *row })
}

/// Atomic because a softirq may come in between on this very CPU.
#[inline(always)]
fn add(cell: *mut i64, delta: i64) {
    unsafe { atomic_xadd::<i64, i64, { AtomicOrdering::Relaxed }>(cell, delta) };
}

#[inline(always)]
fn storage(ctx: &SockOpsContext, flags: u32) -> Option<&mut Socket> {
    let sk = sk(ctx);
    if sk.is_null() {
        return None;
    }
    let map = (&raw const SOCKETS).cast_mut().cast();
    let socket = unsafe { bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags as u64) };
    unsafe { socket.cast::<Socket>().as_mut() }
}

/// The client's end of one of our own connections.
#[inline(always)]
fn own(ctx: &SockOpsContext, slot: u32) -> Own {
    let (ip, port) = local(ctx);
    Own { ip, slot, port, reserved: 0 }
}

/// The context of an iterator over socket-local storage.
#[repr(C)]
struct LookContext {
    meta: *const LookMeta,
    map: *const c_void,
    sk: *mut c_void,
    value: *mut Socket,
}

#[repr(C)]
struct LookMeta {
    seq: *mut c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
fn look(ctx: *mut LookContext) -> c_int {
    let (sk, value, meta) = unsafe { ((*ctx).sk, (*ctx).value, (*ctx).meta) };
    if sk.is_null() || value.is_null() {
        return 0;
    }
    let socket = unsafe { &mut *value };
    if socket.stage != stage::OPEN {
        return 0;
    }
    let Some(tcp) = tcp(sk) else { return 0 };
    let look = Look {
        received: tcp.field(&raw const RECEIVED_AT),
        sent: tcp.field(&raw const SENT_AT),
        // Kept in eighths.
        srtt_us: tcp.field::<u32>(&raw const SRTT_AT) >> 3,
        retransmits: tcp.field(&raw const RETRANSMITS_AT),
    };
    let now = unsafe { bpf_ktime_get_ns() };
    socket.look(&look, now);
    let sight = socket.sight(look, now);
    unsafe { bpf_seq_write((*meta).seq.cast(), (&raw const sight).cast(), size_of::<Sight>() as u32) };
    0
}
