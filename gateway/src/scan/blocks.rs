//! How chunks are read by blocks: loads, runs over what is of no interest, and the bytes that backslashes escape.

use super::simd::{BLOCK, STRIDE, Simd};

/// The next block of `rest`, the end of `chunk`, as far as there is one: how many of its highest bits are of `rest`
/// (all others are of bytes before it, or of none), and what follows. Shifting a mask down by the others makes bit 0
/// the first byte of `rest`, and the bits behind its end zero.
#[inline(always)]
pub(super) fn next<'a, S: Simd>(
    simd: S,
    chunk: &[u8],
    rest: &'a [u8],
) -> Option<(S::Block, usize, &'a [u8])> {
    if let Some((bytes, more)) = rest.split_first_chunk() {
        return Some((simd.load(bytes), BLOCK, more));
    }
    if rest.is_empty() {
        return None;
    }
    if let Some(bytes) = chunk.last_chunk() {
        return Some((simd.load(bytes), rest.len(), &[]));
    }
    let mut bytes = [0; BLOCK];
    bytes[BLOCK - rest.len()..].copy_from_slice(rest);
    Some((simd.load(&bytes), rest.len(), &[]))
}

/// Passes whole strides without a quote or a backslash.
#[inline(always)]
pub(super) fn pass_text<S: Simd>(simd: S, mut rest: &[u8]) -> &[u8] {
    while let Some((bytes, more)) = rest.split_first_chunk()
        && simd.is_text(bytes)
    {
        rest = more;
    }
    rest
}

/// Passes whole strides without a quote, a bracket, or a byte that may not stand outside strings.
#[inline(always)]
pub(super) fn pass_plain<S: Simd>(simd: S, mut rest: &[u8]) -> &[u8] {
    while let Some((bytes, more)) = rest.split_first_chunk::<STRIDE>()
        && simd.is_plain(bytes)
    {
        rest = more;
    }
    rest
}

/// Which bytes are escaped, over blocks: 1 where a backslash escapes the next byte, else 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Escapes(u64);

impl Escapes {
    /// The bytes that backslashes escape in the next block, of `length` bytes.
    ///
    /// A backslash escapes what follows it unless it is escaped itself, so every other one in a run does. Subtracting
    /// the backslashes that could escape from the bits above them and all odd bits leaves, in each run, the bits
    /// that differ from `ODD` at every other place from its start (the trick is simdjson's).
    #[inline(always)]
    pub(super) fn of(&mut self, backslashes: u64, length: usize) -> u64 {
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        if backslashes == 0 {
            return std::mem::take(&mut self.0);
        }
        let possible = backslashes & !self.0;
        let ends = (possible << 1 | ODD).wrapping_sub(possible) ^ ODD;
        let escaped = ends ^ (backslashes | self.0);
        self.0 = (ends & backslashes) >> (length - 1) & 1;
        escaped
    }

    /// Whether the next byte is not escaped.
    #[inline(always)]
    pub(super) fn is_none(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scan::simd::{Level, Task};

    proptest! {
        #[test]
        fn escapes_are_those_of_a_plain_loop(blocks in prop::collection::vec((any::<u64>(), any::<u64>(), 1..=BLOCK), 1..5)) {
            let mut escapes = Escapes::default();
            let mut escapes_next = false;
            for (one, other, length) in blocks {
                // Long runs matter most.
                let backslashes = (one | other) & (u64::MAX >> (BLOCK - length));
                let mut wanted = 0;
                prop_assert_eq!(escapes.is_none(), !escapes_next);
                for bit in 0..length {
                    let is_escaped = std::mem::take(&mut escapes_next);
                    wanted |= u64::from(is_escaped) << bit;
                    escapes_next = !is_escaped && backslashes >> bit & 1 == 1;
                }
                let escaped = escapes.of(backslashes, length) & (u64::MAX >> (BLOCK - length));
                prop_assert_eq!(escaped, wanted);
            }
        }
    }

    struct Cut<'a>(&'a [u8]);

    impl Task for Cut<'_> {
        type Output = Vec<(u64, usize)>;

        fn run<S: Simd>(self, simd: S) -> Self::Output {
            let mut masks = Vec::new();
            let mut rest = self.0;
            while let Some((block, length, more)) = next(simd, self.0, rest) {
                masks.push((simd.eq(block, 0) >> (BLOCK - length), length));
                rest = more;
            }
            masks
        }
    }

    #[test]
    fn a_chunks_last_block_holds_what_is_left_and_nothing_else() {
        for length in 0..300 {
            let chunk: Vec<u8> = (0..length).map(|i| u8::from(i % 3 != 0)).collect();
            let wanted: Vec<(u64, usize)> = chunk
                .chunks(BLOCK)
                .map(|bytes| {
                    let mask = bytes.iter().rev().fold(0, |mask, b| mask << 1 | u64::from(*b == 0));
                    (mask, bytes.len())
                })
                .collect();
            for level in Level::all() {
                assert_eq!(level.run(Cut(&chunk)), wanted, "{level:?}, {length} bytes");
            }
        }
    }
}
