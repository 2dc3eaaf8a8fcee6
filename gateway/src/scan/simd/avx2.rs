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

// SAFETY, for all of the following: the token proves the instructions, and the loads stay in the arrays given.
impl Simd for Avx2 {
    type Block = (__m256i, __m256i);

    #[inline(always)]
    fn enter<T: Task>(self, task: T) -> T::Output {
        #[target_feature(enable = "avx2,pclmulqdq,popcnt,lzcnt,bmi1,bmi2")]
        #[inline(never)]
        fn inside<T: Task>(simd: Avx2, task: T) -> T::Output {
            task.run(simd)
        }
        unsafe { inside(self, task) }
    }

    #[inline(always)]
    fn load(self, bytes: &[u8; BLOCK]) -> Self::Block {
        unsafe { (load(bytes.as_ptr()), load(bytes.as_ptr().add(32))) }
    }

    #[inline(always)]
    fn eq(self, (low, high): Self::Block, byte: u8) -> u64 {
        unsafe {
            let byte = _mm256_set1_epi8(byte.cast_signed());
            mask(_mm256_cmpeq_epi8(low, byte), _mm256_cmpeq_epi8(high, byte))
        }
    }

    #[inline(always)]
    fn either_has(self, one: Self::Block, other: Self::Block, byte: u8) -> bool {
        unsafe {
            let byte = _mm256_set1_epi8(byte.cast_signed());
            let one = _mm256_or_si256(_mm256_cmpeq_epi8(one.0, byte), _mm256_cmpeq_epi8(one.1, byte));
            let other = _mm256_or_si256(_mm256_cmpeq_epi8(other.0, byte), _mm256_cmpeq_epi8(other.1, byte));
            _mm256_movemask_epi8(_mm256_or_si256(one, other)) != 0
        }
    }

    #[inline(always)]
    fn outside(self, (low, high): Self::Block) -> Outside {
        unsafe {
            let (low, high) = (marks(low), marks(high));
            let opens = mask(_mm256_add_epi8(low, low), _mm256_add_epi8(high, high));
            Outside { opens, closes: mask(low, high) }
        }
    }

    #[inline(always)]
    fn stops(self, (low, high): Self::Block) -> u64 {
        unsafe { mask(stops(low), stops(high)) }
    }

    #[inline(always)]
    fn is_text(self, bytes: &[u8; STRIDE]) -> bool {
        unsafe {
            let at = bytes.as_ptr();
            let low = _mm256_or_si256(text_end(load(at)), text_end(load(at.add(32))));
            let high = _mm256_or_si256(text_end(load(at.add(64))), text_end(load(at.add(96))));
            _mm256_movemask_epi8(_mm256_or_si256(low, high)) == 0
        }
    }

    #[inline(always)]
    fn is_plain(self, bytes: &[u8; STRIDE]) -> bool {
        unsafe {
            let at = bytes.as_ptr();
            let low = _mm256_or_si256(structure(load(at)), structure(load(at.add(32))));
            let high = _mm256_or_si256(structure(load(at.add(64))), structure(load(at.add(96))));
            let any = _mm256_or_si256(low, high);
            _mm256_testz_si256(any, any) == 1
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
unsafe fn load(at: *const u8) -> __m256i {
    unsafe { _mm256_loadu_si256(at.cast()) }
}

/// The highest bits of all bytes.
#[inline(always)]
unsafe fn mask(low: __m256i, high: __m256i) -> u64 {
    unsafe {
        let low = _mm256_movemask_epi8(low).cast_unsigned();
        let high = _mm256_movemask_epi8(high).cast_unsigned();
        u64::from(low) | u64::from(high) << 32
    }
}

#[inline(always)]
unsafe fn lookup(table: [u8; 16], index: __m256i) -> __m256i {
    unsafe {
        let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
        _mm256_shuffle_epi8(table, index)
    }
}

/// [`table::MARK`] of each byte.
#[inline(always)]
unsafe fn marks(bytes: __m256i) -> __m256i {
    unsafe {
        let high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(15));
        lookup(table::KIND, _mm256_and_si256(lookup(table::LOW, bytes), lookup(table::HIGH, high)))
    }
}

/// Not zero where a byte is not plain.
#[inline(always)]
unsafe fn structure(bytes: __m256i) -> __m256i {
    unsafe { _mm256_or_si256(marks(bytes), _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'"'.cast_signed()))) }
}

#[inline(always)]
unsafe fn stops(bytes: __m256i) -> __m256i {
    unsafe {
        // Signed: bytes that are not ASCII lie below zero.
        let control = _mm256_cmpgt_epi8(_mm256_set1_epi8(0x20), bytes);
        let delete = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(0x7f));
        _mm256_or_si256(_mm256_or_si256(control, delete), text_end(bytes))
    }
}

#[inline(always)]
unsafe fn text_end(bytes: __m256i) -> __m256i {
    unsafe { _mm256_cmpeq_epi8(bytes, lookup(table::TEXT_END, bytes)) }
}
