//! What each byte may be outside strings, and the same split by nibbles, as byte shuffles look it up.

/// Bytes that may stand outside strings in a nested value: white space, `,` and `:`, and what numbers and literals
/// (also `NaN` and `Infinity`) are made of. Quotes and brackets may too, but are not plain.
pub(super) const fn is_plain(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
}

/// What a byte is outside strings, in its two highest bits; 0 where it is nothing to note: plain, or `"`.
pub(super) const OPEN: u8 = 1 << 6;
pub(super) const CLOSE: u8 = 1 << 7;
/// One that may not stand there is marked as both.
pub(super) const STRAY: u8 = OPEN | CLOSE;

/// [`MARK`] of every byte that is looked up as three nibbles: `KIND[LOW[low] & HIGH[high]]`. The values of `LOW` and
/// `HIGH` were found by search and mean nothing by themselves. Shuffles of x86 give 0 for an index that is not ASCII,
/// so `KIND[0]` must be [`STRAY`].
pub(super) const LOW: [u8; 16] = [10, 1, 11, 1, 1, 1, 1, 1, 1, 3, 3, 13, 12, 15, 12, 6];
pub(super) const HIGH: [u8; 16] = [14, 0, 8, 13, 11, 7, 11, 7, 0, 0, 0, 0, 0, 0, 0, 0];
pub(super) const KIND: [u8; 16] =
    [STRAY, 0, 0, 0, STRAY, OPEN, STRAY, CLOSE, 0, 0, STRAY, 0, STRAY, STRAY, 0, STRAY];

/// What each byte is outside strings.
pub(super) const MARK: [u8; 256] = {
    let mut mark = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        mark[byte] = match byte as u8 {
            b'[' | b'{' => OPEN,
            b']' | b'}' => CLOSE,
            b'"' => 0,
            byte if is_plain(byte) => 0,
            _ => STRAY,
        };
        byte += 1;
    }
    mark
};

/// Looks up the low nibble of `"` and `\` to that byte, others to a byte with another low nibble: equal to the
/// byte looked up for these two alone. (A shuffle gives 0 for bytes that are not ASCII, and none of them is 0.)
pub(super) const TEXT_END: [u8; 16] = {
    let mut ends = [0; 16];
    ends[0x0] = 1;
    ends[0x2] = b'"';
    ends[0xc] = b'\\';
    ends
};
