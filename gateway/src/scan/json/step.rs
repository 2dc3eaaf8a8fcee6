//! The top level byte by byte: every state that a chunk's end may leave behind.

use super::{Fault, JsonScanner, Key, ModelValue, Nested, Number, ScanErrorKind};
use crate::scan::name;

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
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
pub(super) enum Literal {
    True,
    False,
    Null,
}

impl JsonScanner {
    /// Takes the byte at body offset `here`, and says what the next one belongs to. Keys begin, and values are
    /// skipped, in the sweep.
    pub(super) fn step(&mut self, state: State, byte: u8, here: u64) -> Result<State, Fault> {
        let syntax = Err((ScanErrorKind::Syntax, here));
        match (state, byte) {
            (
                State::Start | State::Colon | State::Value | State::Comma | State::End,
                b' ' | b'\t' | b'\n' | b'\r',
            ) => Ok(state),
            (State::Start, b'{') => Ok(State::FirstKey),
            (State::Start, _) => Err((ScanErrorKind::NotAnObject, here)),
            (State::Key, _) => match self.text.step(byte) {
                Ok(false) => Ok(state),
                Ok(true) => self.end_key(),
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
            (State::Comma, b'}') => Ok(State::End),
            (State::End, _) => Err((ScanErrorKind::Trailing, here)),
            _ => syntax,
        }
    }

    fn end_key(&mut self) -> Result<State, Fault> {
        let text = std::mem::take(&mut self.text);
        // One that is too long to be kept means nothing here.
        self.classify(text.decoded().unwrap_or_default(), self.start)?;
        // Its memory serves the next one.
        self.text = text;
        Ok(State::Colon)
    }

    fn begin_value(&mut self, byte: u8, here: u64) -> Result<State, Fault> {
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
            b't' | b'f' | b'n' => Ok(State::Literal(Literal::of(byte), 1)),
            b'"' | b'[' | b'{' => {
                self.nested = Nested::begin(byte);
                Ok(State::Nested)
            }
            _ => {
                self.number = Number::begin(byte).ok_or((ScanErrorKind::Syntax, here))?;
                Ok(State::Number)
            }
        }
    }

    fn model_byte(&mut self, byte: u8, here: u64) -> Result<State, Fault> {
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
    /// The literal that begins with `first`: `t`, `f` or `n`.
    pub(super) fn of(first: u8) -> Self {
        match first {
            b't' => Self::True,
            b'f' => Self::False,
            _ => Self::Null,
        }
    }

    pub(super) fn text(self) -> &'static [u8] {
        match self {
            Self::True => b"true",
            Self::False => b"false",
            Self::Null => b"null",
        }
    }

    pub(super) fn says(self) -> Option<bool> {
        match self {
            Self::True => Some(true),
            Self::False => Some(false),
            Self::Null => None,
        }
    }
}
