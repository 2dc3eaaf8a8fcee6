//! The lines around chunks, byte by byte (RFC 9112 section 7.1).

use super::{Framing, FramingError, MAX_EXTENSION_BYTES, MAX_TRAILER_BYTES, MAX_TRAILER_FIELDS, State};

/// What the next byte of a chunked body must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The first digit of a size.
    SizeStart,
    Size,
    /// The first byte of an extension's name, behind `;`.
    NameStart,
    Name,
    /// The first byte of an extension's value, behind `=`.
    ValueStart,
    Value,
    Quoted,
    /// The byte behind a `\` in quotes.
    QuotedPair,
    QuotedEnd,
    SizeLf,
    Payload,
    PayloadCr,
    PayloadLf,
    /// The first byte of a trailer field's name, or the CR of the empty line.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    FinalLf,
}

impl Step {
    pub(super) const fn is_trailer(self) -> bool {
        matches!(
            self,
            Self::TrailerStart | Self::TrailerName | Self::TrailerValue | Self::TrailerLf | Self::FinalLf
        )
    }
}

impl Framing {
    /// The state behind `byte`.
    pub(super) fn step(&mut self, step: Step, byte: u8) -> Result<State, FramingError> {
        let next = match step {
            Step::SizeStart | Step::Size => self.size(step, byte)?,
            Step::NameStart
            | Step::Name
            | Step::ValueStart
            | Step::Value
            | Step::Quoted
            | Step::QuotedPair
            | Step::QuotedEnd => self.extension(step, byte)?,
            Step::SizeLf => self.end_of_size(byte)?,
            // `skip` steps over payload.
            Step::Payload => return Err(FramingError::ChunkEnd),
            Step::PayloadCr if byte == b'\r' => Step::PayloadLf,
            Step::PayloadLf if byte == b'\n' => Step::SizeStart,
            Step::PayloadCr | Step::PayloadLf => return Err(FramingError::ChunkEnd),
            Step::FinalLf if byte == b'\n' => {
                self.spend(MAX_TRAILER_BYTES).ok_or(FramingError::TrailerTooLong)?;
                return Ok(State::Done);
            }
            Step::TrailerStart | Step::TrailerName | Step::TrailerValue | Step::TrailerLf | Step::FinalLf => {
                self.trailer(step, byte)?
            }
        };
        Ok(State::Chunked(next))
    }

    fn size(&mut self, step: Step, byte: u8) -> Result<Step, FramingError> {
        if step == Step::SizeStart {
            self.left = 0;
            self.count = 0;
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b';' if step == Step::Size => {
                self.spend(MAX_EXTENSION_BYTES).ok_or(FramingError::ExtensionsTooLong)?;
                return Ok(Step::NameStart);
            }
            b'\r' if step == Step::Size => return Ok(Step::SizeLf),
            b'\n' if step == Step::Size => return Err(FramingError::LineEnd),
            _ => return Err(FramingError::ChunkSize),
        };
        if self.count == 16 {
            return Err(FramingError::ChunkSize);
        }
        self.count += 1;
        self.left = self.left << 4 | u64::from(digit);
        if self.left > i64::MAX as u64 { Err(FramingError::ChunkTooLarge) } else { Ok(Step::Size) }
    }

    fn end_of_size(&mut self, byte: u8) -> Result<Step, FramingError> {
        if byte != b'\n' {
            return Err(FramingError::LineEnd);
        }
        if self.left > 0 {
            return Ok(Step::Payload);
        }
        self.spent = 0;
        self.count = 0;
        Ok(Step::TrailerStart)
    }

    /// `chunk-ext = *( ";" name [ "=" ( token / quoted-string ) ] )`, without the BWS that a recipient may forgive.
    fn extension(&mut self, step: Step, byte: u8) -> Result<Step, FramingError> {
        let next = match (step, byte) {
            (Step::Name | Step::Value | Step::QuotedEnd, b'\r') => return Ok(Step::SizeLf),
            (Step::Name | Step::Value | Step::QuotedEnd, b';') => Step::NameStart,
            (Step::Name, b'=') => Step::ValueStart,
            (Step::NameStart | Step::Name, _) if is_token(byte) => Step::Name,
            (Step::ValueStart, b'"') => Step::Quoted,
            (Step::ValueStart | Step::Value, _) if is_token(byte) => Step::Value,
            (Step::Quoted, b'"') => Step::QuotedEnd,
            (Step::Quoted, b'\\') => Step::QuotedPair,
            (Step::Quoted | Step::QuotedPair, _) if is_field_byte(byte) => Step::Quoted,
            (_, b'\n') => return Err(FramingError::LineEnd),
            _ => return Err(FramingError::ChunkExtension),
        };
        self.spend(MAX_EXTENSION_BYTES).ok_or(FramingError::ExtensionsTooLong)?;
        Ok(next)
    }

    fn trailer(&mut self, step: Step, byte: u8) -> Result<Step, FramingError> {
        self.spend(MAX_TRAILER_BYTES).ok_or(FramingError::TrailerTooLong)?;
        match (step, byte) {
            (Step::TrailerStart, b'\r') => Ok(Step::FinalLf),
            (Step::TrailerStart, _) if is_token(byte) => {
                if self.count == MAX_TRAILER_FIELDS {
                    return Err(FramingError::TrailerTooLong);
                }
                self.count += 1;
                Ok(Step::TrailerName)
            }
            (Step::TrailerName, b':') => Ok(Step::TrailerValue),
            (Step::TrailerName, _) if is_token(byte) => Ok(Step::TrailerName),
            (Step::TrailerValue, b'\r') => Ok(Step::TrailerLf),
            (Step::TrailerValue, _) if is_field_byte(byte) => Ok(Step::TrailerValue),
            (Step::TrailerLf, b'\n') => Ok(Step::TrailerStart),
            (_, b'\n') | (Step::TrailerLf | Step::FinalLf, _) => Err(FramingError::LineEnd),
            _ => Err(FramingError::Trailer),
        }
    }

    fn spend(&mut self, budget: u16) -> Option<()> {
        self.spent += 1;
        (self.spent <= budget).then_some(())
    }
}

/// `tchar` (RFC 9110 section 5.6.2).
#[must_use]
pub const fn is_token(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.'
        | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// A byte of a field value: visible, SP, HTAB or obs-text (RFC 9110 section 5.5).
#[must_use]
pub const fn is_field_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}
