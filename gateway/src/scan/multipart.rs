//! Finds the part named `model` of a `multipart/form-data` body (RFC 7578, RFC 2046 section 5.1).
//!
//! Form parsers differ more than JSON parsers do, so the common ground is drawn narrow:
//!
//! * The body begins with its first delimiter (python-multipart and cpp-httplib know no preamble) and ends with the
//!   closing one and at most CRLF (Starlette takes a form that was cut off, Go does not).
//! * `--boundary` may occur only as a delimiter: after CRLF that belongs to a part's content, before CRLF or `--`.
//!   Elsewhere readers differ: after a bare LF, at the very start of a content (Go sees an empty part there,
//!   python-multipart sees content), before spaces (Go skips them) or before more text.
//! * A part's head is strict; `head` says how. Readers that split the whole body, or a field at each `;`, see
//!   the same parts as those that parse.
//! * The model is a plain field. Go decodes quoted-printable parts, some decode charsets, all treat files apart.

pub(super) mod head;
mod parameters;

use http::HeaderValue;
use memchr::memmem;

use self::head::Part;
use super::{Facts, MODEL_MAX, ModelValue, ScanError, ScanErrorKind, name};

/// Bytes that the head of one part may have.
const HEAD_MAX: usize = 8 << 10;
const PARTS_MAX: usize = 1000;

/// Scans one form.
#[derive(Debug)]
pub struct MultipartScanner {
    /// Finds `--boundary`.
    dashes: memmem::Finder<'static>,
    state: State,
    /// Body bytes read so far.
    offset: u64,
    /// Where the head or content in progress begins.
    start: u64,
    /// What is kept of it: a head and the model's content whole, the last few bytes of other contents.
    held: Vec<u8>,
    parts: usize,
    model: Option<ModelValue>,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
enum State {
    /// The first delimiter, of which so many bytes have come.
    Opening(usize),
    /// After `--boundary`: CRLF, or the `--` that closes the form.
    Delimiter,
    DelimiterCr,
    DelimiterDash,
    Head,
    Content,
    Model {
        ascii_only: bool,
    },
    /// After the form: nothing, or CRLF.
    Closed,
    ClosedCr,
    End,
    Failed(ScanError),
}

/// What is wrong, and where in the body.
type Fault = (ScanErrorKind, u64);

impl MultipartScanner {
    /// A scanner for a form with this Content-Type.
    pub fn new(content_type: &HeaderValue) -> Result<Self, ScanError> {
        let boundary = head::boundary(content_type.as_bytes())
            .ok_or(ScanError { kind: ScanErrorKind::FormType, offset: 0 })?;
        let dashes = [b"--", boundary].concat();
        Ok(Self {
            dashes: memmem::Finder::new(&dashes).into_owned(),
            state: State::Opening(0),
            offset: 0,
            start: 0,
            held: Vec::new(),
            parts: 0,
            model: None,
        })
    }

    /// See [`super::Scanner::push`].
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), ScanError> {
        let mut rest = chunk;
        while let Some(&byte) = rest.first() {
            let step = match self.state {
                State::Failed(error) => return Err(error),
                State::Head => self.head(rest),
                State::Content => self.content(rest),
                State::Model { ascii_only } => self.model_content(ascii_only, rest),
                state => self.line(state, byte).map(|next| {
                    self.state = next;
                    1
                }),
            };
            match step {
                Ok(consumed) => {
                    self.offset += consumed as u64;
                    rest = rest.get(consumed..).unwrap_or_default();
                }
                Err((kind, offset)) => return Err(self.fail(kind, offset)),
            }
        }
        Ok(())
    }

    /// See [`super::Scanner::finish`].
    pub fn finish(&mut self) -> Result<(), ScanError> {
        match self.state {
            State::Closed | State::End => Ok(()),
            State::Failed(error) => Err(error),
            _ => Err(self.fail(ScanErrorKind::Truncated, self.offset)),
        }
    }

    #[must_use]
    pub fn model(&self) -> Option<&ModelValue> {
        self.model.as_ref()
    }

    /// Forms yield none.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &Facts { stream: None, max_tokens: None }
    }

    fn fail(&mut self, kind: ScanErrorKind, offset: u64) -> ScanError {
        let error = ScanError { kind, offset };
        self.state = State::Failed(error);
        self.held = Vec::new();
        error
    }

    /// Takes one byte of what stands around the parts.
    fn line(&mut self, state: State, byte: u8) -> Result<State, Fault> {
        let dashes = self.dashes.needle();
        match (state, byte) {
            (State::Opening(matched), _) => match dashes.get(matched) {
                Some(&expected) if byte != expected => Err((ScanErrorKind::FormPreamble, self.offset)),
                _ if matched + 1 == dashes.len() => Ok(State::Delimiter),
                _ => Ok(State::Opening(matched + 1)),
            },
            (State::Delimiter, b'\r') => Ok(State::DelimiterCr),
            (State::Delimiter, b'-') => Ok(State::DelimiterDash),
            (State::DelimiterDash, b'-') => Ok(State::Closed),
            (State::DelimiterCr, b'\n') => self.begin_head(),
            (State::Closed, b'\r') => Ok(State::ClosedCr),
            (State::ClosedCr, b'\n') => Ok(State::End),
            (State::Closed | State::ClosedCr | State::End, _) => {
                Err((ScanErrorKind::FormEpilogue, self.offset))
            }
            _ => Err((ScanErrorKind::FormDelimiter, self.offset)),
        }
    }

    fn begin_head(&mut self) -> Result<State, Fault> {
        if self.parts == PARTS_MAX {
            return Err((ScanErrorKind::FormTooManyParts, self.offset));
        }
        self.parts += 1;
        self.start = self.offset + 1;
        // The line end before the head, so that a head without fields ends like any other.
        self.held.clear();
        self.held.extend_from_slice(b"\r\n");
        Ok(State::Head)
    }

    /// Gathers a part's head up to its empty line.
    fn head(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let before = self.held.len();
        let room = (HEAD_MAX + 2).saturating_sub(before).min(bytes.len());
        self.held.extend_from_slice(&bytes[..room]);
        let from = before.saturating_sub(3);
        let Some(found) = memmem::find(&self.held[from..], b"\r\n\r\n") else {
            let full = self.held.len() == HEAD_MAX + 2;
            return if full { Err((ScanErrorKind::FormHeadTooLong, self.start)) } else { Ok(room) };
        };
        let end = from + found;
        let fields = &self.held[..end + 2];
        if self.dashes.find(fields).is_some() {
            return Err((ScanErrorKind::FormDelimiter, self.start));
        }
        let part = head::read(&fields[2..]).map_err(|kind| (kind, self.start))?;
        let consumed = end + 4 - before;
        self.state = match part {
            Part::Model { .. } if self.model.is_some() => {
                return Err((ScanErrorKind::ModelTwice, self.start));
            }
            Part::Model { ascii_only } => State::Model { ascii_only },
            Part::Other => State::Content,
        };
        self.start = self.offset + consumed as u64;
        self.held.clear();
        Ok(consumed)
    }

    /// Skips a part's content up to its delimiter.
    fn content(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        // A delimiter may begin in bytes of earlier chunks: look over the seam, then in the chunk itself.
        let seam = self.held.len();
        let keep = self.dashes.needle().len() + 1;
        let over = bytes.len().min(keep);
        self.held.extend_from_slice(&bytes[..over]);
        let found = match self.dashes.find(&self.held) {
            Some(at) => Some((at + self.dashes.needle().len() - seam, self.held[..at].ends_with(b"\r\n"))),
            None => self
                .dashes
                .find(bytes)
                .map(|at| (at + self.dashes.needle().len(), bytes[..at].ends_with(b"\r\n"))),
        };
        match found {
            Some((consumed, true)) => {
                self.state = State::Delimiter;
                Ok(consumed)
            }
            Some((consumed, false)) => {
                let at = self.offset + consumed as u64 - self.dashes.needle().len() as u64;
                Err((ScanErrorKind::FormDelimiter, at))
            }
            None => {
                if bytes.len() > over {
                    self.held.clear();
                    self.held.extend_from_slice(&bytes[bytes.len() - keep..]);
                } else {
                    self.held.drain(..self.held.len().saturating_sub(keep));
                }
                Ok(bytes.len())
            }
        }
    }

    /// Gathers the model's content up to its delimiter.
    fn model_content(&mut self, ascii_only: bool, bytes: &[u8]) -> Result<usize, Fault> {
        let before = self.held.len();
        let length = self.dashes.needle().len();
        // The longest name, its CRLF and the boundary: no more is needed to know that a name is too long.
        let limit = MODEL_MAX + 2 + length;
        let room = limit.saturating_sub(before).min(bytes.len());
        self.held.extend_from_slice(&bytes[..room]);
        let from = before.saturating_sub(length - 1);
        let Some(found) = self.dashes.find(&self.held[from..]) else {
            let full = self.held.len() == limit;
            return if full { Err((ScanErrorKind::ModelTooLong, self.start)) } else { Ok(room) };
        };
        let at = from + found;
        let Some(content) = self.held[..at].strip_suffix(b"\r\n") else {
            return Err((ScanErrorKind::FormDelimiter, self.start + at as u64));
        };
        let name = name::check(content).map_err(|kind| (kind, self.start))?;
        if ascii_only && !name.is_ascii() {
            return Err((ScanErrorKind::ModelDisguised, self.start));
        }
        self.model = Some(ModelValue { name, span: self.start..self.start + content.len() as u64 });
        self.state = State::Delimiter;
        Ok(at + length - before)
    }
}
