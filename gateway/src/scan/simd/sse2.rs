//! SSE2, a part of x86-64 itself. It has no byte shuffle, so classes are ranges here.

use std::arch::x86_64::*;

use super::{BLOCK, Outside, STRIDE, Simd, Task, enter, prefix_xor_by_shifts};

#[derive(Clone, Copy, Debug)]
pub(in crate::scan) struct Sse2;

// SAFETY, for all of the following: every x86-64 CPU has SSE2, and the loads stay in the arrays given.
impl Simd for Sse2 {
    type Block = [__m128i; 4];

    #[inline(always)]
    fn enter<T: Task>(self, task: T) -> T::Output {
        enter(self, task)
    }

    #[inline(always)]
    fn load(self, bytes: &[u8; BLOCK]) -> Self::Block {
        let at = bytes.as_ptr().cast::<__m128i>();
        [0, 1, 2, 3].map(|i| unsafe { _mm_loadu_si128(at.add(i)) })
    }

    #[inline(always)]
    fn eq(self, block: Self::Block, byte: u8) -> u64 {
        mask(block.map(|part| is(part, byte)))
    }

    #[inline(always)]
    fn either_has(self, one: Self::Block, other: Self::Block, byte: u8) -> bool {
        let [one, other] = [one, other].map(|block| {
            let [a, b, c, d] = block.map(|part| is(part, byte));
            or(or(a, b), or(c, d))
        });
        unsafe { _mm_movemask_epi8(or(one, other)) != 0 }
    }

    #[inline(always)]
    fn outside(self, block: Self::Block) -> Outside {
        let opens = block.map(|part| is(lower(part), b'{'));
        let closes = block.map(|part| is(lower(part), b'}'));
        let strays = std::array::from_fn::<_, 4, _>(|i| {
            is(or(or(opens[i], closes[i]), or(plain(block[i]), is(block[i], b'"'))), 0)
        });
        let strays = mask(strays);
        Outside { opens: mask(opens) | strays, closes: mask(closes) | strays }
    }

    #[inline(always)]
    fn stops(self, block: Self::Block) -> u64 {
        mask(block.map(|part| {
            // Signed: bytes that are not ASCII lie below zero.
            let low = unsafe { _mm_cmplt_epi8(part, _mm_set1_epi8(0x20)) };
            or(or(low, is(part, 0x7f)), text_end(part))
        }))
    }

    #[inline(always)]
    fn is_text(self, bytes: &[u8; STRIDE]) -> bool {
        let (blocks, _) = bytes.as_chunks::<BLOCK>();
        blocks.iter().fold(0, |all, block| all | mask(self.load(block).map(text_end))) == 0
    }

    #[inline(always)]
    fn is_plain(self, bytes: &[u8; STRIDE]) -> bool {
        let (blocks, _) = bytes.as_chunks::<BLOCK>();
        blocks.iter().fold(u64::MAX, |all, block| all & mask(self.load(block).map(plain))) == u64::MAX
    }

    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        prefix_xor_by_shifts(bits)
    }
}

#[inline(always)]
fn mask(parts: [__m128i; 4]) -> u64 {
    parts
        .into_iter()
        .rev()
        .fold(0, |mask, part| mask << 16 | u64::from(unsafe { _mm_movemask_epi8(part) }.cast_unsigned()))
}

#[inline(always)]
fn is(bytes: __m128i, byte: u8) -> __m128i {
    unsafe { _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte.cast_signed())) }
}

#[inline(always)]
fn or(one: __m128i, other: __m128i) -> __m128i {
    unsafe { _mm_or_si128(one, other) }
}

/// Letters in lower case, `[` and `]` as `{` and `}`; what else changes is neither before nor after.
#[inline(always)]
fn lower(bytes: __m128i) -> __m128i {
    unsafe { _mm_or_si128(bytes, _mm_set1_epi8(0x20)) }
}

#[inline(always)]
fn within(bytes: __m128i, first: u8, last: u8) -> __m128i {
    unsafe {
        let above = _mm_sub_epi8(bytes, _mm_set1_epi8(first.cast_signed()));
        _mm_cmpeq_epi8(_mm_min_epu8(above, _mm_set1_epi8((last - first).cast_signed())), above)
    }
}

/// `super::table::is_plain`.
#[inline(always)]
fn plain(bytes: __m128i) -> __m128i {
    let marks = or(within(bytes, b'+', b'.'), within(bytes, b'0', b':'));
    let lines = or(within(bytes, b'\t', b'\n'), is(bytes, b'\r'));
    or(or(marks, lines), or(within(lower(bytes), b'a', b'z'), is(bytes, b' ')))
}

#[inline(always)]
fn text_end(bytes: __m128i) -> __m128i {
    or(is(bytes, b'"'), is(bytes, b'\\'))
}
