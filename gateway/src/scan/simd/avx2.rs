//! AVX2, in every x86 server since 2013 (Haswell) and 2017 (Zen).

use std::arch::x86_64::*;

use super::{BLOCK, Outside, STRIDE, Simd, Task, table};

/// Proof of AVX2, PCLMULQDQ, POPCNT, LZCNT, BMI1 and BMI2.
#[derive(Clone, Copy, Debug)]
pub(in crate::scan) struct Avx2(());

impl Avx2 {
    pub(super) fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2");
        has.then_some(Self(()))
    }
}

type Block = (__m256i, __m256i);

impl Simd for Avx2 {
    type Block = Block;

    #[inline(always)]
    fn enter<T: Task>(self, task: T) -> T::Output {
        #[target_feature(enable = "avx2,pclmulqdq,popcnt,lzcnt,bmi1,bmi2")]
        #[inline(never)]
        fn inside<T: Task>(simd: Avx2, task: T) -> T::Output {
            task.run(simd)
        }
        proven!(inside(self, task))
    }

    proven_functions!();

    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        proven!(prefix_xor(bits))
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; BLOCK]) -> Block {
    let (halves, _) = bytes.as_chunks();
    (part(&halves[0]), part(&halves[1]))
}

#[inline]
#[target_feature(enable = "avx2")]
fn part(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: these are as many bytes as are read, and need no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// The highest bits of all bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn mask((low, high): Block) -> u64 {
    let low = _mm256_movemask_epi8(low).cast_unsigned();
    let high = _mm256_movemask_epi8(high).cast_unsigned();
    u64::from(low) | u64::from(high) << 32
}

#[inline]
#[target_feature(enable = "avx2")]
fn is((low, high): Block, byte: u8) -> Block {
    let byte = _mm256_set1_epi8(byte.cast_signed());
    (_mm256_cmpeq_epi8(low, byte), _mm256_cmpeq_epi8(high, byte))
}

#[inline]
#[target_feature(enable = "avx2")]
fn eq(block: Block, byte: u8) -> u64 {
    mask(is(block, byte))
}

#[inline]
#[target_feature(enable = "avx2")]
fn either_has(one: Block, other: Block, byte: u8) -> bool {
    let (one, other) = (is(one, byte), is(other, byte));
    _mm256_movemask_epi8(any([one.0, one.1, other.0, other.1])) != 0
}

#[inline]
#[target_feature(enable = "avx2")]
fn outside((low, high): Block) -> Outside {
    let (low, high) = (marks(low), marks(high));
    let opens = mask((_mm256_add_epi8(low, low), _mm256_add_epi8(high, high)));
    Outside { opens, closes: mask((low, high)) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn odd((low, high): Block) -> u64 {
    let odd = |bytes| {
        // Signed, and one higher: DEL and bytes that are not ASCII lie below zero, or are zero.
        let higher = _mm256_add_epi8(bytes, _mm256_set1_epi8(1));
        let control = _mm256_cmpgt_epi8(_mm256_set1_epi8(0x21), higher);
        _mm256_or_si256(control, _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'\\'.cast_signed())))
    };
    mask((odd(low), odd(high)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn is_text(bytes: &[u8; STRIDE]) -> bool {
    let (parts, _) = bytes.as_chunks();
    let [a, b, c, d] = [part(&parts[0]), part(&parts[1]), part(&parts[2]), part(&parts[3])];
    _mm256_movemask_epi8(any([text_end(a), text_end(b), text_end(c), text_end(d)])) == 0
}

#[inline]
#[target_feature(enable = "avx2")]
fn is_plain(bytes: &[u8; STRIDE]) -> bool {
    let (parts, _) = bytes.as_chunks();
    let [a, b, c, d] = [part(&parts[0]), part(&parts[1]), part(&parts[2]), part(&parts[3])];
    let any = any([structure(a), structure(b), structure(c), structure(d)]);
    _mm256_testz_si256(any, any) == 1
}

#[inline]
#[target_feature(enable = "pclmulqdq")]
pub(super) fn prefix_xor(bits: u64) -> u64 {
    // Multiplying by all ones without carries adds each bit to all from its own on.
    let product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(bits.cast_signed()), _mm_set1_epi8(-1), 0);
    _mm_cvtsi128_si64(product).cast_unsigned()
}

#[inline]
#[target_feature(enable = "avx2")]
fn any([a, b, c, d]: [__m256i; 4]) -> __m256i {
    _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d))
}

#[inline]
#[target_feature(enable = "avx2")]
fn lookup(table: [u8; 16], index: __m256i) -> __m256i {
    let table = u128::from_le_bytes(table);
    let (low, high) = (table as u64, (table >> 64) as u64);
    let table = _mm256_broadcastsi128_si256(_mm_set_epi64x(high.cast_signed(), low.cast_signed()));
    _mm256_shuffle_epi8(table, index)
}

/// [`table::MARK`] of each byte.
#[inline]
#[target_feature(enable = "avx2")]
fn marks(bytes: __m256i) -> __m256i {
    let high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(15));
    lookup(table::KIND, _mm256_and_si256(lookup(table::LOW, bytes), lookup(table::HIGH, high)))
}

/// Not zero where a byte is not plain.
#[inline]
#[target_feature(enable = "avx2")]
fn structure(bytes: __m256i) -> __m256i {
    _mm256_or_si256(marks(bytes), _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'"'.cast_signed())))
}

#[inline]
#[target_feature(enable = "avx2")]
fn text_end(bytes: __m256i) -> __m256i {
    _mm256_cmpeq_epi8(bytes, lookup(table::TEXT_END, bytes))
}
