//! The obvious twin of the scanner: the same rules over a whole body, one byte after the other, without states.
//! It shares no code with the JSON scanner; the form twin shares what reads a part's head, which is never cut.

mod form;

use std::ops::Range;

pub(super) use form::form;

use super::ScanErrorKind;

/// The decoded model and the span of its raw bytes, or why the body is refused.
pub(super) type Verdict = Result<Option<(String, Range<u64>)>, ScanErrorKind>;

use ScanErrorKind as Kind;

/// Reads a JSON body.
pub(super) fn json(body: &[u8]) -> Verdict {
    let mut reader = Reader { body, at: 0 };
    reader.space();
    if reader.peek() != Some(b'{') {
        return Err(Kind::NotAnObject);
    }
    reader.at += 1;
    let model = reader.members()?;
    reader.space();
    match reader.peek() {
        None => Ok(model),
        Some(_) => Err(Kind::Trailing),
    }
}

struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// The members of the top-level object, from behind its brace.
    fn members(&mut self) -> Verdict {
        let mut model = None;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(None);
        }
        loop {
            self.space();
            self.expect(b'"')?;
            let key = self.text(usize::MAX)?;
            if key == "model" && model.is_some() {
                return Err(Kind::ModelTwice);
            }
            if key != "model" && key.eq_ignore_ascii_case("model") {
                return Err(Kind::ModelCase);
            }
            self.space();
            self.expect(b':')?;
            self.space();
            if key == "model" {
                model = Some(self.model()?);
            } else {
                self.value()?;
            }
            self.space();
            match self.next()? {
                b',' => {}
                b'}' => return Ok(model),
                _ => return Err(Kind::Syntax),
            }
        }
    }

    fn model(&mut self) -> Result<(String, Range<u64>), Kind> {
        match self.next()? {
            b'"' => {}
            b'{' | b'[' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9' => return Err(Kind::ModelNotString),
            _ => return Err(Kind::Syntax),
        }
        let start = self.at as u64;
        let name = self.text(256)?;
        if name.is_empty() {
            return Err(Kind::ModelEmpty);
        }
        if name.chars().any(char::is_control) {
            return Err(Kind::ModelControl);
        }
        if name.starts_with(char::is_whitespace) || name.ends_with(char::is_whitespace) {
            return Err(Kind::ModelPadded);
        }
        Ok((name, start..self.at as u64 - 1))
    }

    /// A string that matters, from behind its quote to behind the other; `most` bytes decoded.
    fn text(&mut self, most: usize) -> Result<String, Kind> {
        let mut text = String::new();
        loop {
            match self.next()? {
                b'"' => return Ok(text),
                0..0x20 => return Err(Kind::Control),
                b'\\' => text.push(self.escape()?),
                _ => {
                    self.at -= 1;
                    text.push(self.char()?);
                }
            }
            if text.len() > most {
                return Err(Kind::ModelTooLong);
            }
        }
    }

    fn char(&mut self) -> Result<char, Kind> {
        let window = &self.body[self.at..self.body.len().min(self.at + 4)];
        let valid = match std::str::from_utf8(window) {
            Ok(text) => text,
            Err(error) if error.valid_up_to() > 0 => {
                std::str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(error) if error.error_len().is_none() && self.at + window.len() == self.body.len() => {
                return Err(Kind::Truncated);
            }
            Err(_) => return Err(Kind::NotUtf8),
        };
        let c = valid.chars().next().ok_or(Kind::NotUtf8)?;
        self.at += c.len_utf8();
        Ok(c)
    }

    fn escape(&mut self) -> Result<char, Kind> {
        Ok(match self.next()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit()?;
                let mut units = vec![first];
                if (0xd800..0xdc00).contains(&first) {
                    for wanted in [b'\\', b'u'] {
                        if self.next()? != wanted {
                            return Err(Kind::Surrogate);
                        }
                    }
                    units.push(self.unit()?);
                }
                if first == 0 {
                    return Err(Kind::Control);
                }
                let text = String::from_utf16(&units).map_err(|_| Kind::Surrogate)?;
                text.chars().next().ok_or(Kind::Surrogate)?
            }
            _ => return Err(Kind::Escape),
        })
    }

    fn unit(&mut self) -> Result<u16, Kind> {
        let mut unit = 0;
        for _ in 0..4 {
            unit = unit * 16 + char::from(self.next()?).to_digit(16).ok_or(Kind::Escape)? as u16;
        }
        Ok(unit)
    }

    /// A top-level value other than the model's.
    fn value(&mut self) -> Result<(), Kind> {
        match self.next()? {
            b'"' => self.skip_string(),
            open @ (b'[' | b'{') => self.skip_brackets(open),
            b't' => self.literal("rue"),
            b'f' => self.literal("alse"),
            b'n' => self.literal("ull"),
            b'-' => {
                let digit = self.next()?;
                self.number(digit)
            }
            digit => self.number(digit),
        }
    }

    fn literal(&mut self, rest: &str) -> Result<(), Kind> {
        rest.bytes().try_for_each(|b| self.expect(b))
    }

    /// A number whose first digit was `first`.
    fn number(&mut self, first: u8) -> Result<(), Kind> {
        match first {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return Err(Kind::Syntax),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.one_digit()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.one_digit()?;
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn one_digit(&mut self) -> Result<(), Kind> {
        if !self.next()?.is_ascii_digit() {
            return Err(Kind::Syntax);
        }
        self.digits();
        Ok(())
    }

    fn skip_string(&mut self) -> Result<(), Kind> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => _ = self.next()?,
                _ => {}
            }
        }
    }

    /// Brackets are counted whatever their kinds, but the value's own two must be a pair.
    fn skip_brackets(&mut self, first: u8) -> Result<(), Kind> {
        let mut open = 1;
        loop {
            match self.next()? {
                b'"' => self.skip_string()?,
                b'[' | b'{' => {
                    open += 1;
                    if open + 1 > 1000 {
                        return Err(Kind::TooDeep);
                    }
                }
                b']' | b'}' if open > 1 => open -= 1,
                // `[` and `]`, `{` and `}` lie two apart in ASCII.
                last @ (b']' | b'}') => {
                    return if last == first + 2 { Ok(()) } else { Err(Kind::Brackets) };
                }
                b if b.is_ascii_alphanumeric() || b" \t\r\n,:+-.".contains(&b) => {}
                _ => return Err(Kind::Syntax),
            }
        }
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|b| b" \t\r\n".contains(&b)) {
            self.at += 1;
        }
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Kind> {
        if self.next()? == wanted { Ok(()) } else { Err(Kind::Syntax) }
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, Kind> {
        let byte = self.peek().ok_or(Kind::Truncated)?;
        self.at += 1;
        Ok(byte)
    }
}
