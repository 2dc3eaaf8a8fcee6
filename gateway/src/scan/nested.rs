//! Skips one value that the scanner does not read: a string, an array or an object.
//!
//! Only what fixes its end is checked, and this is why that is safe. A reader could take another `model` than the
//! scanner only if it saw other bytes at the top level, so only if it accepted a body in which it ended a skipped
//! value elsewhere. It does not, by induction over the value's bytes:
//!
//! * Outside strings a value may hold white space, `,`, `:`, brackets, quotes and what numbers and literals are made
//!   of (`NaN` and bad numbers too). Every other byte is refused, though RFC 8259 grammar is not checked: a reader
//!   that knows comments (`/`, `#`), single quotes, backquotes or escapes there has nothing to find, and neither
//!   has one that ends its input at NUL. Strings therefore begin at the same bytes for all readers.
//! * A string ends at the first `"` that no backslash escapes, pairs of backslashes counted from its start. All
//!   readers agree on that in a body they accept: an unknown escape (`\q`, `\u12G4`) or a raw control byte makes
//!   the strict ones refuse the body, and those that go on take the byte after `\` and nothing more. In UTF-8 no
//!   byte of a longer sequence is `"` or `\`, and readers either refuse a broken sequence or replace it without
//!   swallowing the ASCII byte that broke it, so bad UTF-8 cannot hide a quote. (A body in another charset can;
//!   a body of UTF-16 or UTF-32 fails at the top level, any other must be refused by its Content-Type.)
//! * So scanner and reader see the same brackets. In a body that a reader accepts they pair by kind, `[` with `]` and
//!   `{` with `}`, or the reader would have met one where its grammar has no place for it. Where all pair by kind, the
//!   bracket that closes the value is the first at which as many have closed as have opened, whatever their kinds:
//!   each one between belongs to a pair of which both are between. The scanner therefore counts, and need not know
//!   the kinds. Of a value whose brackets do not pair (`[}`, `[{]}`) it may find an end that means nothing, but then
//!   no reader accepts the body: that is the engine's to refuse. Only the first and the last bracket are compared,
//!   since that is free and says more clearly what is wrong.
//! * A reader may stop earlier with an error, at a missing comma or at its own depth limit, but then it accepts no
//!   body and reads no model.

use super::ScanErrorKind;
use super::blocks::{self, Escapes};
use super::simd::{BLOCK, Outside, STRIDE, Simd, Task};

/// Levels of nesting that are allowed, the top-level object among them, to the level. No request needs as many, and
/// recursive readers give up there (Python at about 1000, serde_json at 128).
const DEPTH_MAX: u32 = 1000;

/// A value being skipped, over chunks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nested {
    /// The byte it began with: a quote or an opening bracket.
    first: u8,
    /// Brackets open; none in a value that is a string.
    depth: u32,
    /// All ones where the next byte is in a string, else zero.
    inside: u64,
    escapes: Escapes,
}

/// What is wrong, and at which byte of the chunk.
pub(super) type Fault = (ScanErrorKind, usize);

/// What a block does to a value; bits are its bytes.
enum Step {
    GoOn,
    /// This bracket closes it.
    End(u32),
    Fault(ScanErrorKind, u32),
}

impl Nested {
    /// Begins a value with its first byte: a quote or an opening bracket.
    #[inline(always)]
    pub(super) fn begin(first: u8) -> Self {
        let is_string = first == b'"';
        Self {
            first,
            depth: u32::from(!is_string),
            inside: if is_string { u64::MAX } else { 0 },
            escapes: Escapes::default(),
        }
    }

    /// Reads on from `at`. Some: the value ends before that byte. None: it goes on after the chunk.
    #[inline(always)]
    pub(super) fn skip<S: Simd>(&mut self, simd: S, chunk: &[u8], at: usize) -> Result<Option<usize>, Fault> {
        let rest = chunk.get(at..).unwrap_or_default();
        if self.depth == 0 {
            Ok(simd.enter(SkipString { escapes: &mut self.escapes, chunk, rest }))
        } else {
            simd.enter(SkipBrackets { value: self, chunk, rest })
        }
    }

    /// Reads to the value's end or the chunk's. Gives what the last block did, and the bytes from its start on.
    #[inline(always)]
    fn skip_brackets<'a, S: Simd>(&mut self, simd: S, chunk: &[u8], mut rest: &'a [u8]) -> (Step, &'a [u8]) {
        // Whether the last stride had no quote: a text of two strides is likely to be long.
        let mut quoteless = false;
        while self.depth < DEPTH_MAX - STRIDE as u32
            && let Some((bytes, more)) = rest.split_first_chunk::<STRIDE>()
        {
            let ([first, second], []) = bytes.as_chunks::<BLOCK>() else { break };
            let (one, two) = (simd.load(first), simd.load(second));
            let (mut escaped_one, mut escaped_two) = (0, 0);
            if !self.escapes.is_none() | simd.either_has(one, two, b'\\') {
                escaped_one = self.escapes.of(simd.eq(one, b'\\'), BLOCK);
                escaped_two = self.escapes.of(simd.eq(two, b'\\'), BLOCK);
            }
            let quotes_one = simd.eq(one, b'"') & !escaped_one;
            let step = self.block::<S, false>(simd, quotes_one, simd.outside(one));
            if !matches!(step, Step::GoOn) {
                return (step, rest);
            }
            let quotes_two = simd.eq(two, b'"') & !escaped_two;
            let step = self.block::<S, false>(simd, quotes_two, simd.outside(two));
            if !matches!(step, Step::GoOn) {
                return (step, &rest[BLOCK..]);
            }
            rest = more;
            let was_quoteless = std::mem::replace(&mut quoteless, quotes_one | quotes_two == 0);
            if quoteless && was_quoteless {
                let Self { inside, escapes, .. } = *self;
                Passed { rest, escapes: self.escapes } = simd.enter(PassQuoteless { inside, escapes, rest });
            }
        }
        while let Some((block, length, more)) = blocks::next(simd, chunk, rest) {
            let step = self.one_block(simd, block, length);
            if !matches!(step, Step::GoOn) {
                return (step, rest);
            }
            rest = more;
        }
        (Step::GoOn, rest)
    }

    /// Takes the `length` highest bytes of a block.
    #[inline(always)]
    fn one_block<S: Simd>(&mut self, simd: S, block: S::Block, length: usize) -> Step {
        let shift = BLOCK - length;
        let escaped = self.escapes.of(simd.eq(block, b'\\') >> shift, length);
        let Outside { opens, closes } = simd.outside(block);
        let outside = Outside { opens: opens >> shift, closes: closes >> shift };
        self.block::<S, true>(simd, simd.eq(block, b'"') >> shift & !escaped, outside)
    }

    /// Takes a block by its quotes that are not escaped and what it holds outside strings. `DEEP` where it may reach
    /// the greatest depth.
    #[inline(always)]
    fn block<S: Simd, const DEEP: bool>(&mut self, simd: S, quotes: u64, outside: Outside) -> Step {
        // A string is from its opening quote to before its closing one.
        let inside = simd.prefix_xor(quotes) ^ self.inside;
        self.inside = (inside.cast_signed() >> 63).cast_unsigned();
        let (opens, closes) = (outside.opens & !inside, outside.closes & !inside);
        let opened = self.depth + opens.count_ones();
        let closed = closes.count_ones();
        if opens & closes != 0 || (DEEP && opened >= DEPTH_MAX) {
            let step;
            (self.depth, step) = byte_by_byte(self.depth, opens, closes);
            return step;
        }
        if closed >= self.depth
            && let Some(end) = end(self.depth, opens, closes)
        {
            return Step::End(end);
        }
        self.depth = opened - closed;
        Step::GoOn
    }
}

/// The bracket that closes the value whose opening one is just below the bits of `behind`, if the block holds it.
/// `quotes` are those that no backslash escapes, the first of which begins a string. `None` also where the value is at
/// fault.
#[inline(always)]
pub(super) fn closing<S: Simd>(simd: S, block: S::Block, quotes: u64, behind: u64) -> Option<u32> {
    let seen = behind & !simd.prefix_xor(quotes);
    let Outside { opens, closes } = simd.outside(block);
    let (opens, closes) = (opens & seen, closes & seen);
    if opens & closes != 0 { None } else { end(1, opens, closes) }
}

/// Takes a block that may hold an error; gives the depth behind it.
#[cold]
#[inline(never)]
fn byte_by_byte(mut depth: u32, opens: u64, closes: u64) -> (u32, Step) {
    let mut left = opens | closes;
    while left != 0 {
        let (bit, at) = (left & left.wrapping_neg(), left.trailing_zeros());
        match (opens & bit != 0, closes & bit != 0) {
            (true, true) => return (depth, Step::Fault(ScanErrorKind::Syntax, at)),
            // The top-level object is a level of its own.
            (true, false) if depth + 1 == DEPTH_MAX => {
                return (depth, Step::Fault(ScanErrorKind::TooDeep, at));
            }
            (true, false) => depth += 1,
            _ if depth == 1 => return (depth, Step::End(at)),
            _ => depth -= 1,
        }
        left ^= bit;
    }
    (depth, Step::GoOn)
}

#[inline(always)]
pub(super) fn is_pair(first: u8, last: u8) -> bool {
    // `[` and `]`, `{` and `}` lie two apart in ASCII.
    last == first.wrapping_add(2)
}

/// The bracket that closes the last of `depth` open ones, if it is in this block.
#[inline(always)]
fn end(mut depth: u32, mut opens: u64, mut closes: u64) -> Option<u32> {
    loop {
        // So many brackets are open at least: closing all but one of them does not end the value.
        for _ in 1..depth {
            closes &= closes.wrapping_sub(1);
        }
        if closes == 0 {
            return None;
        }
        let before = opens & ((closes & closes.wrapping_neg()) - 1);
        if before == 0 {
            return Some(closes.trailing_zeros());
        }
        depth = before.count_ones();
        opens ^= before;
        closes &= closes - 1;
    }
}

struct SkipBrackets<'a> {
    value: &'a mut Nested,
    chunk: &'a [u8],
    rest: &'a [u8],
}

impl Task for SkipBrackets<'_> {
    type Output = Result<Option<usize>, Fault>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Self { value, chunk, rest } = self;
        // What changes lives in registers.
        let mut now = *value;
        let (step, rest) = now.skip_brackets(simd, chunk, rest);
        *value = now;
        let from = chunk.len() - rest.len();
        match step {
            Step::GoOn => Ok(None),
            Step::Fault(kind, bit) => Err((kind, from + bit as usize)),
            Step::End(bit) => {
                let last = from + bit as usize;
                match chunk.get(last) {
                    Some(byte) if is_pair(now.first, *byte) => Ok(Some(last + 1)),
                    _ => Err((ScanErrorKind::Brackets, last)),
                }
            }
        }
    }
}

/// Passes whole strides that hold no quote but escaped ones, and outside strings no bracket: long texts and lists of
/// numbers, in much less time than block by block. May pass nothing.
struct PassQuoteless<'a> {
    inside: u64,
    escapes: Escapes,
    rest: &'a [u8],
}

struct Passed<'a> {
    rest: &'a [u8],
    escapes: Escapes,
}

impl<'a> Task for PassQuoteless<'a> {
    type Output = Passed<'a>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Self { inside, mut escapes, mut rest } = self;
        if inside == 0 {
            return Passed { rest: blocks::pass_plain(simd, rest), escapes };
        }
        while let Some((bytes, more)) = rest.split_first_chunk::<STRIDE>() {
            if simd.is_text(bytes) {
                escapes = Escapes::default();
                rest = blocks::pass_text(simd, rest);
            } else {
                let ([first, second], []) = bytes.as_chunks::<BLOCK>() else { break };
                let (one, two) = (simd.load(first), simd.load(second));
                let mut after = escapes;
                let escaped = (after.of(simd.eq(one, b'\\'), BLOCK), after.of(simd.eq(two, b'\\'), BLOCK));
                if simd.eq(one, b'"') & !escaped.0 | simd.eq(two, b'"') & !escaped.1 != 0 {
                    break;
                }
                escapes = after;
                rest = more;
            }
        }
        Passed { rest, escapes }
    }
}

/// Skips a string from behind its opening quote.
struct SkipString<'a> {
    escapes: &'a mut Escapes,
    chunk: &'a [u8],
    rest: &'a [u8],
}

impl Task for SkipString<'_> {
    type Output = Option<usize>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Self { escapes, chunk, mut rest } = self;
        while let Some((block, length, more)) = blocks::next(simd, chunk, rest) {
            let shift = BLOCK - length;
            let (quotes, backslashes) = (simd.eq(block, b'"') >> shift, simd.eq(block, b'\\') >> shift);
            let ends = quotes & !escapes.of(backslashes, length);
            if ends != 0 {
                return Some(chunk.len() - rest.len() + ends.trailing_zeros() as usize + 1);
            }
            rest = more;
            if quotes | backslashes == 0 {
                rest = blocks::pass_text(simd, rest);
            }
        }
        None
    }
}
