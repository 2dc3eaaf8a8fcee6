//! HTTP/1.1 as bytes, read without guessing: heads, and bodies of each framing.

/// A request's or an answer's head, with the very bytes that it was.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub raw: Vec<u8>,
    /// The first line, without its line end.
    pub start: String,
    /// In order; the names as they were written.
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// Reads a head that ends with an empty line. Lenient: what it may hold is for [`crate::engine`] to judge.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Self {
        let text = String::from_utf8_lossy(raw);
        let mut lines = text.split("\r\n").take_while(|line| !line.is_empty());
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
            .collect();
        Self { raw: raw.to_vec(), start, fields }
    }

    /// The first value of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    /// Every value of a field, one for each line.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|(_, value)| value.as_str()).collect()
    }

    /// The word of the first line at a position: method, target, version, or version, status.
    #[must_use]
    pub fn word(&self, at: usize) -> &str {
        self.start.split(' ').nth(at).unwrap_or_default()
    }
}

/// Where the head ends that starts the buffer: just behind its empty line.
#[must_use]
pub fn head_end(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// How a body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// What a piece of wire bytes meant.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Bytes(Vec<u8>),
    /// The body is whole; trailer fields as they were written.
    End(Vec<(String, String)>),
}

/// Takes a body out of received bytes, piece by piece.
#[derive(Debug)]
pub struct Body {
    state: State,
}

#[derive(Debug)]
enum State {
    Plain(u64),
    UntilClose,
    Size,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    Done,
}

/// No chunk size line or trailer section that we send is longer.
const LINE_LIMIT: usize = 64 * 1024;

impl Body {
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(length) => State::Plain(length),
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Removes the next piece from the front of `buffer`; `None`: more bytes are needed.
    ///
    /// # Errors
    /// On bytes that are not a body of this framing.
    pub fn take(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Piece>, String> {
        loop {
            match self.state {
                State::Plain(0) => {
                    self.state = State::Done;
                    return Ok(Some(Piece::End(Vec::new())));
                }
                State::Plain(left) | State::Chunk(left) if left > 0 => {
                    if buffer.is_empty() {
                        return Ok(None);
                    }
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let bytes: Vec<u8> = buffer.drain(..here).collect();
                    let left = left - here as u64;
                    self.state = match self.state {
                        State::Plain(_) => State::Plain(left),
                        _ if left == 0 => State::ChunkEnd,
                        _ => State::Chunk(left),
                    };
                    return Ok(Some(Piece::Bytes(bytes)));
                }
                State::Plain(_) | State::Chunk(_) => self.state = State::ChunkEnd,
                State::UntilClose => {
                    let bytes = std::mem::take(buffer);
                    return Ok((!bytes.is_empty()).then_some(Piece::Bytes(bytes)));
                }
                State::Size => {
                    let Some(line) = take_line(buffer)? else { return Ok(None) };
                    self.state = match chunk_size(&line)? {
                        0 => State::Trailers,
                        size => State::Chunk(size),
                    };
                }
                State::ChunkEnd => {
                    let Some(line) = take_line(buffer)? else { return Ok(None) };
                    if !line.is_empty() {
                        return Err(format!("{line:?} where a chunk should have ended"));
                    }
                    self.state = State::Size;
                }
                State::Trailers => {
                    let end = if buffer.starts_with(b"\r\n") { Some(2) } else { head_end(buffer) };
                    let Some(end) = end else {
                        return if buffer.len() > LINE_LIMIT {
                            Err("endless trailers".into())
                        } else {
                            Ok(None)
                        };
                    };
                    let section: Vec<u8> = buffer.drain(..end).collect();
                    self.state = State::Done;
                    let head = Head::parse(&[b"trailers\r\n", section.as_slice()].concat());
                    return Ok(Some(Piece::End(head.fields)));
                }
                State::Done => return Ok(None),
            }
        }
    }

    /// Whether a connection that closes now leaves the body whole.
    #[must_use]
    pub fn may_end_here(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }
}

fn take_line(buffer: &mut Vec<u8>) -> Result<Option<String>, String> {
    let Some(end) = buffer.windows(2).position(|two| two == b"\r\n") else {
        let short = buffer.len() <= LINE_LIMIT && !buffer.contains(&b'\n');
        return if short { Ok(None) } else { Err("a line of a chunked body without its CRLF".into()) };
    };
    let line = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 2);
    if line.contains(['\n', '\r']) { Err(format!("bare CR or LF in {line:?}")) } else { Ok(Some(line)) }
}

fn chunk_size(line: &str) -> Result<u64, String> {
    let digits = line.split(';').next().unwrap_or_default();
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let size = u64::from_str_radix(digits, 16).ok().filter(|_| plain);
    size.ok_or_else(|| format!("{line:?} is not a chunk size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the wire bytes in cuts of each length and joins what comes out.
    fn read(framing: Framing, wire: &[u8], cut: usize) -> Result<(Vec<u8>, bool), String> {
        let (mut body, mut buffer, mut whole) = (Body::new(framing), Vec::new(), Vec::new());
        let mut ended = false;
        for part in wire.chunks(cut) {
            buffer.extend_from_slice(part);
            while let Some(piece) = body.take(&mut buffer)? {
                match piece {
                    Piece::Bytes(bytes) => whole.extend(bytes),
                    Piece::End(_) => ended = true,
                }
            }
        }
        Ok((whole, ended))
    }

    #[test]
    fn a_body_reads_the_same_however_it_is_cut() {
        let wire = b"3;ext=1\r\nabc\r\n0a\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\n";
        for cut in 1..=wire.len() {
            assert_eq!(read(Framing::Chunked, wire, cut), Ok((b"abc0123456789".to_vec(), true)), "cut {cut}");
            assert_eq!(read(Framing::Length(5), &wire[..5], cut), Ok((b"3;ext".to_vec(), true)));
        }
    }

    #[test]
    fn bad_chunks_are_refused() {
        for wire in
            [&b"+3\r\nabc\r\n"[..], b"3 \r\nabc\r\n", b"\r\n", b"3\r\nabcd\r\n", b"3\nabc\r\n", b"0x3\r\n"]
        {
            assert!(read(Framing::Chunked, wire, wire.len()).is_err(), "{:?}", String::from_utf8_lossy(wire));
        }
    }

    #[test]
    fn a_cut_body_has_no_end() {
        assert_eq!(read(Framing::Chunked, b"3\r\nabc\r\n", 4), Ok((b"abc".to_vec(), false)));
        assert_eq!(read(Framing::Length(4), b"abc", 4), Ok((b"abc".to_vec(), false)));
    }
}
