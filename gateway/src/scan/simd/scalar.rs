//! No vectors: eight bytes in a word at a time. For other architectures, and the plainest reading of each primitive.

use super::{BLOCK, Outside, STRIDE, Simd, Task, enter, prefix_xor_by_shifts, table};

#[derive(Clone, Copy, Debug)]
pub(in crate::scan) struct Scalar;

/// A word of eight times this byte.
const fn eight(byte: u8) -> u64 {
    u64::MAX / 255 * byte as u64
}

impl Simd for Scalar {
    type Block = [u64; BLOCK / 8];

    #[inline(always)]
    fn enter<T: Task>(self, task: T) -> T::Output {
        enter(self, task)
    }

    #[inline(always)]
    fn load(self, bytes: &[u8; BLOCK]) -> Self::Block {
        let (words, _) = bytes.as_chunks::<8>();
        std::array::from_fn(|i| u64::from_le_bytes(words[i]))
    }

    #[inline(always)]
    fn eq(self, block: Self::Block, byte: u8) -> u64 {
        mask(block, |word| zeros(word ^ eight(byte)))
    }

    #[inline(always)]
    fn either_has(self, one: Self::Block, other: Self::Block, byte: u8) -> bool {
        self.eq(one, byte) | self.eq(other, byte) != 0
    }

    #[inline(always)]
    fn outside(self, block: Self::Block) -> Outside {
        let mut marks = block;
        for word in &mut marks {
            *word = u64::from_le_bytes(word.to_le_bytes().map(|b| table::MARK[usize::from(b)]));
        }
        Outside { opens: mask(marks, |word| word << 1), closes: mask(marks, |word| word) }
    }

    #[inline(always)]
    fn odd(self, block: Self::Block) -> u64 {
        let control = mask(block, |word| zeros(word & eight(0xe0)) | zeros(word ^ eight(0x7f)) | word);
        control | self.eq(block, b'\\')
    }

    #[inline(always)]
    fn is_text(self, bytes: &[u8; STRIDE]) -> bool {
        let (words, _) = bytes.as_chunks::<8>();
        words.iter().fold(0, |ends, word| {
            let word = u64::from_le_bytes(*word);
            ends | zeros(word ^ eight(b'"')) | zeros(word ^ eight(b'\\'))
        }) == 0
    }

    #[inline(always)]
    fn is_plain(self, bytes: &[u8; STRIDE]) -> bool {
        bytes.iter().all(|b| table::is_plain(*b))
    }

    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        prefix_xor_by_shifts(bits)
    }
}

/// The highest bit of each byte of the word that is zero, and no others' highest bit.
#[inline(always)]
fn zeros(word: u64) -> u64 {
    // Adding 0x7f to the low seven bits carries into the eighth unless they are zero, and never beyond it.
    !(((word & eight(0x7f)) + eight(0x7f)) | word) & eight(0x80)
}

/// Gathers the highest bits of all bytes of what `of` makes of each word.
#[inline(always)]
fn mask(block: [u64; BLOCK / 8], of: impl Fn(u64) -> u64) -> u64 {
    block.iter().rev().fold(0, |mask, word| {
        // The product moves bit 7 of byte i to bit 56 + i, and no two bits of it meet.
        let bits = (of(*word) >> 7 & eight(1)).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask << 8 | bits
    })
}
