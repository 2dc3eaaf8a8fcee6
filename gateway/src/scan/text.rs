//! Decodes the strings that matter, top-level keys and the model, byte by byte and strictly: valid UTF-8, no raw
//! control bytes, only the escapes of RFC 8259, surrogates in pairs.

use super::{MODEL_MAX, ScanErrorKind};

/// A string in progress. Its decoded bytes are kept up to [`MODEL_MAX`]; it is checked to its end.
#[derive(Debug, Default)]
pub(super) struct Text {
    decoded: Vec<u8>,
    /// More was decoded than is kept.
    overflow: bool,
    expect: Expect,
}

/// What the next byte must be.
#[derive(Clone, Copy, Debug, Default)]
enum Expect {
    #[default]
    Any,
    /// A UTF-8 continuation byte from `low` to `high`, and `more` after it (Unicode, table 3-7).
    Continuation {
        more: u8,
        low: u8,
        high: u8,
    },
    Escape,
    /// The next of four digits of `\u`; after a `high` surrogate they must make a low one.
    Hex {
        digits: u8,
        unit: u16,
        high: Option<u16>,
    },
    /// The `\` of the low half of a surrogate pair.
    LowBackslash {
        high: u16,
    },
    /// Its `u`.
    LowU {
        high: u16,
    },
}

impl Text {
    /// Begins a new string, after its opening quote.
    pub(super) fn begin(&mut self) {
        self.decoded.clear();
        self.overflow = false;
        self.expect = Expect::Any;
    }

    /// Takes the next byte; true: it was the closing quote.
    pub(super) fn step(&mut self, byte: u8) -> Result<bool, ScanErrorKind> {
        self.expect = match self.expect {
            Expect::Any => match byte {
                b'"' => return Ok(true),
                b'\\' => Expect::Escape,
                0..0x20 => return Err(ScanErrorKind::Control),
                _ => {
                    self.keep(&[byte]);
                    after_lead(byte).ok_or(ScanErrorKind::NotUtf8)?
                }
            },
            Expect::Continuation { more, low, high } => {
                if !(low..=high).contains(&byte) {
                    return Err(ScanErrorKind::NotUtf8);
                }
                self.keep(&[byte]);
                match more {
                    0 => Expect::Any,
                    _ => Expect::Continuation { more: more - 1, low: 0x80, high: 0xbf },
                }
            }
            Expect::Escape => self.escape(byte)?,
            Expect::Hex { digits, unit, high } => {
                let digit = char::from(byte).to_digit(16).ok_or(ScanErrorKind::Escape)?;
                let unit = unit << 4 | digit as u16;
                match digits {
                    3 => self.unit(high, unit)?,
                    _ => Expect::Hex { digits: digits + 1, unit, high },
                }
            }
            Expect::LowBackslash { high } if byte == b'\\' => Expect::LowU { high },
            Expect::LowU { high } if byte == b'u' => Expect::Hex { digits: 0, unit: 0, high: Some(high) },
            Expect::LowBackslash { .. } | Expect::LowU { .. } => return Err(ScanErrorKind::Surrogate),
        };
        Ok(false)
    }

    /// The decoded string, unless it is longer than [`MODEL_MAX`] bytes.
    pub(super) fn decoded(&self) -> Option<&[u8]> {
        (!self.overflow).then_some(&self.decoded)
    }

    /// Whether the whole characters so far are more than [`MODEL_MAX`] bytes.
    pub(super) fn is_too_long(&self) -> bool {
        self.overflow && !matches!(self.expect, Expect::Continuation { .. })
    }

    fn escape(&mut self, byte: u8) -> Result<Expect, ScanErrorKind> {
        let decoded = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return Ok(Expect::Hex { digits: 0, unit: 0, high: None }),
            _ => return Err(ScanErrorKind::Escape),
        };
        self.keep(&[decoded]);
        Ok(Expect::Any)
    }

    /// Takes one UTF-16 code unit of an escape.
    fn unit(&mut self, high: Option<u16>, unit: u16) -> Result<Expect, ScanErrorKind> {
        let decoded = match (high, unit) {
            (None, 0xd800..=0xdbff) => return Ok(Expect::LowBackslash { high: unit }),
            // A reader in C would end the string here.
            (None, 0) => return Err(ScanErrorKind::Control),
            (None, _) => char::from_u32(u32::from(unit)),
            (Some(high), 0xdc00..=0xdfff) => {
                char::from_u32(0x1_0000 + (u32::from(high - 0xd800) << 10) + u32::from(unit - 0xdc00))
            }
            (Some(_), _) => None,
        };
        let decoded = decoded.ok_or(ScanErrorKind::Surrogate)?;
        self.keep(decoded.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(Expect::Any)
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.decoded.len() + bytes.len() <= MODEL_MAX {
            self.decoded.extend_from_slice(bytes);
        } else {
            self.overflow = true;
        }
    }
}

/// What follows the first byte of a UTF-8 sequence.
fn after_lead(byte: u8) -> Option<Expect> {
    let (more, low, high) = match byte {
        0..0x80 => return Some(Expect::Any),
        0xc2..=0xdf => (0, 0x80, 0xbf),
        0xe0 => (1, 0xa0, 0xbf),
        0xed => (1, 0x80, 0x9f),
        0xe1..=0xef => (1, 0x80, 0xbf),
        0xf0 => (2, 0x90, 0xbf),
        0xf1..=0xf3 => (2, 0x80, 0xbf),
        0xf4 => (2, 0x80, 0x8f),
        _ => return None,
    };
    Some(Expect::Continuation { more, low, high })
}
