//! The top level of a JSON body: checked in full by RFC 8259, its keys decoded, its values skipped or noted.
//!
//! Members that lie whole in a chunk, as nearly all do, are read in one sweep ([`JsonScanner::members`]); what a
//! chunk's end cuts, and what is rare (escapes in keys, names that are not ASCII, errors), goes byte by byte
//! through `step`, which is the rule that the sweep abbreviates.
//!
//! `NaN` and `Infinity` at the top level are refused, though Python takes them: no other reader does.

mod step;

use self::step::{Literal, State};
use super::nested::Nested;
use super::number::Number;
use super::simd::{BLOCK, Level, Simd, Task};
use super::text::Text;
use super::{Facts, ModelValue, ScanError, ScanErrorKind, blocks, name};

/// Scans one JSON body.
#[derive(Debug)]
pub struct JsonScanner {
    level: Level,
    state: State,
    /// Body bytes read in earlier chunks.
    offset: u64,
    /// Where the key or model in progress has its opening quote.
    start: u64,
    /// Whose value is next or in progress.
    key: Key,
    text: Text,
    number: Number,
    nested: Nested,
    model: Option<ModelValue>,
    facts: Facts,
    failed: Option<ScanError>,
}

/// The top-level keys that mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Model,
    Stream,
    MaxTokens,
    Other,
}

/// What is wrong, and where in the body.
type Fault = (ScanErrorKind, u64);

impl Default for JsonScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl JsonScanner {
    #[must_use]
    pub fn new() -> Self {
        Self::at(Level::best())
    }

    pub(super) fn at(level: Level) -> Self {
        Self {
            level,
            state: State::Start,
            offset: 0,
            start: 0,
            key: Key::Other,
            text: Text::default(),
            number: Number::default(),
            nested: Nested::default(),
            model: None,
            facts: Facts::default(),
            failed: None,
        }
    }

    /// See [`super::Scanner::push`].
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), ScanError> {
        match self.failed {
            Some(error) => Err(error),
            None => self.level.run(Push { scanner: self, chunk }),
        }
    }

    /// See [`super::Scanner::finish`].
    pub fn finish(&mut self) -> Result<(), ScanError> {
        match (self.failed, self.state) {
            (Some(error), _) => Err(error),
            (None, State::End) => Ok(()),
            (None, State::Start) => Err(self.fail((ScanErrorKind::NotAnObject, self.offset))),
            (None, _) => Err(self.fail((ScanErrorKind::Truncated, self.offset))),
        }
    }

    #[must_use]
    pub fn model(&self) -> Option<&ModelValue> {
        self.model.as_ref()
    }

    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    #[cold]
    fn fail(&mut self, (kind, offset): Fault) -> ScanError {
        let error = ScanError { kind, offset };
        self.failed = Some(error);
        error
    }

    #[inline(always)]
    fn read<S: Simd>(&mut self, simd: S, chunk: &[u8]) -> Result<(), Fault> {
        // The state lives in a register while the chunk lasts.
        let mut state = self.state;
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            (state, at) = match state {
                State::FirstKey | State::NextKey => self.members(simd, chunk, state, at)?,
                State::Start if byte == b'{' => (State::FirstKey, at + 1),
                State::Nested => self.skip(simd, chunk, at)?,
                _ => (self.step(state, byte, self.offset + at as u64)?, at + 1),
            };
        }
        self.state = state;
        self.offset += chunk.len() as u64;
        Ok(())
    }

    /// Reads members from before a key on, as many as lie whole in the chunk and are plain. Gives the place where it
    /// left off, and what that belongs to.
    #[inline(always)]
    fn members<S: Simd>(
        &mut self,
        simd: S,
        chunk: &[u8],
        mut state: State,
        mut at: usize,
    ) -> Result<(State, usize), Fault> {
        loop {
            at = space(chunk, at);
            match chunk.get(at) {
                None => return Ok((state, at)),
                Some(b'"') => {}
                Some(b'}') if matches!(state, State::FirstKey) => return Ok((State::End, at + 1)),
                Some(_) => return Err((ScanErrorKind::Syntax, self.offset + at as u64)),
            }
            self.start = self.offset + at as u64;
            let Some(key) = word(simd, chunk, at + 1) else {
                self.text.begin();
                return Ok((State::Key, at + 1));
            };
            self.classify(Some(key))?;
            at = space(chunk, at + key.len() + 2);
            if chunk.get(at) != Some(&b':') {
                return Ok((State::Colon, at));
            }
            at = space(chunk, at + 1);
            (state, at) = self.value(simd, chunk, at)?;
            if !matches!(state, State::Comma) {
                return Ok((state, at));
            }
            at = space(chunk, at);
            (state, at) = match chunk.get(at) {
                Some(b',') => (State::NextKey, at + 1),
                Some(b'}') => return Ok((State::End, at + 1)),
                _ => return Ok((State::Comma, at)),
            };
        }
    }

    /// Reads a value from its first byte on: to behind its end, or not at all, or to where the chunk cuts it.
    #[inline(always)]
    fn value<S: Simd>(&mut self, simd: S, chunk: &[u8], at: usize) -> Result<(State, usize), Fault> {
        let end = match chunk.get(at) {
            Some(b'"') if self.key == Key::Model => self.plain_model(simd, chunk, at),
            _ if self.key == Key::Model => None,
            Some(&first @ (b'[' | b'{')) => match Nested::skip_short(simd, chunk, at) {
                Some(end) => Some(end),
                None => {
                    self.nested = Nested::begin(first);
                    return self.skip(simd, chunk, at + 1);
                }
            },
            Some(b'"') => match word(simd, chunk, at + 1) {
                Some(word) => Some(at + word.len() + 2),
                None => {
                    self.nested = Nested::begin(b'"');
                    return self.skip(simd, chunk, at + 1);
                }
            },
            Some(&first @ (b't' | b'f' | b'n')) => self.whole_literal(Literal::of(first), chunk, at),
            Some(b'-' | b'0'..=b'9') => self.whole_number(chunk, at),
            _ => None,
        };
        Ok(end.map_or((State::Value, at), |end| (State::Comma, end)))
    }

    /// Skips on in a value that is not read.
    #[inline(always)]
    fn skip<S: Simd>(&mut self, simd: S, chunk: &[u8], at: usize) -> Result<(State, usize), Fault> {
        match self.nested.skip(simd, chunk, at) {
            Ok(Some(end)) => Ok((State::Comma, end)),
            Ok(None) => Ok((State::Nested, chunk.len())),
            Err((kind, at)) => Err((kind, self.offset + at as u64)),
        }
    }

    /// Reads a model of ASCII without escapes, whose opening quote is at `at`. `None` where it is not that simple.
    #[inline(always)]
    fn plain_model<S: Simd>(&mut self, simd: S, chunk: &[u8], at: usize) -> Option<usize> {
        let word = word(simd, chunk, at + 1)?;
        let name = name::plain(word)?;
        let start = self.offset + at as u64 + 1;
        self.model = Some(ModelValue { name, span: start..start + word.len() as u64 });
        Some(at + word.len() + 2)
    }

    #[inline(always)]
    fn whole_literal(&mut self, literal: Literal, chunk: &[u8], at: usize) -> Option<usize> {
        let rest = chunk.get(at..)?;
        let (is_whole, length) = match literal {
            Literal::True => (rest.starts_with(b"true"), 4),
            Literal::False => (rest.starts_with(b"false"), 5),
            Literal::Null => (rest.starts_with(b"null"), 4),
        };
        if is_whole && self.key == Key::Stream {
            self.facts.stream = literal.says();
        }
        is_whole.then_some(at + length)
    }

    #[inline(never)]
    fn whole_number(&mut self, chunk: &[u8], at: usize) -> Option<usize> {
        let (first, rest) = chunk.get(at..)?.split_first()?;
        let mut number = Number::begin(*first)?;
        for (i, byte) in rest.iter().enumerate() {
            match number.step(*byte) {
                Some(more) => number = more,
                None if !number.is_complete() => return None,
                None => {
                    if self.key == Key::MaxTokens {
                        self.facts.max_tokens = number.whole();
                    }
                    return Some(at + 1 + i);
                }
            }
        }
        None
    }

    /// Takes note of the key that has just ended; `None` is one that is too long to mean anything. Facts of an
    /// earlier equal key are void from here on.
    #[inline(always)]
    fn classify(&mut self, key: Option<&[u8]>) -> Result<(), Fault> {
        let key = key.unwrap_or_default();
        // Comparing slices is a word or two; a match on patterns would go byte by byte.
        self.key = if key == b"model" {
            if self.model.is_some() {
                return Err((ScanErrorKind::ModelTwice, self.start));
            }
            Key::Model
        } else if key == b"stream" {
            self.facts.stream = None;
            Key::Stream
        } else if key == b"max_tokens" || key == b"max_completion_tokens" || key == b"max_output_tokens" {
            self.facts.max_tokens = None;
            Key::MaxTokens
        } else if name::is_case_variant(key) {
            return Err((ScanErrorKind::ModelCase, self.start));
        } else {
            Key::Other
        };
        Ok(())
    }
}

struct Push<'a> {
    scanner: &'a mut JsonScanner,
    chunk: &'a [u8],
}

impl Task for Push<'_> {
    type Output = Result<(), ScanError>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        self.scanner.read(simd, self.chunk).map_err(|fault| self.scanner.fail(fault))
    }
}

/// The string behind a quote, if it ends within a block and is plain: printable ASCII without escapes.
#[inline(always)]
fn word<S: Simd>(simd: S, chunk: &[u8], at: usize) -> Option<&[u8]> {
    let rest = chunk.get(at..)?;
    let (block, length, _) = blocks::next(simd, chunk, rest)?;
    let stops = simd.stops(block) >> (BLOCK - length);
    let length = stops.trailing_zeros() as usize;
    (rest.get(length) == Some(&b'"')).then(|| &rest[..length])
}

/// Where white space ends. Most bodies have none.
#[inline(always)]
fn space(chunk: &[u8], at: usize) -> usize {
    match chunk.get(at) {
        Some(..=b' ') => past_space(chunk, at),
        _ => at,
    }
}

#[inline(never)]
fn past_space(chunk: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = chunk.get(at) {
        at += 1;
    }
    at
}

/// `name` as the inside of a JSON string.
pub(super) fn escape(name: &str) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'"' | b'\\' => escaped.extend([b'\\', byte]),
            0..0x20 => escaped.extend(format!("\\u{byte:04x}").bytes()),
            _ => escaped.push(byte),
        }
    }
    escaped
}
