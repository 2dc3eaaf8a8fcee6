//! The built kernel half, and what loading any of its programs takes.

use std::io;

use aya::maps::{Map, MapData, MapError};
use aya::{Btf, Ebpf, EbpfLoader};

use super::btf;

/// The kernel half as `cargo xtask ebpf` built it.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../gateway-ebpf/penstock.bpf.o");

const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Maps that are large. Loading some programs makes the maps of all.
const LARGE: [&str; 6] = ["OWN", "ROWS", "SLOTS", "ENGINES", "CLIENTS", "LISTENING"];

/// The kernel's own types.
pub(super) struct Types {
    bytes: Vec<u8>,
    /// As aya reads them.
    pub(super) btf: Btf,
}

impl Types {
    pub(super) fn of_kernel() -> Result<Self, String> {
        let bytes = std::fs::read(KERNEL_BTF)
            .map_err(|e| format!("{KERNEL_BTF}: {e}; the kernel must be built with CONFIG_DEBUG_INFO_BTF"))?;
        let btf = Btf::from_sys_fs().map_err(|e| format!("{KERNEL_BTF}: {e}"))?;
        Ok(Self { bytes, btf })
    }

    /// [`btf::offsets`]
    pub(super) fn offsets<const N: usize>(&self, of: &str, fields: [&str; N]) -> Result<[u32; N], String> {
        btf::offsets(&self.bytes, of, fields)
    }
}

/// Of programs that use no large maps but `own`: the others are made as small as can be.
pub(super) fn loader<'a>(own: &[&str]) -> EbpfLoader<'a> {
    let mut loader = EbpfLoader::new();
    for name in LARGE.into_iter().filter(|name| !own.contains(name)) {
        loader.map_max_entries(name, 1);
    }
    loader
}

/// Creates the maps.
pub(super) fn load(loader: &mut EbpfLoader<'_>) -> Result<Ebpf, String> {
    loader.load(OBJECT).map_err(|e| full("cannot create the maps", &e))
}

pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, String> {
    ebpf.take_map(name).ok_or_else(|| no_map(name))
}

pub(super) fn map<'e>(ebpf: &'e Ebpf, name: &str) -> Result<&'e Map, String> {
    ebpf.map(name).ok_or_else(|| no_map(name))
}

fn no_map(name: &str) -> String {
    format!("the object has no map {name}")
}

/// The descriptor side of a map, whatever its type.
pub(super) fn map_data(map: &Map) -> Result<&MapData, String> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::SkStorage(data)
        | Map::SockHash(data)
        | Map::RingBuf(data) => Ok(data),
        _ => Err("the object has a map of an unexpected type".into()),
    }
}

/// What the kernel said to a call on a map, without aya's words around it.
pub(super) fn of_map(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        error => io::Error::other(error),
    }
}

/// An error with all its causes: aya's outermost line seldom says which call failed and how.
pub(super) fn full(what: &str, error: &dyn std::error::Error) -> String {
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
