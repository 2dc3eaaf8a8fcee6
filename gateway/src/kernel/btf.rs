//! Where the running kernel keeps the fields of `struct tcp_sock` that the look reads.
//!
//! aya-ebpf has no relocation against the kernel's own types, so the offsets are taken from its BTF at load and set
//! in the programs as constants. <https://docs.kernel.org/bpf/btf.html>

use std::collections::HashMap;

/// Byte offsets, by the name of the field.
pub(super) fn offsets<const N: usize>(btf: &[u8], of: &str, fields: [&str; N]) -> Result<[u32; N], String> {
    let members = Btf::parse(btf).ok_or("the kernel's BTF is cut short")?.members(of);
    let mut offsets = [0; N];
    for (offset, field) in offsets.iter_mut().zip(fields) {
        *offset = *members.get(field).ok_or_else(|| format!("this kernel's struct {of} has no {field}"))?;
    }
    Ok(offsets)
}

struct Btf<'a> {
    types: &'a [u8],
    names: &'a [u8],
}

const STRUCT: u32 = 4;
const UNION: u32 = 5;

impl<'a> Btf<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let word = |at: usize| word(bytes, at).and_then(|n| usize::try_from(n).ok());
        let header = word(4)?;
        let part = |offset: usize, len: usize| {
            let start = header.checked_add(offset)?;
            bytes.get(start..start.checked_add(len)?)
        };
        Some(Self { types: part(word(8)?, word(12)?)?, names: part(word(16)?, word(20)?)? })
    }

    /// The byte-aligned members of a structure, those of its unnamed members included.
    fn members(&self, of: &str) -> HashMap<&'a str, u32> {
        let starts = self.starts();
        let mut members = HashMap::new();
        let found = starts.iter().find(|&&at| {
            word(self.types, at + 4).is_some_and(|info| kind(info) == STRUCT)
                && word(self.types, at).is_some_and(|name| self.name(name) == of)
        });
        if let Some(&at) = found {
            self.collect(&starts, at, 0, 0, &mut members);
        }
        members
    }

    fn collect(&self, starts: &[usize], at: usize, base: u32, depth: u8, into: &mut HashMap<&'a str, u32>) {
        let Some(info) = word(self.types, at + 4) else { return };
        // BTF comes from the kernel, but /sys may be anything in a container.
        if depth > 8 || !matches!(kind(info), STRUCT | UNION) {
            return;
        }
        for n in 0..vlen(info) {
            let member = at + 12 + n * 12;
            let (Some(name), Some(id), Some(bits)) =
                (word(self.types, member), word(self.types, member + 4), word(self.types, member + 8))
            else {
                return;
            };
            // With the kind flag set, the upper eight bits are a bit field's width.
            let bits = if info >> 31 == 1 { bits & 0xff_ffff } else { bits };
            let offset = base.saturating_add(bits / 8);
            let name = self.name(name);
            if name.is_empty() {
                if let Some(&inner) = usize::try_from(id).ok().and_then(|id| starts.get(id.checked_sub(1)?)) {
                    self.collect(starts, inner, offset, depth + 1, into);
                }
            } else if bits % 8 == 0 {
                into.insert(name, offset);
            }
        }
    }

    /// Where each type starts; the type with id n is the (n - 1)th.
    fn starts(&self) -> Vec<usize> {
        let mut starts = Vec::new();
        let mut at = 0;
        while let Some(info) = word(self.types, at + 4) {
            starts.push(at);
            at += 12
                + match kind(info) {
                    1 | 14 | 17 => 4,                            // int, var, decl tag
                    3 => 12,                                     // array
                    STRUCT | UNION | 15 | 19 => 12 * vlen(info), // and data section, enum64
                    6 | 13 => 8 * vlen(info),                    // enum, function prototype
                    _ => 0,
                };
        }
        starts
    }

    fn name(&self, at: u32) -> &'a str {
        let rest = usize::try_from(at).ok().and_then(|at| self.names.get(at..)).unwrap_or_default();
        let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn vlen(info: u32) -> usize {
    (info & 0xffff) as usize
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_says_where_its_fields_are() {
        let btf = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        let [received, acked] = offsets(&btf, "tcp_sock", ["bytes_received", "bytes_acked"]).unwrap();
        assert!(received > 100 && acked > 100 && received != acked);
        assert!(offsets(&btf, "tcp_sock", ["no_such_field"]).unwrap_err().contains("no_such_field"));
    }

    #[test]
    fn cut_btf_is_an_error_and_never_a_panic() {
        let btf = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        for len in [0, 3, 8, 23, 24, 25, 1000, btf.len() / 2] {
            assert!(offsets(&btf[..len], "tcp_sock", ["bytes_received"]).is_err());
        }
    }
}
