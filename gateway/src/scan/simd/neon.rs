//! NEON, a part of AArch64 itself.

use std::arch::aarch64::*;

use super::{BLOCK, Outside, STRIDE, Simd, Task, enter, prefix_xor_by_shifts, table};

#[derive(Clone, Copy, Debug)]
pub(in crate::scan) struct Neon;

// SAFETY, for all of the following: every AArch64 CPU that std supports has NEON, and the loads stay in the arrays
// given.
impl Simd for Neon {
    type Block = [uint8x16_t; 4];

    #[inline(always)]
    fn enter<T: Task>(self, task: T) -> T::Output {
        enter(self, task)
    }

    #[inline(always)]
    fn load(self, bytes: &[u8; BLOCK]) -> Self::Block {
        [0, 1, 2, 3].map(|i| unsafe { vld1q_u8(bytes.as_ptr().add(16 * i)) })
    }

    #[inline(always)]
    fn eq(self, block: Self::Block, byte: u8) -> u64 {
        unsafe { mask(block.map(|part| vceqq_u8(part, vdupq_n_u8(byte)))) }
    }

    #[inline(always)]
    fn either_has(self, one: Self::Block, other: Self::Block, byte: u8) -> bool {
        unsafe {
            let [one, other] = [one, other].map(|block| {
                let [a, b, c, d] = block.map(|part| vceqq_u8(part, vdupq_n_u8(byte)));
                vorrq_u8(vorrq_u8(a, b), vorrq_u8(c, d))
            });
            vmaxvq_u8(vorrq_u8(one, other)) != 0
        }
    }

    #[inline(always)]
    fn outside(self, block: Self::Block) -> Outside {
        unsafe {
            let marks = block.map(|part| marks(part));
            Outside {
                opens: mask(marks.map(|part| vtstq_u8(part, vdupq_n_u8(table::OPEN)))),
                closes: mask(marks.map(|part| vtstq_u8(part, vdupq_n_u8(table::CLOSE)))),
            }
        }
    }

    #[inline(always)]
    fn stops(self, block: Self::Block) -> u64 {
        unsafe {
            mask(block.map(|part| {
                let low = vcltq_u8(part, vdupq_n_u8(0x20));
                let high = vcgeq_u8(part, vdupq_n_u8(0x7f));
                vorrq_u8(vorrq_u8(low, high), text_end(part))
            }))
        }
    }

    #[inline(always)]
    fn is_text(self, bytes: &[u8; STRIDE]) -> bool {
        let (blocks, _) = bytes.as_chunks::<BLOCK>();
        unsafe {
            let ends = [&blocks[0], &blocks[1]].map(|bytes| {
                let [a, b, c, d] = self.load(bytes).map(|part| text_end(part));
                vorrq_u8(vorrq_u8(a, b), vorrq_u8(c, d))
            });
            vmaxvq_u8(vorrq_u8(ends[0], ends[1])) == 0
        }
    }

    #[inline(always)]
    fn is_plain(self, bytes: &[u8; STRIDE]) -> bool {
        let (blocks, _) = bytes.as_chunks::<BLOCK>();
        unsafe {
            let all = [&blocks[0], &blocks[1]].map(|bytes| {
                let structure = |part| vorrq_u8(marks(part), vceqq_u8(part, vdupq_n_u8(b'"')));
                let [a, b, c, d] = self.load(bytes).map(structure);
                vorrq_u8(vorrq_u8(a, b), vorrq_u8(c, d))
            });
            vmaxvq_u8(vorrq_u8(all[0], all[1])) == 0
        }
    }

    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        // PMULL is optional, and moving a mask to the vector unit and back costs as much as the shifts.
        prefix_xor_by_shifts(bits)
    }
}

/// One bit of each byte, all of whose bits are equal.
#[inline(always)]
unsafe fn mask(parts: [uint8x16_t; 4]) -> u64 {
    const BITS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];
    unsafe {
        let bits = vld1q_u8(BITS.as_ptr());
        let [a, b, c, d] = parts.map(|part| vandq_u8(part, bits));
        // Adding neighbours three times makes one byte of eight.
        let pairs = vpaddq_u8(vpaddq_u8(a, b), vpaddq_u8(c, d));
        vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(pairs, pairs)), 0)
    }
}

/// [`table::MARK`] of each byte.
#[inline(always)]
unsafe fn marks(bytes: uint8x16_t) -> uint8x16_t {
    unsafe {
        // Unlike on x86 the index is the whole byte.
        let low = vqtbl1q_u8(vld1q_u8(table::LOW.as_ptr()), vandq_u8(bytes, vdupq_n_u8(15)));
        let high = vqtbl1q_u8(vld1q_u8(table::HIGH.as_ptr()), vshrq_n_u8(bytes, 4));
        vqtbl1q_u8(vld1q_u8(table::KIND.as_ptr()), vandq_u8(low, high))
    }
}

#[inline(always)]
unsafe fn text_end(bytes: uint8x16_t) -> uint8x16_t {
    unsafe { vorrq_u8(vceqq_u8(bytes, vdupq_n_u8(b'"')), vceqq_u8(bytes, vdupq_n_u8(b'\\'))) }
}
