//! What the sweep sees at once: one block, the first byte of which that counts lies outside strings.
//!
//! Its masks are made when it is loaded and depend on no place that is found in it, so that the CPU makes them while
//! it still reads what came before; going from token to token in it is then a few operations on words.

use crate::scan::blocks::{self, Escapes};
use crate::scan::nested;
use crate::scan::simd::{BLOCK, Simd};

/// A block of the chunk; bits are its bytes.
pub(super) struct View<S: Simd> {
    block: Option<S::Block>,
    /// Where in the chunk bit 0 is; before its start (wrapped) if the chunk is shorter than a block.
    base: usize,
    /// The quotes that no backslash escapes.
    quotes: u64,
    /// What a plain word may not hold.
    odd: u64,
}

impl<S: Simd> View<S> {
    /// Nothing is seen yet.
    #[inline(always)]
    pub(super) fn none() -> Self {
        Self { block: None, base: 0, quotes: 0, odd: 0 }
    }

    /// What there is from `at` on, which is outside strings.
    #[inline(always)]
    fn from(simd: S, chunk: &[u8], at: usize) -> Option<Self> {
        let (block, length, _) = blocks::next(simd, chunk, chunk.get(at..)?)?;
        let counts = u64::MAX << (BLOCK - length);
        let (mut quotes, odd) = (simd.eq(block, b'"') & counts, simd.odd(block));
        if odd & counts != 0 {
            quotes &= !Escapes::default().of(simd.eq(block, b'\\') & counts, BLOCK);
        }
        Some(Self { block: Some(block), base: (at + length).wrapping_sub(BLOCK), quotes, odd })
    }

    /// The bits behind `at`, if it is seen.
    #[inline(always)]
    fn behind(&self, at: usize) -> Option<u64> {
        let bit = at.wrapping_sub(self.base);
        if bit < BLOCK { Some(!1 << bit) } else { None }
    }

    /// The string whose opening quote is at `at`, if it ends within a block and is plain: printable ASCII without
    /// escapes.
    #[inline(always)]
    pub(super) fn word<'a>(&mut self, simd: S, chunk: &'a [u8], at: usize) -> Option<&'a [u8]> {
        let mut behind = self.behind(at).unwrap_or_default();
        if self.quotes & behind == 0 {
            *self = Self::from(simd, chunk, at)?;
            behind = self.behind(at)?;
        }
        let ends = self.quotes & behind;
        // All bits below the first end.
        let before = ends.wrapping_sub(1) & !ends;
        if ends == 0 || self.odd & behind & before != 0 {
            return None;
        }
        chunk.get(at + 1..self.base.wrapping_add(ends.trailing_zeros() as usize))
    }

    /// Skips the value that begins with `first` at `at`, if its end is seen. `None`: it is not, or it is at fault.
    #[inline(always)]
    pub(super) fn skip(&self, simd: S, chunk: &[u8], at: usize, first: u8) -> Option<usize> {
        let behind = self.behind(at)?;
        if first == b'"' {
            let ends = self.quotes & behind;
            return (ends != 0).then(|| self.base.wrapping_add(ends.trailing_zeros() as usize + 1));
        }
        let end = nested::closing(simd, self.block?, self.quotes, behind)?;
        let last = self.base.wrapping_add(end as usize);
        nested::is_pair(first, *chunk.get(last)?).then_some(last + 1)
    }
}
