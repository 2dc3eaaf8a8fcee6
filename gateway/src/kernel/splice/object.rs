//! The programs of splice, loaded and attached. Held by descriptors alone: they end with the process.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{Map, MapData, SockHash};
use aya::programs::{CgroupAttachMode, SkMsg, SockOps};
use aya::{Btf, Ebpf, EbpfLoader};

use super::super::account::{OBJECT, Place, btf, full};

const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
pub(super) const PROGRAMS: [&str; 2] = ["bind", "splice"];

/// Creates the maps and has the programs verified.
pub(super) fn load(slots: u32) -> Result<Ebpf, String> {
    let bytes = std::fs::read(KERNEL_BTF)
        .map_err(|e| format!("{KERNEL_BTF}: {e}; the kernel must be built with CONFIG_DEBUG_INFO_BTF"))?;
    let [redirected_to] = btf::offsets(&bytes, "sk_msg", ["sk_redir"])?;
    let [write_seq] = btf::offsets(&bytes, "tcp_sock", ["write_seq"])?;
    let [queued, limit] = btf::offsets(&bytes, "sock", ["sk_wmem_queued", "sk_sndbuf"])?;
    drop(bytes);
    let btf = Btf::from_sys_fs().map_err(|e| format!("{KERNEL_BTF}: {e}"))?;
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .map_max_entries("SLOTS", slots)
        .map_max_entries("ENGINES", slots)
        // The account's, which its own loading makes as large as they must be.
        .map_max_entries("ROWS", 1)
        .map_max_entries("OWN", 1)
        .override_global("REDIRECTED_TO_AT", &redirected_to, true)
        .override_global("WRITE_SEQ_AT", &write_seq, true)
        .override_global("QUEUED_AT", &queued, true)
        .override_global("LIMIT_AT", &limit, true)
        .load(OBJECT)
        .map_err(|e| full("cannot create the maps", &e))?;
    bind(&mut ebpf)?.load().map_err(|e| full("the kernel refuses the program `bind`", &e))?;
    splice(&mut ebpf)?.load().map_err(|e| full("the kernel refuses the program `splice`", &e))?;
    Ok(ebpf)
}

/// Attaches the program that redirects before the one that puts sockets in its reach.
pub(super) fn attach(ebpf: &mut Ebpf, place: &Place) -> Result<(), String> {
    let engines = ebpf.map("ENGINES").ok_or("the object has no map ENGINES")?;
    let engines: SockHash<&MapData, u64> = engines.try_into().map_err(|e| full("ENGINES", &e))?;
    let engines = engines.fd().try_clone().map_err(|e| full("ENGINES", &e))?;
    splice(ebpf)?.attach(&engines).map_err(|e| full("cannot attach the program `splice`", &e))?;
    let cgroup = File::open(&place.cgroup).map_err(|e| format!("{}: {e}", place.cgroup.display()))?;
    bind(ebpf)?
        .attach(&cgroup, CgroupAttachMode::Single)
        .map_err(|e| full(&format!("cannot attach to {}", place.cgroup.display()), &e))?;
    Ok(())
}

/// A descriptor of a map of its own.
pub(super) fn map(ebpf: &Ebpf, name: &str) -> Result<OwnedFd, String> {
    let map = ebpf.map(name).ok_or_else(|| format!("the object has no map {name}"))?;
    let (Map::Array(data) | Map::SkStorage(data) | Map::SockHash(data)) = map else {
        return Err(format!("the map {name} is of an unexpected type"));
    };
    data.fd().as_fd().try_clone_to_owned().map_err(|e| e.to_string())
}

/// The kernel's tags of the programs: equal tags are equal instructions.
pub(super) fn tags(ebpf: &mut Ebpf) -> Result<String, String> {
    let bind = bind(ebpf)?.info().map_err(|e| full("bind", &e))?.tag();
    let splice = splice(ebpf)?.info().map_err(|e| full("splice", &e))?.tag();
    Ok(format!("bind {bind:016x}, splice {splice:016x}"))
}

fn bind(ebpf: &mut Ebpf) -> Result<&mut SockOps, String> {
    let program = ebpf.program_mut(PROGRAMS[0]).ok_or("the object has no program `bind`")?;
    program.try_into().map_err(|e| full("the program `bind`", &e))
}

fn splice(ebpf: &mut Ebpf) -> Result<&mut SkMsg, String> {
    let program = ebpf.program_mut(PROGRAMS[1]).ok_or("the object has no program `splice`")?;
    program.try_into().map_err(|e| full("the program `splice`", &e))
}
