//! Steering: a new connection goes to the worker that has the fewest, and whose loop comes round.
//!
//! * `steer`: sk_reuseport, on the group of each listener's sockets. Linux 5.14 (the group's socket in the context). Reads
//!   GROUPS, WORKERS and LISTENING, and counts in WORKERS what it gives. Runs once for each connection.
//!
//! Without it, and wherever it is in doubt, the kernel chooses by a hash of the addresses.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::sk_action::SK_PASS;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, bpf_sock};
use aya_ebpf::btf_maps::{Array, HashMap, ReusePortSockArray};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use aya_ebpf::macros::{btf_map, sk_reuseport};
use aya_ebpf::programs::SkReuseportContext;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use penstock_common::account::{Ip, mapped};
use penstock_common::steer::{Address, Choice, GROUPS as GROUPS_MAX, Group, Table, WORKERS as WORKERS_MAX, Worker};

#[btf_map]
static GROUPS: HashMap<Address, Group, GROUPS_MAX> = HashMap::new();

#[btf_map]
static WORKERS: Array<Table, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

#[btf_map]
static LISTENING: ReusePortSockArray<{ GROUPS_MAX * WORKERS_MAX }> = ReusePortSockArray::new();

const AF_INET6: u32 = 10;

#[sk_reuseport]
pub fn steer(ctx: SkReuseportContext) -> u32 {
    let _ = choose(&ctx);
    SK_PASS
}

/// `None`: no socket is selected, and the kernel does it.
#[inline(always)]
fn choose(ctx: &SkReuseportContext) -> Option<()> {
    let group = unsafe { GROUPS.get(address(ctx)?) }?;
    let table = unsafe { WORKERS.get_ptr_mut(0)?.as_mut() }?;
    let now = unsafe { bpf_ktime_get_ns() };
    let workers = group.workers as usize;
    let mut choice = Choice::new();
    let zero = unsafe { (&raw const table.workers[0].reserved[0]).read_volatile() };
    for (number, worker) in table.workers.iter().enumerate() {
        if number >= workers {
            break;
        }
        choice.look(number as u32, &read(worker), now, || unsafe { bpf_get_prandom_u32() });
        choice.forget(zero);
    }
    let number = choice.made()?;
    LISTENING.select_reuseport(ctx, group.first.wrapping_add(number)).ok()?;
    let given = &raw mut table.workers.get_mut(number as usize)?.given;
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(given, 1) };
    Some(())
}

/// Each word as the worker and this program leave it at any time.
#[inline(always)]
fn read(worker: &Worker) -> Worker {
    let word = |of: &u64| unsafe { (&raw const *of).read_volatile() };
    Worker {
        open: word(&worker.open),
        busy_since_ns: word(&worker.busy_since_ns),
        settled: word(&worker.settled),
        given: word(&worker.given),
        reserved: [0; 5],
        reserved_too: [0; 7],
    }
}

/// Where the group listens.
#[inline(always)]
fn address(ctx: &SkReuseportContext) -> Option<Address> {
    let md: *const aya_ebpf::bindings::sk_reuseport_md = ctx.as_ptr().cast();
    let sk: *const bpf_sock = unsafe { (*md).__bindgen_anon_3.sk };
    if sk.is_null() {
        return None;
    }
    // Volatile, and all read before any choice: the verifier refuses the wider loads and the chosen addresses that the
    // compiler would make of it.
    let word = |of: *const u32| unsafe { of.read_volatile() };
    let family = word(unsafe { &raw const (*sk).family });
    let four = word(unsafe { &raw const (*sk).src_ip4 });
    let first: *const u32 = unsafe { &raw const (*sk).src_ip6 }.cast();
    let six =
        [word(first), word(first.wrapping_add(1)), word(first.wrapping_add(2)), word(first.wrapping_add(3))];
    let ip: Ip = if family == AF_INET6 {
        unsafe { core::mem::transmute::<[u32; 4], Ip>(six) }
    } else {
        mapped(four.to_ne_bytes())
    };
    // In host order, unlike a remote one.
    let port = word(unsafe { &raw const (*sk).src_port }) as u16;
    Some(Address { ip, port, reserved: 0 })
}
