//! AVX-512BW, in server CPUs since 2017 (Skylake) and 2022 (Zen 4): a block is one register, and comparing makes
//! masks.

use std::arch::x86_64::*;

use super::avx2::prefix_xor;
use super::{BLOCK, Outside, STRIDE, Simd, Task, table};

/// Proof of AVX-512F and BW, PCLMULQDQ, POPCNT, LZCNT, BMI1 and BMI2.
#[derive(Clone, Copy, Debug)]
pub(in crate::scan) struct Avx512(());

impl Avx512 {
    pub(super) fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2");
        has.then_some(Self(()))
    }
}

impl Simd for Avx512 {
    type Block = __m512i;

    #[inline(always)]
    fn enter<T: Task>(self, task: T) -> T::Output {
        #[target_feature(enable = "avx512f,avx512bw,pclmulqdq,popcnt,lzcnt,bmi1,bmi2")]
        #[inline(never)]
        fn inside<T: Task>(simd: Avx512, task: T) -> T::Output {
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
#[target_feature(enable = "avx512bw")]
fn load(bytes: &[u8; BLOCK]) -> __m512i {
    // SAFETY: these are as many bytes as are read, and need no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512bw")]
fn eq(block: __m512i, byte: u8) -> u64 {
    _mm512_cmpeq_epi8_mask(block, _mm512_set1_epi8(byte.cast_signed()))
}

#[inline]
#[target_feature(enable = "avx512bw")]
fn either_has(one: __m512i, other: __m512i, byte: u8) -> bool {
    eq(one, byte) | eq(other, byte) != 0
}

#[inline]
#[target_feature(enable = "avx512bw")]
fn outside(block: __m512i) -> Outside {
    let marks = marks(block);
    let opens = _mm512_test_epi8_mask(marks, _mm512_set1_epi8(table::OPEN.cast_signed()));
    Outside { opens, closes: _mm512_movepi8_mask(marks) }
}

#[inline]
#[target_feature(enable = "avx512bw")]
fn odd(block: __m512i) -> u64 {
    // Signed, and one higher: DEL and bytes that are not ASCII lie below zero, or are zero.
    let higher = _mm512_add_epi8(block, _mm512_set1_epi8(1));
    _mm512_cmplt_epi8_mask(higher, _mm512_set1_epi8(0x21)) | eq(block, b'\\')
}

#[inline]
#[target_feature(enable = "avx512bw")]
fn is_text(bytes: &[u8; STRIDE]) -> bool {
    let (blocks, _) = bytes.as_chunks();
    text_ends(load(&blocks[0])) | text_ends(load(&blocks[1])) == 0
}

#[inline]
#[target_feature(enable = "avx512bw")]
fn is_plain(bytes: &[u8; STRIDE]) -> bool {
    let (blocks, _) = bytes.as_chunks();
    let (one, other) = (load(&blocks[0]), load(&blocks[1]));
    let marks = _mm512_or_si512(marks(one), marks(other));
    _mm512_test_epi8_mask(marks, marks) | eq(one, b'"') | eq(other, b'"') == 0
}

#[inline]
#[target_feature(enable = "avx512bw")]
fn lookup(table: [u8; 16], index: __m512i) -> __m512i {
    let table = u128::from_le_bytes(table);
    let (low, high) = (table as u64, (table >> 64) as u64);
    let table = _mm512_broadcast_i32x4(_mm_set_epi64x(high.cast_signed(), low.cast_signed()));
    _mm512_shuffle_epi8(table, index)
}

/// [`table::MARK`] of each byte.
#[inline]
#[target_feature(enable = "avx512bw")]
fn marks(bytes: __m512i) -> __m512i {
    let high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), _mm512_set1_epi8(15));
    lookup(table::KIND, _mm512_and_si512(lookup(table::LOW, bytes), lookup(table::HIGH, high)))
}

#[inline]
#[target_feature(enable = "avx512bw")]
fn text_ends(bytes: __m512i) -> u64 {
    _mm512_cmpeq_epi8_mask(bytes, lookup(table::TEXT_END, bytes))
}
