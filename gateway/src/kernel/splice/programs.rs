//! The programs of splice, loaded and attached. Held by descriptors alone: they end with the process.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use aya::Ebpf;
use aya::maps::{MapData, SockHash};
use aya::programs::{CgroupAttachMode, SkMsg, SockOps};

use crate::kernel::object::{self, Types, full, map_data};

pub(super) const PROGRAMS: [&str; 2] = ["bind", "splice"];

/// Creates the maps and has the programs verified.
pub(super) fn load(slots: u32) -> Result<Ebpf, String> {
    let types = Types::of_kernel()?;
    let [redirected_to] = types.offsets("sk_msg", ["sk_redir"])?;
    let [write_seq] = types.offsets("tcp_sock", ["write_seq"])?;
    let [queued, limit] = types.offsets("sock", ["sk_wmem_queued", "sk_sndbuf"])?;
    let mut ebpf = object::load(
        object::loader(&["SLOTS", "ENGINES", "CLIENTS"])
            .btf(Some(&types.btf))
            .map_max_entries("SLOTS", slots)
            .map_max_entries("ENGINES", slots)
            .override_global("REDIRECTED_TO_AT", &redirected_to, true)
            .override_global("WRITE_SEQ_AT", &write_seq, true)
            .override_global("QUEUED_AT", &queued, true)
            .override_global("LIMIT_AT", &limit, true),
    )?;
    bind(&mut ebpf)?.load().map_err(|e| full("the kernel refuses the program `bind`", &e))?;
    splice(&mut ebpf)?.load().map_err(|e| full("the kernel refuses the program `splice`", &e))?;
    Ok(ebpf)
}

/// Attaches the program that redirects before the one that puts sockets in its reach.
pub(super) fn attach(ebpf: &mut Ebpf, cgroup: &Path) -> Result<(), String> {
    let engines = object::map(ebpf, "ENGINES")?;
    let engines: SockHash<&MapData, u64> = engines.try_into().map_err(|e| full("ENGINES", &e))?;
    let engines = engines.fd().try_clone().map_err(|e| full("ENGINES", &e))?;
    splice(ebpf)?.attach(&engines).map_err(|e| full("cannot attach the program `splice`", &e))?;
    let root = File::open(cgroup).map_err(|e| format!("{}: {e}", cgroup.display()))?;
    bind(ebpf)?
        .attach(&root, CgroupAttachMode::Single)
        .map_err(|e| full(&format!("cannot attach to {}", cgroup.display()), &e))?;
    Ok(())
}

/// A descriptor of a map of its own.
pub(super) fn map(ebpf: &Ebpf, name: &str) -> Result<OwnedFd, String> {
    map_data(object::map(ebpf, name)?)?.fd().as_fd().try_clone_to_owned().map_err(|e| e.to_string())
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
