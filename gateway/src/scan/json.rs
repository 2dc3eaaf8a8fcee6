//! The top level of a JSON body: checked in full by RFC 8259, its keys decoded, its values skipped or noted.
//!
//! Members that lie whole in a chunk, as nearly all do, are read in one `sweep`; what a chunk's end cuts, and
//! what is rare (escapes in keys, names that are not ASCII, most errors), goes byte by byte through `step`.
//!
//! `NaN` and `Infinity` at the top level are refused, though Python takes them: no other reader does.

mod step;
mod sweep;
mod view;

use self::step::State;
use super::nested::Nested;
use super::number::Number;
use super::simd::{Level, Simd, Task};
use super::text::Text;
use super::{Facts, ModelValue, ScanError, ScanErrorKind};

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
        let (mut state, mut at) = match (self.state, chunk) {
            (State::Start, [b'{', ..]) => (State::FirstKey, 1),
            (state, _) => (state, 0),
        };
        while let Some(&byte) = chunk.get(at) {
            (state, at) = if matches!(state, State::FirstKey | State::NextKey) {
                self.members(simd, chunk, state, at)?
            } else if matches!(state, State::Nested) {
                self.skip(simd, chunk, at)?
            } else {
                (self.step(state, byte, self.offset + at as u64)?, at + 1)
            };
        }
        self.state = state;
        self.offset += chunk.len() as u64;
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
