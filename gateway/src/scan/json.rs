//! The top level of a JSON body: checked in full by RFC 8259, its keys decoded, its values skipped or noted.
//!
//! `NaN` and `Infinity` at the top level are refused, though Python takes them: no other reader does.

use super::nested::Nested;
use super::number::Number;
use super::text::Text;
use super::{Facts, ModelValue, ScanError, ScanErrorKind, name};

/// Scans one JSON body.
#[derive(Debug)]
pub struct JsonScanner {
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

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing yet: the opening brace.
    Start,
    /// After `{`: a key, or the end of an empty object.
    FirstKey,
    /// After `,`: a key.
    NextKey,
    Key,
    Colon,
    Value,
    /// The string of `model`.
    Model,
    /// A string, array or object that is skipped.
    Nested,
    /// `true`, `false` or `null`, of which so many bytes have come.
    Literal(Literal, u8),
    Number,
    /// After a value: `,` or `}`.
    Comma,
    /// After the object: white space alone.
    End,
}

#[derive(Clone, Copy, Debug)]
enum Literal {
    True,
    False,
    Null,
}

/// The top-level keys that mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Model,
    Stream,
    MaxTokens,
    Other,
}

impl Default for JsonScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl JsonScanner {
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Start,
            offset: 0,
            start: 0,
            key: Key::Other,
            text: Text::default(),
            number: Number::default(),
            nested: Nested::new(),
            model: None,
            facts: Facts::default(),
            failed: None,
        }
    }

    /// See [`super::Scanner::push`].
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), ScanError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        // The state lives in a register while the chunk lasts.
        let mut state = self.state;
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            let here = self.offset + at as u64;
            let (step, consumed) = match state {
                State::Nested => match self.nested.skip(&chunk[at..]) {
                    Ok(None) => break,
                    Ok(Some(consumed)) => (Ok(State::Comma), consumed),
                    Err((kind, after)) => (Err((kind, here + after as u64)), 0),
                },
                _ => (self.step(state, byte, here), 1),
            };
            state = step.map_err(|(kind, offset)| self.fail(kind, offset))?;
            at += consumed;
        }
        self.state = state;
        self.offset += chunk.len() as u64;
        Ok(())
    }

    /// See [`super::Scanner::finish`].
    pub fn finish(&mut self) -> Result<(), ScanError> {
        match (self.failed, self.state) {
            (Some(error), _) => Err(error),
            (None, State::End) => Ok(()),
            (None, State::Start) => Err(self.fail(ScanErrorKind::NotAnObject, self.offset)),
            (None, _) => Err(self.fail(ScanErrorKind::Truncated, self.offset)),
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

    fn fail(&mut self, kind: ScanErrorKind, offset: u64) -> ScanError {
        let error = ScanError { kind, offset };
        self.failed = Some(error);
        error
    }

    /// Takes the byte at body offset `here`, and says what the next one belongs to.
    fn step(&mut self, state: State, byte: u8, here: u64) -> Result<State, (ScanErrorKind, u64)> {
        let space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let syntax = Err((ScanErrorKind::Syntax, here));
        match (state, byte) {
            (State::Start | State::FirstKey | State::NextKey | State::Colon | State::Value, _) if space => {
                Ok(state)
            }
            (State::Comma | State::End, _) if space => Ok(state),
            (State::Start, b'{') => Ok(State::FirstKey),
            (State::Start, _) => Err((ScanErrorKind::NotAnObject, here)),
            (State::FirstKey | State::NextKey, b'"') => {
                self.start = here;
                self.text.begin();
                Ok(State::Key)
            }
            (State::Key, _) => match self.text.step(byte) {
                Ok(false) => Ok(state),
                Ok(true) => self.end_key().map_err(|kind| (kind, self.start)),
                Err(kind) => Err((kind, here)),
            },
            (State::Colon, b':') => Ok(State::Value),
            (State::Value, _) => self.begin_value(byte, here),
            (State::Model, _) => self.model_byte(byte, here),
            (State::Literal(literal, come), _) => match literal.text().get(usize::from(come)..) {
                Some([expected]) if byte == *expected => {
                    if self.key == Key::Stream {
                        self.facts.stream = literal.says();
                    }
                    Ok(State::Comma)
                }
                Some([expected, ..]) if byte == *expected => Ok(State::Literal(literal, come + 1)),
                _ => syntax,
            },
            (State::Number, _) => match self.number.step(byte) {
                Some(number) => {
                    self.number = number;
                    Ok(state)
                }
                None if !self.number.is_complete() => syntax,
                None => {
                    if self.key == Key::MaxTokens {
                        self.facts.max_tokens = self.number.whole();
                    }
                    self.step(State::Comma, byte, here)
                }
            },
            (State::Comma, b',') => Ok(State::NextKey),
            (State::Comma | State::FirstKey, b'}') => Ok(State::End),
            (State::End, _) => Err((ScanErrorKind::Trailing, here)),
            _ => syntax,
        }
    }

    /// Classifies the key that has just ended. Facts of an earlier equal key are void from here on.
    fn end_key(&mut self) -> Result<State, ScanErrorKind> {
        self.key = match self.text.decoded() {
            Some(b"model") if self.model.is_some() => return Err(ScanErrorKind::ModelTwice),
            Some(b"model") => Key::Model,
            Some(key) if name::is_case_variant(key) => return Err(ScanErrorKind::ModelCase),
            Some(b"stream") => {
                self.facts.stream = None;
                Key::Stream
            }
            Some(b"max_tokens" | b"max_completion_tokens" | b"max_output_tokens") => {
                self.facts.max_tokens = None;
                Key::MaxTokens
            }
            _ => Key::Other,
        };
        Ok(State::Colon)
    }

    fn begin_value(&mut self, byte: u8, here: u64) -> Result<State, (ScanErrorKind, u64)> {
        if self.key == Key::Model {
            return match byte {
                b'"' => {
                    self.start = here;
                    self.text.begin();
                    Ok(State::Model)
                }
                b'{' | b'[' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9' => {
                    Err((ScanErrorKind::ModelNotString, here))
                }
                _ => Err((ScanErrorKind::Syntax, here)),
            };
        }
        match byte {
            b't' => Ok(State::Literal(Literal::True, 1)),
            b'f' => Ok(State::Literal(Literal::False, 1)),
            b'n' => Ok(State::Literal(Literal::Null, 1)),
            b'"' | b'[' | b'{' => {
                self.nested.begin(byte);
                Ok(State::Nested)
            }
            _ => {
                self.number = Number::begin(byte).ok_or((ScanErrorKind::Syntax, here))?;
                Ok(State::Number)
            }
        }
    }

    fn model_byte(&mut self, byte: u8, here: u64) -> Result<State, (ScanErrorKind, u64)> {
        let ended = self.text.step(byte).map_err(|kind| (kind, here))?;
        if self.text.is_too_long() {
            return Err((ScanErrorKind::ModelTooLong, self.start));
        }
        if !ended {
            return Ok(State::Model);
        }
        let name = name::check(self.text.decoded().unwrap_or_default()).map_err(|kind| (kind, self.start))?;
        self.model = Some(ModelValue { name, span: self.start + 1..here });
        Ok(State::Comma)
    }
}

impl Literal {
    fn text(self) -> &'static [u8] {
        match self {
            Self::True => b"true",
            Self::False => b"false",
            Self::Null => b"null",
        }
    }

    fn says(self) -> Option<bool> {
        match self {
            Self::True => Some(true),
            Self::False => Some(false),
            Self::Null => None,
        }
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
