//! As much HTTP/1.1 as an engine and a client of the bench need: the end of a head, a header of it, and where its body
//! ends. Lenient, for it only meets proxies; what they change in a body is found by comparing bytes.

use anyhow::{Context as _, Result, bail, ensure};
use memchr::{memchr_iter, memmem};

/// A head that is longer than this is none.
const HEAD_LIMIT: usize = 16 << 10;

/// A message's first lines, the empty line included.
pub(crate) struct Head<'b>(&'b [u8]);

impl<'b> Head<'b> {
    /// The head at the start of a buffer, if it is complete.
    pub(crate) fn find(buffer: &'b [u8]) -> Result<Option<Self>> {
        let Some(at) = memmem::find(buffer, b"\r\n\r\n") else {
            ensure!(buffer.len() <= HEAD_LIMIT, "a head of more than {HEAD_LIMIT} bytes");
            return Ok(None);
        };
        Ok(buffer.get(..at + 4).map(Self))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn first_line(&self) -> &'b [u8] {
        self.0.split(|byte| *byte == b'\r').next().unwrap_or_default()
    }

    /// The value of a header, spaces around it removed.
    pub(crate) fn header(&self, name: &str) -> Option<&'b [u8]> {
        memchr_iter(b'\n', self.0).find_map(|at| {
            let line = self.0.get(at + 1..)?;
            let (found, rest) = line.split_at_checked(name.len())?;
            let value = rest.strip_prefix(b":")?;
            if !found.eq_ignore_ascii_case(name.as_bytes()) {
                return None;
            }
            let end = memmem::find(value, b"\r\n")?;
            value.get(..end).map(<[u8]>::trim_ascii)
        })
    }

    /// How its body ends, where it has one.
    pub(crate) fn framing(&self) -> Result<Framing> {
        if let Some(length) = self.header("content-length") {
            let length = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
            return Ok(Framing::Length(length.context("no number in Content-Length")?));
        }
        match self.header("transfer-encoding") {
            Some(coding) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked(Chunked::Size(0))),
            Some(_) => bail!("a transfer coding that is not chunked"),
            None => Ok(Framing::Length(0)),
        }
    }
}

/// What is left of a body.
#[derive(Debug)]
pub(crate) enum Framing {
    Length(usize),
    Chunked(Chunked),
}

/// Where a chunked body stands.
#[derive(Debug)]
pub(crate) enum Chunked {
    /// In the digits of a size.
    Size(usize),
    /// Behind the digits, before the line's end.
    Extension(usize),
    Payload(usize),
    /// Before the line end of a payload.
    After,
    /// In the lines behind the last chunk; so many bytes of this line were seen.
    Trailer(usize),
    Done,
}

/// What the next bytes of a body were.
pub(crate) struct Piece<'b> {
    pub(crate) payload: &'b [u8],
    pub(crate) used: usize,
}

impl Framing {
    pub(crate) fn done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunked::Done))
    }

    /// Takes bytes from the front of a buffer: a run of payload, or some of what frames it.
    pub(crate) fn take<'b>(&mut self, buffer: &'b [u8]) -> Result<Piece<'b>> {
        match self {
            Self::Length(left) | Self::Chunked(Chunked::Payload(left)) => {
                let payload = buffer.get(..*left).unwrap_or(buffer);
                *left -= payload.len();
                if let Self::Chunked(chunked @ Chunked::Payload(0)) = self {
                    *chunked = Chunked::After;
                }
                Ok(Piece { payload, used: payload.len() })
            }
            Self::Chunked(chunked) => {
                let mut used = 0;
                for byte in buffer {
                    if matches!(chunked, Chunked::Payload(_) | Chunked::Done) {
                        break;
                    }
                    chunked.step(*byte)?;
                    used += 1;
                }
                Ok(Piece { payload: &[], used })
            }
        }
    }
}

impl Chunked {
    fn step(&mut self, byte: u8) -> Result<()> {
        *self = match (&*self, byte) {
            (Self::Size(size), b'\r' | b';') => Self::Extension(*size),
            (Self::Size(size), digit) => {
                let digit = char::from(digit).to_digit(16).context("no digit in a chunk's size")?;
                ensure!(*size <= usize::MAX >> 5, "a chunk beyond all memory");
                Self::Size(size * 16 + digit as usize)
            }
            (Self::Extension(0), b'\n') => Self::Trailer(0),
            (Self::Extension(size), b'\n') => Self::Payload(*size),
            (Self::Extension(size), _) => Self::Extension(*size),
            (Self::After, b'\n') => Self::Size(0),
            (Self::After, b'\r') => Self::After,
            (Self::After, _) => bail!("a chunk longer than its size"),
            (Self::Trailer(0), b'\n') => Self::Done,
            (Self::Trailer(_), b'\n') => Self::Trailer(0),
            (Self::Trailer(seen), b'\r') => Self::Trailer(*seen),
            (Self::Trailer(seen), _) => Self::Trailer(seen + 1),
            (Self::Payload(_) | Self::Done, _) => bail!("a payload byte taken for framing"),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(head: &[u8], body: &[u8], piece: usize) -> Result<(Vec<u8>, bool)> {
        let mut framing = Head::find(head)?.context("a head")?.framing()?;
        let mut all = Vec::new();
        for mut bytes in body.chunks(piece) {
            while !bytes.is_empty() && !framing.done() {
                let piece = framing.take(bytes)?;
                all.extend_from_slice(piece.payload);
                bytes = &bytes[piece.used..];
            }
        }
        Ok((all, framing.done()))
    }

    #[test]
    fn bodies_end_where_their_heads_say_in_any_pieces() {
        let length = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5 \r\n\r\n";
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for piece in [1, 2, 3, 100] {
            assert_eq!(payload(length, b"abcde", piece).unwrap(), (b"abcde".to_vec(), true));
            assert_eq!(payload(length, b"abcd", piece).unwrap(), (b"abcd".to_vec(), false));
            let body = b"3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n";
            assert_eq!(payload(chunked, body, piece).unwrap(), (b"abc0123456789".to_vec(), true));
            assert!(!payload(chunked, &body[..body.len() - 2], piece).unwrap().1);
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        let chunked = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        for body in [&b"x\r\n"[..], b"1\r\nab\r\n", b"ffffffffffffffffff\r\n"] {
            assert!(payload(chunked, body, 1).is_err(), "{:?}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_header_is_found_by_its_whole_name() {
        let head =
            Head::find(b"GET / HTTP/1.1\r\nX-Benchmark: 1\r\nx-bench:  a 2 \r\n\r\nrest").unwrap().unwrap();
        assert_eq!(head.header("x-bench"), Some(&b"a 2"[..]));
        assert_eq!(head.header("bench"), None);
        assert_eq!(head.first_line(), b"GET / HTTP/1.1");
    }
}
