//! NEON, a part of AArch64 itself.

use std::arch::aarch64::*;

use super::{BLOCK, Outside, STRIDE, Simd, Task, enter, prefix_xor_by_shifts, table};

/// Needs no proof: every AArch64 CPU that std supports has NEON.
#[derive(Clone, Copy, Debug)]
pub(in crate::scan) struct Neon;

type Block = [uint8x16_t; 4];

impl Simd for Neon {
    type Block = Block;

    #[inline(always)]
    fn enter<T: Task>(self, task: T) -> T::Output {
        enter(self, task)
    }

    proven_functions!();

    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        // PMULL is optional, and moving a mask to the vector unit and back costs as much as the shifts.
        prefix_xor_by_shifts(bits)
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8; BLOCK]) -> Block {
    let (parts, _) = bytes.as_chunks();
    [part(&parts[0]), part(&parts[1]), part(&parts[2]), part(&parts[3])]
}

#[inline]
#[target_feature(enable = "neon")]
fn part(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: these are as many bytes as are read.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

/// One bit of each byte, all of whose bits are equal.
#[inline]
#[target_feature(enable = "neon")]
fn mask([a, b, c, d]: Block) -> u64 {
    let bits = part(&[1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128]);
    let bits = |part| vandq_u8(part, bits);
    // Adding neighbours three times makes one byte of eight.
    let fours = vpaddq_u8(vpaddq_u8(bits(a), bits(b)), vpaddq_u8(bits(c), bits(d)));
    vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(fours, fours)), 0)
}

#[inline]
#[target_feature(enable = "neon")]
fn is(bytes: uint8x16_t, byte: u8) -> uint8x16_t {
    vceqq_u8(bytes, vdupq_n_u8(byte))
}

#[inline]
#[target_feature(enable = "neon")]
fn eq([a, b, c, d]: Block, byte: u8) -> u64 {
    mask([is(a, byte), is(b, byte), is(c, byte), is(d, byte)])
}

#[inline]
#[target_feature(enable = "neon")]
fn either_has(one: Block, other: Block, byte: u8) -> bool {
    let any = |[a, b, c, d]: Block| {
        vorrq_u8(vorrq_u8(is(a, byte), is(b, byte)), vorrq_u8(is(c, byte), is(d, byte)))
    };
    vmaxvq_u8(vorrq_u8(any(one), any(other))) != 0
}

#[inline]
#[target_feature(enable = "neon")]
fn outside([a, b, c, d]: Block) -> Outside {
    let [a, b, c, d] = [marks(a), marks(b), marks(c), marks(d)];
    let having = |mark| {
        let has = |part| vtstq_u8(part, vdupq_n_u8(mark));
        mask([has(a), has(b), has(c), has(d)])
    };
    Outside { opens: having(table::OPEN), closes: having(table::CLOSE) }
}

#[inline]
#[target_feature(enable = "neon")]
fn odd([a, b, c, d]: Block) -> u64 {
    let odd = |bytes| {
        // Printable ASCII is the 95 bytes from space on.
        let control = vcgeq_u8(vsubq_u8(bytes, vdupq_n_u8(b' ')), vdupq_n_u8(95));
        vorrq_u8(control, is(bytes, b'\\'))
    };
    mask([odd(a), odd(b), odd(c), odd(d)])
}

#[inline]
#[target_feature(enable = "neon")]
fn is_text(bytes: &[u8; STRIDE]) -> bool {
    let (parts, _) = bytes.as_chunks();
    vmaxvq_u8(parts.iter().fold(vdupq_n_u8(0), |any, bytes| vorrq_u8(any, text_end(part(bytes))))) == 0
}

#[inline]
#[target_feature(enable = "neon")]
fn is_plain(bytes: &[u8; STRIDE]) -> bool {
    let (parts, _) = bytes.as_chunks();
    let structure = |part| vorrq_u8(marks(part), is(part, b'"'));
    vmaxvq_u8(parts.iter().fold(vdupq_n_u8(0), |any, bytes| vorrq_u8(any, structure(part(bytes))))) == 0
}

/// [`table::MARK`] of each byte.
#[inline]
#[target_feature(enable = "neon")]
fn marks(bytes: uint8x16_t) -> uint8x16_t {
    // Unlike on x86 the index is the whole byte.
    let low = vqtbl1q_u8(part(&table::LOW), vandq_u8(bytes, vdupq_n_u8(15)));
    let high = vqtbl1q_u8(part(&table::HIGH), vshrq_n_u8(bytes, 4));
    vqtbl1q_u8(part(&table::KIND), vandq_u8(low, high))
}

#[inline]
#[target_feature(enable = "neon")]
fn text_end(bytes: uint8x16_t) -> uint8x16_t {
    vorrq_u8(is(bytes, b'"'), is(bytes, b'\\'))
}
