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

/// Levels of nesting that are allowed, the top-level object among them. Exact, and below what any engine's reader
/// takes (Python about 1000 as well, Go 10,000): what is deeper is no request but an attack on a recursive reader.
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
        while let Some((bytes, more)) = rest.split_first_chunk::<STRIDE>() {
            let ([first, second], []) = bytes.as_chunks::<BLOCK>() else { break };
            let (one, two) = (simd.load(first), simd.load(second));
            let quotes = (simd.eq(one, b'"'), simd.eq(two, b'"'));
            let backslashes = (simd.eq(one, b'\\'), simd.eq(two, b'\\'));
            if quotes.0 | quotes.1 == 0 {
                let passed = simd.enter(PassQuoteless { value: self, rest, backslashes });
                if passed.len() < rest.len() {
                    rest = passed;
                    continue;
                }
            }
            let (mut escaped_one, mut escaped_two) = (0, 0);
            if !self.escapes.is_none(backslashes.0 | backslashes.1) {
                escaped_one = self.escapes.of(backslashes.0, BLOCK);
                escaped_two = self.escapes.of(backslashes.1, BLOCK);
            }
            let step = self.block(simd, quotes.0 & !escaped_one, simd.outside(one));
            if !matches!(step, Step::GoOn) {
                return (step, rest);
            }
            let step = self.block(simd, quotes.1 & !escaped_two, simd.outside(two));
            if !matches!(step, Step::GoOn) {
                return (step, &rest[BLOCK..]);
            }
            rest = more;
        }
        while let Some((block, length, more)) = blocks::next(simd, chunk, rest) {
            let shift = BLOCK - length;
            let escaped = self.escapes.of(simd.eq(block, b'\\') >> shift, length);
            let Outside { opens, closes } = simd.outside(block);
            let outside = Outside { opens: opens >> shift, closes: closes >> shift };
            let step = self.block(simd, simd.eq(block, b'"') >> shift & !escaped, outside);
            if !matches!(step, Step::GoOn) {
                return (step, rest);
            }
            rest = more;
        }
        (Step::GoOn, rest)
    }

    /// Takes a block by its quotes that are not escaped and what it holds outside strings.
    #[inline(always)]
    fn block<S: Simd>(&mut self, simd: S, quotes: u64, outside: Outside) -> Step {
        // A string is from its opening quote to before its closing one.
        let inside = simd.prefix_xor(quotes) ^ self.inside;
        self.inside = (inside.cast_signed() >> 63).cast_unsigned();
        let (opens, closes) = (outside.opens & !inside, outside.closes & !inside);
        let opened = self.depth + opens.count_ones();
        let closed = closes.count_ones();
        if opens & closes != 0 || opened >= DEPTH_MAX {
            return self.byte_by_byte(opens, closes);
        }
        if closed >= self.depth
            && let Some(end) = end(self.depth, opens, closes)
        {
            return Step::End(end);
        }
        self.depth = opened - closed;
        Step::GoOn
    }

    /// Takes a block that may hold an error.
    #[cold]
    #[inline(never)]
    fn byte_by_byte(&mut self, opens: u64, closes: u64) -> Step {
        let mut left = opens | closes;
        while left != 0 {
            let (bit, at) = (left & left.wrapping_neg(), left.trailing_zeros());
            match (opens & bit != 0, closes & bit != 0) {
                (true, true) => return Step::Fault(ScanErrorKind::Syntax, at),
                // The top-level object is a level of its own.
                (true, false) if self.depth + 1 == DEPTH_MAX => {
                    return Step::Fault(ScanErrorKind::TooDeep, at);
                }
                (true, false) => self.depth += 1,
                _ if self.depth == 1 => return Step::End(at),
                _ => self.depth -= 1,
            }
            left ^= bit;
        }
        Step::GoOn
    }
}

/// The bracket that closes the last of `depth` open ones, if it is in this block.
#[inline(always)]
fn end(mut depth: u32, mut opens: u64, mut closes: u64) -> Option<u32> {
    loop {
        // As many close brackets that are open already, or such as open before them: none of these is the last.
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
                match (now.first, chunk.get(last)) {
                    (b'[', Some(b']')) | (b'{', Some(b'}')) => Ok(Some(last + 1)),
                    _ => Err((ScanErrorKind::Brackets, last)),
                }
            }
        }
    }
}

/// Passes as much as holds no quote, if `rest` begins with a stride that holds none, by what that is much faster at
/// than blocks are: text, or numbers. May pass nothing.
struct PassQuoteless<'a, 'b> {
    value: &'b mut Nested,
    rest: &'a [u8],
    backslashes: (u64, u64),
}

impl<'a> Task for PassQuoteless<'a, '_> {
    type Output = &'a [u8];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Self { value, rest, backslashes: (one, two) } = self;
        if value.inside == 0 {
            return blocks::pass_plain(simd, rest);
        }
        value.escapes.of(one, BLOCK);
        value.escapes.of(two, BLOCK);
        let rest = &rest[STRIDE..];
        let passed = blocks::pass_text(simd, rest);
        if passed.len() < rest.len() {
            value.escapes.clear();
        }
        passed
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
