//! The two loops that see most bytes of most bodies. What they find is defined here, byte by byte; how fast they
//! find it is theirs alone.

use memchr::memchr2;

/// Where the first `"` or `\` is: everything before it is plain text of a string.
pub(super) fn string(bytes: &[u8]) -> Option<usize> {
    // Text has an escape or an end every few words: look at the first bytes before paying for a call.
    let near = bytes.len().min(NEAR);
    if let Some(at) = bytes[..near].iter().position(|&b| b == b'"' || b == b'\\') {
        return Some(at);
    }
    memchr2(b'"', b'\\', &bytes[near..]).map(|at| near + at)
}

const NEAR: usize = 8;

/// Where the first byte is that is not [`is_plain`]: a quote, a bracket, or a byte that JSON has no place for.
pub(super) fn plain(bytes: &[u8]) -> Option<usize> {
    // Between two strings there are a few bytes; between two brackets there may be a prompt's worth of numbers.
    let mut at = bytes.len().min(NEAR);
    if let Some(near) = bytes[..at].iter().position(|&b| !PLAIN[usize::from(b)]) {
        return Some(near);
    }
    // Whole blocks without a branch inside, which the compiler turns into vector code.
    while let Some(block) = bytes.get(at..at + BLOCK) {
        if !block.iter().fold(true, |all, &b| all & is_plain(b)) {
            break;
        }
        at += BLOCK;
    }
    bytes[at..].iter().position(|&b| !PLAIN[usize::from(b)]).map(|more| at + more)
}

const BLOCK: usize = 32;

const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        plain[byte] = is_plain(byte as u8);
        byte += 1;
    }
    plain
};

/// Bytes that may stand between strings and brackets in a nested value: white space, `,` and `:`, and what
/// numbers and literals (also `NaN` and `Infinity`) are made of.
pub(super) const fn is_plain(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_find_what_a_plain_loop_finds(bytes in prop::collection::vec(prop_oneof![
            8 => prop::sample::select(b" ,:ae019.-\t".to_vec()), 1 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'\\')
        ], 0..200)) {
            prop_assert_eq!(string(&bytes), bytes.iter().position(|&b| b == b'"' || b == b'\\'));
            prop_assert_eq!(plain(&bytes), bytes.iter().position(|&b| !is_plain(b)));
        }
    }
}
