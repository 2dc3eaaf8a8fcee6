//! The programs of accounting, loaded: verified by the kernel, attached to nothing.

use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use aya::programs::{Iter, Program, SockOps};
use penstock_common::account::{Entry, Key, ROWS_PER_CPU};

use crate::kernel::object::{self, Types, full};
use crate::kernel::sys::Pod;

/// The address table: which addresses are counted, and under which slot.
pub(super) type Table = HashMap<MapData, Pod<Key>, Pod<Entry>>;

pub(super) const PROGRAMS: [&str; 2] = ["account", "look"];
pub(super) const MAPS: [&str; 5] = ["ENDPOINTS", "OWN", "ROWS", "SOCKETS", "AYA_LOGS"];

/// Rows that all CPUs of this host have together.
pub(super) fn rows() -> Result<u32, String> {
    let cpus = aya::util::nr_cpus().map_err(|(file, e)| format!("{file}: {e}"))?;
    u32::try_from(cpus * ROWS_PER_CPU)
        .map_err(|_| format!("{cpus} CPUs are more than the rows can tell apart"))
}

/// Creates the maps and has the programs verified.
pub(super) fn load() -> Result<Ebpf, String> {
    let types = Types::of_kernel()?;
    let [received, sent, srtt, retransmits, received_when_sent] = types
        .offsets("tcp_sock", ["bytes_received", "bytes_acked", "srtt_us", "total_retrans", "rcv_wup"])?;
    let mut ebpf = object::load(
        object::loader(&["OWN", "ROWS"])
            .btf(Some(&types.btf))
            .map_max_entries("ROWS", rows()?)
            .override_global("RECEIVED_AT", &received, true)
            .override_global("SENT_AT", &sent, true)
            .override_global("SRTT_AT", &srtt, true)
            .override_global("RETRANSMITS_AT", &retransmits, true)
            .override_global("RECEIVED_WHEN_SENT_AT", &received_when_sent, true),
    )?;
    sock_ops(&mut ebpf)?.load().map_err(|e| full("the kernel refuses the program `account`", &e))?;
    iterator(&mut ebpf)?
        .load("bpf_sk_storage_map", &types.btf)
        .map_err(|e| full("the kernel refuses the program `look`", &e))?;
    Ok(ebpf)
}

pub(super) fn sock_ops(ebpf: &mut Ebpf) -> Result<&mut SockOps, String> {
    let program = ebpf.program_mut("account").ok_or("the object has no program `account`")?;
    program.try_into().map_err(|e| full("the program `account`", &e))
}

pub(super) fn iterator(ebpf: &mut Ebpf) -> Result<&mut Iter, String> {
    let program = ebpf.program_mut("look").ok_or("the object has no program `look`")?;
    program.try_into().map_err(|e| full("the program `look`", &e))
}

/// The kernel's tags of loaded programs: equal tags are equal instructions.
pub(super) fn tag(ebpf: &Ebpf, name: &str) -> Result<u64, String> {
    let info = match ebpf.program(name) {
        Some(Program::SockOps(program)) => program.info(),
        Some(Program::Iter(program)) => program.info(),
        _ => return Err(format!("the object has no program `{name}`")),
    };
    info.map(|info| info.tag()).map_err(|e| full(name, &e))
}
