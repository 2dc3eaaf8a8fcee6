//! The built kernel half, loaded: verified by the kernel, attached to nothing.

use aya::maps::{HashMap, Map, MapData};
use aya::programs::{Iter, Program, SockOps};
use aya::{Btf, Ebpf, EbpfLoader};
use penstock_common::account::{Entry, Key, ROWS_PER_CPU};

use super::btf;
use crate::kernel::sys::Pod;

/// The kernel half as `cargo xtask ebpf` built it.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../gateway-ebpf/penstock.bpf.o");

/// The address table: which addresses are counted, and under which slot.
pub(super) type Table = HashMap<MapData, Pod<Key>, Pod<Entry>>;

pub(super) const PROGRAMS: [&str; 2] = ["account", "look"];
pub(super) const MAPS: [&str; 5] = ["ENDPOINTS", "OWN", "ROWS", "SOCKETS", "AYA_LOGS"];

const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Rows that all CPUs of this host have together.
pub(super) fn rows() -> Result<u32, String> {
    let cpus = aya::util::nr_cpus().map_err(|(file, e)| format!("{file}: {e}"))?;
    u32::try_from(cpus * ROWS_PER_CPU)
        .map_err(|_| format!("{cpus} CPUs are more than the rows can tell apart"))
}

/// Creates the maps and has the programs verified.
pub(super) fn load() -> Result<Ebpf, String> {
    let bytes = std::fs::read(KERNEL_BTF)
        .map_err(|e| format!("{KERNEL_BTF}: {e}; the kernel must be built with CONFIG_DEBUG_INFO_BTF"))?;
    let [received, sent, srtt, retransmits, received_when_sent] = btf::offsets(
        &bytes,
        "tcp_sock",
        ["bytes_received", "bytes_acked", "srtt_us", "total_retrans", "rcv_wup"],
    )?;
    drop(bytes);
    let btf = Btf::from_sys_fs().map_err(|e| format!("{KERNEL_BTF}: {e}"))?;
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .map_max_entries("ROWS", rows()?)
        // Splice's, which its own loading makes as large as they must be.
        .map_max_entries("SLOTS", 1)
        .override_global("RECEIVED_AT", &received, true)
        .override_global("SENT_AT", &sent, true)
        .override_global("SRTT_AT", &srtt, true)
        .override_global("RETRANSMITS_AT", &retransmits, true)
        .override_global("RECEIVED_WHEN_SENT_AT", &received_when_sent, true)
        .load(OBJECT)
        .map_err(|e| full("cannot create the maps", &e))?;
    sock_ops(&mut ebpf)?.load().map_err(|e| full("the kernel refuses the program `account`", &e))?;
    iterator(&mut ebpf)?
        .load("bpf_sk_storage_map", &btf)
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

pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, String> {
    ebpf.take_map(name).ok_or_else(|| format!("the object has no map {name}"))
}

/// The descriptor side of a map, whatever its type.
pub(crate) fn map_data(map: &Map) -> Result<&MapData, String> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::SkStorage(data) | Map::RingBuf(data) => Ok(data),
        _ => Err("the object has a map of an unexpected type".into()),
    }
}

/// An error with all its causes: aya's outermost line seldom says which call failed and how.
pub(crate) fn full(what: &str, error: &dyn std::error::Error) -> String {
    let mut text = format!("{what}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    shortened(text)
}

/// The verifier may say a megabyte; how it begins and how it ends say what is wrong.
fn shortened(text: String) -> String {
    const ENDS: usize = 400;
    let characters = text.chars().count();
    if characters <= 2 * ENDS {
        return text;
    }
    let start: String = text.chars().take(ENDS).collect();
    let end: String = text.chars().skip(characters - ENDS).collect();
    format!("{start} … {end}")
}
