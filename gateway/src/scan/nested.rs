//! Skips one value that the scanner does not read: a string, an array or an object.
//!
//! Only what fixes its end is checked, and this is why that is safe. A reader could take another `model` than the
//! scanner only if it saw other bytes at the top level, so only if it ended a skipped value elsewhere.
//!
//! * Outside strings a value may hold white space, `,`, `:`, brackets and what numbers and literals are made of
//!   (`NaN` and bad numbers too). Every other byte is refused, though RFC 8259 grammar is not checked: a reader
//!   that knows comments (`/`, `#`), single quotes, backquotes or escapes there has nothing to find, and neither
//!   has one that ends its input at NUL. Strings therefore begin at the same bytes for all readers.
//! * A string ends at the first `"` that no backslash escapes, pairs of backslashes counted from its start. All
//!   readers agree on that in a body they accept: an unknown escape (`\q`, `\u12G4`) or a raw control byte makes
//!   the strict ones refuse the body, and those that go on take the byte after `\` and nothing more. In UTF-8 no
//!   byte of a longer sequence is `"` or `\`, and readers either refuse a broken sequence or replace it without
//!   swallowing the ASCII byte that broke it, so bad UTF-8 cannot hide a quote. (A body in another charset can;
//!   a body of UTF-16 or UTF-32 fails at the top level, any other must be refused by its Content-Type.)
//! * Brackets must pair by kind, counted outside strings only. A reader may stop earlier with an error, at a missing
//!   comma or at its own depth limit, but then it accepts no body and reads no model.

use super::{ScanErrorKind, skip};

/// Levels of nesting that are allowed, the top-level object among them.
pub(super) const DEPTH_MAX: usize = 1000;

/// A value being skipped; the memory is one bit for each open bracket.
#[derive(Debug)]
pub(super) struct Nested {
    within: Within,
    /// Brackets open inside the value.
    depth: usize,
    /// One bit per open bracket, set for `{`.
    objects: [u64; DEPTH_MAX.div_ceil(64)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Brackets,
    String,
    /// After a backslash in a string.
    Escape,
}

/// What is wrong, and at which of the bytes given.
pub(super) type Fault = (ScanErrorKind, usize);

impl Nested {
    pub(super) fn new() -> Self {
        Self { within: Within::Brackets, depth: 0, objects: [0; _] }
    }

    /// Begins a value with its first byte: a quote or an opening bracket.
    pub(super) fn begin(&mut self, first: u8) {
        self.depth = 0;
        self.within = Within::Brackets;
        if first == b'"' {
            self.within = Within::String;
        } else {
            self.depth = 1;
            self.objects[0] = u64::from(first == b'{');
        }
    }

    /// Reads on. Some: the value ends after that many bytes. None: it goes on after all of them.
    pub(super) fn skip(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            at += match self.within {
                Within::Brackets => match skip::plain(rest) {
                    None => return Ok(None),
                    Some(plain) => {
                        self.bracket(rest[plain]).map_err(|kind| (kind, at + plain))?;
                        plain + 1
                    }
                },
                Within::String => match skip::string(rest) {
                    None => return Ok(None),
                    Some(text) => {
                        self.within = if rest[text] == b'"' { Within::Brackets } else { Within::Escape };
                        text + 1
                    }
                },
                Within::Escape if rest.is_empty() => return Ok(None),
                Within::Escape => {
                    self.within = Within::String;
                    1
                }
            };
            if self.depth == 0 && self.within == Within::Brackets {
                return Ok(Some(at));
            }
        }
    }

    /// Takes a byte that is not plain, outside strings.
    fn bracket(&mut self, byte: u8) -> Result<(), ScanErrorKind> {
        match byte {
            b'"' => self.within = Within::String,
            b'[' | b'{' => {
                // The top-level object is a level of its own.
                if self.depth + 1 == DEPTH_MAX {
                    return Err(ScanErrorKind::TooDeep);
                }
                let bit = 1 << (self.depth % 64);
                let word = &mut self.objects[self.depth / 64];
                *word = if byte == b'{' { *word | bit } else { *word & !bit };
                self.depth += 1;
            }
            b']' | b'}' => {
                let top = self.depth - 1;
                let is_object = self.objects[top / 64] >> (top % 64) & 1 == 1;
                if is_object != (byte == b'}') {
                    return Err(ScanErrorKind::Brackets);
                }
                self.depth = top;
            }
            _ => return Err(ScanErrorKind::Syntax),
        }
        Ok(())
    }
}
