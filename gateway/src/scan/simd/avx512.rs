//! AVX-512BW, in server CPUs since 2017 (Skylake) and 2022 (Zen 4): a block is one register, and comparing makes
//! masks.

use std::arch::x86_64::*;

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

// SAFETY, for all of the following: the token proves the instructions, and the loads stay in the arrays given.
impl Simd for Avx512 {
    type Block = __m512i;

    #[inline(always)]
    fn enter<T: Task>(self, task: T) -> T::Output {
        #[target_feature(enable = "avx512f,avx512bw,pclmulqdq,popcnt,lzcnt,bmi1,bmi2")]
        #[inline(never)]
        fn inside<T: Task>(simd: Avx512, task: T) -> T::Output {
            task.run(simd)
        }
        unsafe { inside(self, task) }
    }

    #[inline(always)]
    fn load(self, bytes: &[u8; BLOCK]) -> Self::Block {
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn eq(self, block: Self::Block, byte: u8) -> u64 {
        unsafe { _mm512_cmpeq_epi8_mask(block, _mm512_set1_epi8(byte.cast_signed())) }
    }

    #[inline(always)]
    fn either_has(self, one: Self::Block, other: Self::Block, byte: u8) -> bool {
        self.eq(one, byte) | self.eq(other, byte) != 0
    }

    #[inline(always)]
    fn outside(self, block: Self::Block) -> Outside {
        unsafe {
            let marks = marks(block);
            let opens = _mm512_test_epi8_mask(marks, _mm512_set1_epi8(table::OPEN.cast_signed()));
            Outside { opens, closes: _mm512_movepi8_mask(marks) }
        }
    }

    #[inline(always)]
    fn stops(self, block: Self::Block) -> u64 {
        unsafe {
            // Signed: bytes that are not ASCII lie below zero.
            let low = _mm512_cmplt_epi8_mask(block, _mm512_set1_epi8(0x20));
            low | self.eq(block, 0x7f) | text_end(block)
        }
    }

    #[inline(always)]
    fn is_text(self, bytes: &[u8; STRIDE]) -> bool {
        let (blocks, _) = bytes.as_chunks::<BLOCK>();
        unsafe { text_end(self.load(&blocks[0])) | text_end(self.load(&blocks[1])) == 0 }
    }

    #[inline(always)]
    fn is_plain(self, bytes: &[u8; STRIDE]) -> bool {
        unsafe {
            let (blocks, _) = bytes.as_chunks::<BLOCK>();
            let (one, other) = (self.load(&blocks[0]), self.load(&blocks[1]));
            let marks = _mm512_or_si512(marks(one), marks(other));
            _mm512_test_epi8_mask(marks, marks) | self.eq(one, b'"') | self.eq(other, b'"') == 0
        }
    }

    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        unsafe {
            let product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(bits.cast_signed()), _mm_set1_epi8(-1), 0);
            _mm_cvtsi128_si64(product).cast_unsigned()
        }
    }
}

#[inline(always)]
unsafe fn lookup(table: [u8; 16], index: __m512i) -> __m512i {
    unsafe {
        let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
        _mm512_shuffle_epi8(table, index)
    }
}

/// [`table::MARK`] of each byte.
#[inline(always)]
unsafe fn marks(bytes: __m512i) -> __m512i {
    unsafe {
        let high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), _mm512_set1_epi8(15));
        lookup(table::KIND, _mm512_and_si512(lookup(table::LOW, bytes), lookup(table::HIGH, high)))
    }
}

#[inline(always)]
unsafe fn text_end(bytes: __m512i) -> u64 {
    unsafe { _mm512_cmpeq_epi8_mask(bytes, lookup(table::TEXT_END, bytes)) }
}
