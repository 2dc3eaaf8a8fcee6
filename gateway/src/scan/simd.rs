//! The vector primitives of the scanner: what one block of 64 bytes holds, as masks with bit `i` for byte `i`.
//!
//! The algorithms in `nested` and `json` are written once, generic over [`Simd`]. Each level of it is a token that
//! only its constructor makes, after it has seen that the CPU has the instructions: who holds one may use them.
//! [`Level::run`] enters a function that is compiled for the level's instructions, and everything generic is
//! inlined into it. This module and its children are the only ones of `scan` with unsafe code.

#![allow(unsafe_code, reason = "vector instructions; a level's token proves that the CPU has them")]

/// Calls what is compiled for a level's instructions, in a method of its token.
macro_rules! proven {
    ($call:expr) => {
        // SAFETY: the method has a token, which is only made where the CPU has the instructions.
        unsafe { $call }
    };
}

/// The methods of [`Simd`] that a level's file has as functions of the same names, compiled for its instructions.
macro_rules! proven_functions {
    () => {
        #[inline(always)]
        fn load(self, bytes: &[u8; BLOCK]) -> Self::Block {
            proven!(load(bytes))
        }

        #[inline(always)]
        fn eq(self, block: Self::Block, byte: u8) -> u64 {
            proven!(eq(block, byte))
        }

        #[inline(always)]
        fn either_has(self, one: Self::Block, other: Self::Block, byte: u8) -> bool {
            proven!(either_has(one, other, byte))
        }

        #[inline(always)]
        fn outside(self, block: Self::Block) -> Outside {
            proven!(outside(block))
        }

        #[inline(always)]
        fn odd(self, block: Self::Block) -> u64 {
            proven!(odd(block))
        }

        #[inline(always)]
        fn is_text(self, bytes: &[u8; STRIDE]) -> bool {
            proven!(is_text(bytes))
        }

        #[inline(always)]
        fn is_plain(self, bytes: &[u8; STRIDE]) -> bool {
            proven!(is_plain(bytes))
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod sse2;
mod table;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use self::scalar::Scalar;

/// Bytes in a block.
pub(super) const BLOCK: usize = 64;
/// Bytes that the loops over long runs look at between two branches.
pub(super) const STRIDE: usize = 2 * BLOCK;

/// What there is in a block if none of it is in strings. A byte that may not stand outside strings is marked as both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outside {
    /// `[`, `{` and strays.
    pub opens: u64,
    /// `]`, `}` and strays.
    pub closes: u64,
}

/// One level of vector instructions.
pub(super) trait Simd: Copy {
    type Block: Copy;

    /// Does a task in a function of its own that is compiled for the level's instructions.
    fn enter<T: Task>(self, task: T) -> T::Output;

    fn load(self, bytes: &[u8; BLOCK]) -> Self::Block;

    /// Where the block holds `byte`.
    fn eq(self, block: Self::Block, byte: u8) -> u64;

    /// Whether either block holds `byte`.
    fn either_has(self, one: Self::Block, other: Self::Block, byte: u8) -> bool;

    fn outside(self, block: Self::Block) -> Outside;

    /// Where text is not plain: `\`, control characters of ASCII and all that is not ASCII.
    fn odd(self, block: Self::Block) -> u64;

    /// Whether none of the bytes is `"` or `\`.
    fn is_text(self, bytes: &[u8; STRIDE]) -> bool;

    /// Whether all bytes may stand outside strings and none of them is a quote or a bracket.
    fn is_plain(self, bytes: &[u8; STRIDE]) -> bool;

    /// Bit `i` of the result is the parity of bits `0..=i`.
    fn prefix_xor(self, bits: u64) -> u64;
}

/// Something that is done at one level.
pub(super) trait Task {
    type Output;

    /// Must be inlined, and all that it calls on `simd`: what is not would run without the level's instructions.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// The levels that a CPU may have. Each holds the token that proves it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Level {
    Scalar(Scalar),
    #[cfg(target_arch = "x86_64")]
    Sse2(sse2::Sse2),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
}

impl Level {
    /// The best level that this CPU has.
    #[inline]
    pub(super) fn best() -> Self {
        static BEST: LazyLock<Level> =
            LazyLock::new(|| Level::all().next_back().unwrap_or(Level::Scalar(Scalar)));
        *BEST
    }

    /// All levels that this CPU has, the best last.
    pub(super) fn all() -> impl DoubleEndedIterator<Item = Self> {
        [
            Some(Self::Scalar(Scalar)),
            #[cfg(target_arch = "x86_64")]
            Some(Self::Sse2(sse2::Sse2)),
            #[cfg(target_arch = "x86_64")]
            avx2::Avx2::new().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            avx512::Avx512::new().map(Self::Avx512),
            #[cfg(target_arch = "aarch64")]
            Some(Self::Neon(neon::Neon)),
        ]
        .into_iter()
        .flatten()
    }

    /// Does a task with this level's instructions.
    #[inline]
    pub(super) fn run<T: Task>(self, task: T) -> T::Output {
        match self {
            Self::Scalar(scalar) => scalar.enter(task),
            #[cfg(target_arch = "x86_64")]
            Self::Sse2(sse2) => sse2.enter(task),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.enter(task),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.enter(task),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(neon) => neon.enter(task),
        }
    }
}

/// Does a task at a level that needs no leave.
#[inline(never)]
fn enter<S: Simd, T: Task>(simd: S, task: T) -> T::Output {
    task.run(simd)
}

/// Prefix XOR for levels without carry-less multiplication.
#[inline(always)]
fn prefix_xor_by_shifts(bits: u64) -> u64 {
    [1, 2, 4, 8, 16, 32].into_iter().fold(bits, |bits, by| bits ^ bits << by)
}
