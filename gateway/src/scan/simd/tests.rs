use proptest::prelude::*;

use super::*;

/// Every primitive on one stride, each mask as the list of its bits.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    quotes: u64,
    outside: Outside,
    odd: u64,
    is_text: bool,
    is_plain: bool,
    prefix_xor: u64,
    /// Whether either of two blocks, in either order, holds a backslash.
    has_backslash: [bool; 2],
}

struct See<'a>(&'a [u8; STRIDE]);

impl Task for See<'_> {
    type Output = Seen;

    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let (blocks, _) = self.0.as_chunks();
        let block = simd.load(&blocks[1]);
        let quotes = simd.eq(block, b'"');
        Seen {
            quotes,
            outside: simd.outside(block),
            odd: simd.odd(block),
            is_text: simd.is_text(self.0),
            is_plain: simd.is_plain(self.0),
            prefix_xor: simd.prefix_xor(quotes),
            has_backslash: [
                simd.either_has(simd.load(&blocks[0]), block, b'\\'),
                simd.either_has(block, simd.load(&blocks[0]), b'\\'),
            ],
        }
    }
}

/// What they should say, byte by byte.
fn plainly(bytes: &[u8; STRIDE]) -> Seen {
    let block = &bytes[BLOCK..];
    let mask = |holds: &dyn Fn(u8) -> bool| {
        block.iter().enumerate().fold(0, |mask, (i, byte)| mask | u64::from(holds(*byte)) << i)
    };
    let quotes = mask(&|b| b == b'"');
    let is_stray = |b: u8| !table::is_plain(b) && !b"\"[]{}".contains(&b);
    Seen {
        quotes,
        outside: Outside {
            opens: mask(&|b| b == b'[' || b == b'{' || is_stray(b)),
            closes: mask(&|b| b == b']' || b == b'}' || is_stray(b)),
        },
        odd: mask(&|b| b == b'\\' || !(0x20..0x7f).contains(&b)),
        is_text: !bytes.iter().any(|b| *b == b'"' || *b == b'\\'),
        is_plain: bytes.iter().all(|b| table::is_plain(*b)),
        prefix_xor: (0..64).fold(0, |mask, i| mask | u64::from((quotes << (63 - i)).count_ones() & 1) << i),
        has_backslash: [bytes.contains(&b'\\'); 2],
    }
}

fn check(bytes: &[u8; STRIDE]) {
    for level in Level::all() {
        assert_eq!(level.run(See(bytes)), plainly(bytes), "{level:?}: {}", bytes.escape_ascii());
    }
}

#[test]
fn every_byte_is_known_at_every_level_and_place() {
    for byte in 0..=255 {
        for place in 0..STRIDE {
            let mut bytes = [b'1'; STRIDE];
            bytes[place] = byte;
            check(&bytes);
        }
    }
}

#[test]
fn a_byte_is_the_kind_of_its_nibbles() {
    for byte in 0..=255_u8 {
        let (low, high) = (usize::from(byte & 15), usize::from(byte >> 4));
        // As the shuffles of x86 look it up, which read 0 for what is not ASCII, and as those of Arm do.
        let on_x86 = if byte < 0x80 { table::LOW[low] } else { 0 } & table::HIGH[high];
        let on_arm = table::LOW[low] & table::HIGH[high];
        assert_eq!(table::KIND[usize::from(on_x86)], table::MARK[usize::from(byte)], "{byte:#x}");
        assert_eq!(table::KIND[usize::from(on_arm)], table::MARK[usize::from(byte)], "{byte:#x}");
    }
}

proptest! {
    #[test]
    fn any_block_is_seen_alike_at_every_level(bytes in prop::collection::vec(prop_oneof![
        4 => prop::sample::select(b" ,:ae019.-\t".to_vec()),
        2 => prop::sample::select(b"\"\\[]{}".to_vec()),
        1 => any::<u8>(),
    ], STRIDE)) {
        if let Ok(bytes) = bytes.as_slice().try_into() {
            check(bytes);
        }
    }
}
