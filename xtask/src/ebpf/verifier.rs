//! What the running kernel's verifier makes of each program: instructions, states, stack. Needs root.
//!
//! aya keeps the verifier's log only of programs that it refuses; so the programs are relocated here against maps that
//! aya made, and loaded once more with a log.
#![allow(unsafe_code, reason = "one bpf(2) call, over structures that live for its duration")]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use aya::maps::{Map, MapData};
use aya_obj::btf::{Btf, BtfKind};
use aya_obj::generated::bpf_attach_type;
use aya_obj::{Object, ProgramSection};

const BPF_PROG_LOAD: libc::c_long = 5;
const TRACING: u32 = 26;
const SOCK_OPS: u32 = 13;
const SK_REUSEPORT: u32 = 21;
const CGROUP_SOCK_ADDR: u32 = 18;
const SK_REUSEPORT_SELECT: u32 = 39;
const CGROUP_SOCK_OPS: u32 = 3;
const SK_MSG: u32 = 16;
const SK_MSG_VERDICT: u32 = 7;
const TRACE_ITER: u32 = 28;
/// BPF_LOG_STATS.
const STATISTICS: u32 = 4;

/// The start of `union bpf_attr` for BPF_PROG_LOAD, up to `attach_btf_id`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Load {
    kind: u32,
    instructions_len: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
    btf: [u32; 2],
    func_info: u64,
    func_info_len: u32,
    line_info_size: u32,
    line_info: u64,
    line_info_len: u32,
    attach_btf_id: u32,
}

/// A line for each program, and one for the kernel that said so.
pub(super) fn statistics(path: &str) -> Result<BTreeMap<String, String>> {
    ensure!(rustix::process::geteuid().is_root(), "it needs root");
    let bytes = fs::read(path)?;
    let ebpf = aya::EbpfLoader::new().load(&bytes).context("cannot create the maps")?;
    let kernel = Btf::from_sys_fs()?;
    let mut object = Object::parse(&bytes)?;
    object.relocate_btf(&kernel)?;
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let templates = object.maps.clone();
    let mut maps = Vec::new();
    for (name, map) in ebpf.maps() {
        let template = templates.get(name).with_context(|| format!("no map {name}"))?;
        maps.push((name, data(map)?.fd().as_fd().as_raw_fd(), template));
    }
    object.relocate_maps(maps.into_iter(), &text)?;
    object.relocate_calls(&text)?;

    let mut statistics = BTreeMap::new();
    for (name, program) in &object.programs {
        let function =
            object.functions.get(&program.function_key()).context("a program without a function")?;
        let (kind, expected_attach_type, attach_btf_id) = match &program.section {
            ProgramSection::SockOps => (SOCK_OPS, CGROUP_SOCK_OPS, 0),
            ProgramSection::SkMsg => (SK_MSG, SK_MSG_VERDICT, 0),
            ProgramSection::CgroupSockAddr { attach_type } => {
                (CGROUP_SOCK_ADDR, bpf_attach_type::from(*attach_type) as u32, 0)
            }
            ProgramSection::SkReuseport { .. } => (SK_REUSEPORT, SK_REUSEPORT_SELECT, 0),
            ProgramSection::Iter { .. } => (
                TRACING,
                TRACE_ITER,
                kernel.id_by_type_name_kind("bpf_iter_bpf_sk_storage_map", BtfKind::Func)?,
            ),
            other => anyhow::bail!("program {name}: {other:?} is not known here"),
        };
        let log = verify(&Load {
            kind,
            instructions_len: function.instructions.len() as u32,
            instructions: function.instructions.as_ptr().addr() as u64,
            license: program.license.as_ptr().addr() as u64,
            expected_attach_type,
            attach_btf_id,
            ..Load::default()
        })
        .with_context(|| format!("program {name}"))?;
        let figures = summary(&log).with_context(|| format!("program {name}: no figures in {log:?}"))?;
        statistics.insert(
            format!("verifier {name}"),
            format!("{} instructions, {figures}", function.instructions.len()),
        );
    }
    statistics.insert(
        "verifier kernel".into(),
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
    );
    Ok(statistics)
}

/// Loads a program, drops it again, and answers with the verifier's log.
fn verify(load: &Load) -> Result<String> {
    let mut log = vec![0u8; 1 << 20];
    let attributes = Load {
        log_level: STATISTICS,
        log_size: log.len() as u32,
        log: log.as_mut_ptr().addr() as u64,
        ..*load
    };
    // SAFETY: the structure and what it points to live until the call returns; the log is as long as it says.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &attributes, size_of::<Load>()) };
    let error = std::io::Error::last_os_error();
    let text: Vec<u8> = log.iter().copied().take_while(|byte| *byte != 0).collect();
    let text = String::from_utf8_lossy(&text).into_owned();
    ensure!(fd >= 0, "{error}: {text}");
    // SAFETY: just opened, and nobody else's.
    drop(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) });
    Ok(text)
}

/// `processed 3318 insns (limit 1000000) max_states_per_insn 4 total_states 146 …` in words that stay comparable.
fn summary(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.starts_with("processed "))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |word: &str| words.iter().position(|w| *w == word).and_then(|at| words.get(at + 1).copied());
    let stack = log.lines().find_map(|line| line.strip_prefix("stack depth "))?;
    Some(format!("{} processed, {} states, stack {stack}", after("processed")?, after("total_states")?))
}

fn data(map: &Map) -> Result<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::SkStorage(data)
        | Map::SockHash(data)
        | Map::RingBuf(data)
        | Map::ReusePortSockArray(data) => Ok(data),
        _ => anyhow::bail!("the object has a map of an unexpected type"),
    }
}
