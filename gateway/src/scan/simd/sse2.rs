//! SSE2, a part of x86-64 itself. It has no byte shuffle, so classes are ranges here.

use std::arch::x86_64::*;

use super::{BLOCK, Outside, STRIDE, Simd, Task, enter, prefix_xor_by_shifts};

/// Needs no proof: every x86-64 CPU has SSE2.
#[derive(Clone, Copy, Debug)]
pub(in crate::scan) struct Sse2;

type Block = [__m128i; 4];

impl Simd for Sse2 {
    type Block = Block;

    #[inline(always)]
    fn enter<T: Task>(self, task: T) -> T::Output {
        enter(self, task)
    }

    proven_functions!();

    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        prefix_xor_by_shifts(bits)
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn load(bytes: &[u8; BLOCK]) -> Block {
    let (parts, _) = bytes.as_chunks();
    [part(&parts[0]), part(&parts[1]), part(&parts[2]), part(&parts[3])]
}

#[inline]
#[target_feature(enable = "sse2")]
fn part(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: these are as many bytes as are read, and need no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// The highest bits of all bytes.
#[inline]
#[target_feature(enable = "sse2")]
fn mask([a, b, c, d]: Block) -> u64 {
    let bits = |part: __m128i| u64::from(_mm_movemask_epi8(part).cast_unsigned());
    bits(a) | bits(b) << 16 | bits(c) << 32 | bits(d) << 48
}

#[inline]
#[target_feature(enable = "sse2")]
fn is(bytes: __m128i, byte: u8) -> __m128i {
    _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte.cast_signed()))
}

#[inline]
#[target_feature(enable = "sse2")]
fn eq([a, b, c, d]: Block, byte: u8) -> u64 {
    mask([is(a, byte), is(b, byte), is(c, byte), is(d, byte)])
}

#[inline]
#[target_feature(enable = "sse2")]
fn either_has(one: Block, other: Block, byte: u8) -> bool {
    let any = |[a, b, c, d]: Block| or(or(is(a, byte), is(b, byte)), or(is(c, byte), is(d, byte)));
    _mm_movemask_epi8(or(any(one), any(other))) != 0
}

#[inline]
#[target_feature(enable = "sse2")]
fn outside([a, b, c, d]: Block) -> Outside {
    let opens = |part| is(lower(part), b'{');
    let closes = |part| is(lower(part), b'}');
    let strays = |part| is(or(or(opens(part), closes(part)), or(plain(part), is(part, b'"'))), 0);
    let strays = mask([strays(a), strays(b), strays(c), strays(d)]);
    Outside {
        opens: mask([opens(a), opens(b), opens(c), opens(d)]) | strays,
        closes: mask([closes(a), closes(b), closes(c), closes(d)]) | strays,
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn odd([a, b, c, d]: Block) -> u64 {
    let odd = |bytes| {
        // Signed, and one higher: DEL and bytes that are not ASCII lie below zero, or are zero.
        let higher = _mm_add_epi8(bytes, _mm_set1_epi8(1));
        or(_mm_cmplt_epi8(higher, _mm_set1_epi8(0x21)), is(bytes, b'\\'))
    };
    mask([odd(a), odd(b), odd(c), odd(d)])
}

#[inline]
#[target_feature(enable = "sse2")]
fn is_text(bytes: &[u8; STRIDE]) -> bool {
    let (parts, _) = bytes.as_chunks();
    let any = parts.iter().fold(_mm_setzero_si128(), |any, bytes| or(any, text_end(part(bytes))));
    _mm_movemask_epi8(any) == 0
}

#[inline]
#[target_feature(enable = "sse2")]
fn is_plain(bytes: &[u8; STRIDE]) -> bool {
    let (parts, _) = bytes.as_chunks();
    let all = parts.iter().fold(_mm_set1_epi8(-1), |all, bytes| _mm_and_si128(all, plain(part(bytes))));
    _mm_movemask_epi8(all) == 0xffff
}

#[inline]
#[target_feature(enable = "sse2")]
fn or(one: __m128i, other: __m128i) -> __m128i {
    _mm_or_si128(one, other)
}

/// Letters in lower case, `[` and `]` as `{` and `}`; what else changes is neither before nor after.
#[inline]
#[target_feature(enable = "sse2")]
fn lower(bytes: __m128i) -> __m128i {
    or(bytes, _mm_set1_epi8(0x20))
}

#[inline]
#[target_feature(enable = "sse2")]
fn within(bytes: __m128i, first: u8, last: u8) -> __m128i {
    let above = _mm_sub_epi8(bytes, _mm_set1_epi8(first.cast_signed()));
    _mm_cmpeq_epi8(_mm_min_epu8(above, _mm_set1_epi8((last - first).cast_signed())), above)
}

/// `super::table::is_plain`.
#[inline]
#[target_feature(enable = "sse2")]
fn plain(bytes: __m128i) -> __m128i {
    let marks = or(within(bytes, b'+', b'.'), within(bytes, b'0', b':'));
    let lines = or(within(bytes, b'\t', b'\n'), is(bytes, b'\r'));
    or(or(marks, lines), or(within(lower(bytes), b'a', b'z'), is(bytes, b' ')))
}

#[inline]
#[target_feature(enable = "sse2")]
fn text_end(bytes: __m128i) -> __m128i {
    or(is(bytes, b'"'), is(bytes, b'\\'))
}
