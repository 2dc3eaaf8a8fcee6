//! The machine against an obvious twin that has the whole message and cuts it into lines.

extern crate std;

use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Body,
    Framing,
    Trailer,
}

/// The kind of each byte of the first message in `pieces`, if it is whole.
fn machine(mut framing: Framing, pieces: &[&[u8]]) -> Result<Option<Vec<Kind>>, FramingError> {
    let mut kinds = Vec::new();
    for mut rest in pieces.iter().copied() {
        while !rest.is_empty() {
            let (kind, n) = match framing.next(rest)? {
                Piece::Body(n) => (Kind::Body, n),
                Piece::Framing(n) => (Kind::Framing, n),
                Piece::Trailer(n) => (Kind::Trailer, n),
                Piece::Done => return Ok(Some(kinds)),
            };
            assert!(n > 0 && n <= rest.len());
            kinds.extend(core::iter::repeat_n(kind, n));
            rest = &rest[n..];
        }
    }
    Ok(framing.is_done().then_some(kinds))
}

fn twin(input: &[u8]) -> Option<Vec<Kind>> {
    let (mut rest, mut kinds, mut extensions) = (input, Vec::new(), 0);
    loop {
        let line = twin_line(&mut rest)?;
        let (size, extension) = line.split_at(line.find(';').unwrap_or(line.len()));
        extensions += extension.chars().count();
        if !twin_extensions(extension) || extensions > MAX_EXTENSION_BYTES.into() {
            return None;
        }
        if size.is_empty() || size.len() > 16 || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let size = usize::try_from(i64::from_str_radix(size, 16).ok()?).ok()?;
        kinds.extend(vec![Kind::Framing; line.chars().count() + 2]);
        if size == 0 {
            break;
        }
        if rest.len().checked_sub(2)? < size || &rest[size..size + 2] != b"\r\n" {
            return None;
        }
        kinds.extend(vec![Kind::Body; size]);
        kinds.extend([Kind::Framing; 2]);
        rest = &rest[size + 2..];
    }
    let (start, mut fields) = (rest.len(), 0);
    loop {
        let line = twin_line(&mut rest)?;
        if line.is_empty() {
            break;
        }
        fields += 1;
        let (name, value) = line.split_once(':')?;
        if name.is_empty() || !name.chars().all(twin_token) || !value.chars().all(twin_field) {
            return None;
        }
    }
    let length = start - rest.len();
    kinds.extend(vec![Kind::Trailer; length]);
    (length <= MAX_TRAILER_BYTES.into() && fields <= MAX_TRAILER_FIELDS.into()).then_some(kinds)
}

/// The bytes before the next CRLF as Latin-1; none where a CR or LF stands alone.
fn twin_line(rest: &mut &[u8]) -> Option<String> {
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let line = rest[..end].iter().map(|&b| b as char).collect::<String>();
    *rest = &rest[end + 2..];
    (!line.contains(['\r', '\n'])).then_some(line)
}

fn twin_extensions(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(';') else { return text.is_empty() };
    let rest_of_name = rest.trim_start_matches(twin_token);
    if rest_of_name.len() == rest.len() {
        return false;
    }
    let Some(value) = rest_of_name.strip_prefix('=') else { return twin_extensions(rest_of_name) };
    if let Some(mut quoted) = value.strip_prefix('"') {
        loop {
            let mut chars = quoted.chars();
            match chars.next() {
                Some('"') => return twin_extensions(chars.as_str()),
                Some('\\') if chars.next().is_some_and(twin_field) => {}
                Some(c) if c != '\\' && twin_field(c) => {}
                _ => return false,
            }
            quoted = chars.as_str();
        }
    }
    let rest = value.trim_start_matches(twin_token);
    rest.len() < value.len() && twin_extensions(rest)
}

fn twin_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn twin_field(c: char) -> bool {
    c == '\t' || (c >= ' ' && c != '\x7f')
}

#[test]
fn a_chunked_message_falls_into_its_pieces() {
    let input = b"5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\nGET";
    let mut framing = Framing::chunked();
    assert_eq!(framing.next(input), Ok(Piece::Framing(7)));
    assert_eq!(framing.next(&input[7..9]), Ok(Piece::Body(2)));
    assert_eq!(framing.next(&input[9..]), Ok(Piece::Body(3)));
    assert_eq!(framing.next(&input[12..]), Ok(Piece::Framing(5)));
    assert!(!framing.end_of_input());
    assert_eq!(framing.next(&input[17..]), Ok(Piece::Trailer(8)));
    assert!(framing.is_done() && framing.end_of_input());
    assert_eq!(framing.next(&input[25..]), Ok(Piece::Done));
}

#[test]
fn a_length_ends_exactly_there() {
    let mut framing = Framing::length(3);
    assert_eq!(framing.next(b"ab"), Ok(Piece::Body(2)));
    assert!(!framing.end_of_input());
    assert_eq!(framing.next(b"cGET"), Ok(Piece::Body(1)));
    assert_eq!(framing.next(b"GET"), Ok(Piece::Done));
    assert!(Framing::length(0).is_done());
    assert!(Framing::none().is_done());
}

#[test]
fn a_body_until_close_never_ends_and_may_end_anywhere() {
    let mut framing = Framing::until_close();
    assert_eq!(framing.next(b"0\r\n\r\n"), Ok(Piece::Body(5)));
    assert!(!framing.is_done() && framing.end_of_input());
}

#[test]
fn whatever_another_reader_could_take_otherwise_is_refused() {
    use FramingError::*;
    for (input, error) in [
        (&b"\r\n"[..], ChunkSize),
        (b" 5\r\n", ChunkSize),
        (b"5 \r\n", ChunkSize),
        (b"5\t;a\r\n", ChunkSize),
        (b"+5\r\n", ChunkSize),
        (b"-1\r\n", ChunkSize),
        (b"0x5\r\n", ChunkSize),
        (b"5_0\r\n", ChunkSize),
        (b"g\r\n", ChunkSize),
        (b";a\r\n", ChunkSize),
        (b"00000000000000005\r\n", ChunkSize),
        (b"8000000000000000\r\n", ChunkTooLarge),
        (b"ffffffffffffffff\r\n", ChunkTooLarge),
        (b"10000000000000005\r\n", ChunkSize),
        (b"5\nhello", LineEnd),
        (b"5\rhello", LineEnd),
        (b"5\r\r\nhello", LineEnd),
        (b"5;a\nhello", LineEnd),
        (b"5;a\rb\r\n", LineEnd),
        (b"5;a=\"\n\"\r\n", LineEnd),
        (b"5;\r\n", ChunkExtension),
        (b"5; a\r\n", ChunkExtension),
        (b"5;a =b\r\n", ChunkExtension),
        (b"5;a=\r\n", ChunkExtension),
        (b"5;a=b c\r\n", ChunkExtension),
        (b"5;a=\"b\"c\r\n", ChunkExtension),
        (b"5;a=\"\0\"\r\n", ChunkExtension),
        (b"5;a=\"\\\x7f\"\r\n", ChunkExtension),
        (b"5\r\nhelloX", ChunkEnd),
        (b"5\r\nhello\n", ChunkEnd),
        (b"5\r\nhello\rX", ChunkEnd),
        (b"0\r\n\n", LineEnd),
        (b"0\r\n\r\r", LineEnd),
        (b"0\r\n folded\r\n\r\n", Trailer),
        (b"0\r\na: b\r\n c\r\n\r\n", Trailer),
        (b"0\r\na : b\r\n\r\n", Trailer),
        (b"0\r\n: b\r\n\r\n", Trailer),
        (b"0\r\na: b\nc: d\r\n\r\n", LineEnd),
        (b"0\r\na: b\rc\r\n\r\n", LineEnd),
        (b"0\r\na: \0\r\n\r\n", Trailer),
    ] {
        let shown = String::from_utf8_lossy(input);
        assert_eq!(machine(Framing::chunked(), &[input]), Err(error), "{shown:?}");
        assert_eq!(twin(input), None, "{shown:?}");
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(machine(Framing::chunked(), &bytes), Err(error), "{shown:?} byte by byte");
    }
}

#[test]
fn a_broken_message_stays_broken() {
    let mut framing = Framing::chunked();
    assert_eq!(framing.next(b"x"), Err(FramingError::ChunkSize));
    assert_eq!(framing.next(b"5\r\n"), Err(FramingError::ChunkSize));
    assert!(!framing.end_of_input());
}

#[test]
fn extensions_and_trailers_have_an_end() {
    let ok = |text: String| machine(Framing::chunked(), &[text.as_bytes()]).map(|kinds| kinds.is_some());
    let name = |bytes: u16| "a".repeat(bytes.into());
    assert_eq!(ok(format!("0;{}\r\n\r\n", name(MAX_EXTENSION_BYTES - 1))), Ok(true));
    assert_eq!(ok(format!("0;{}\r\n\r\n", name(MAX_EXTENSION_BYTES))), Err(FramingError::ExtensionsTooLong));
    let many = "1;ab\r\nx\r\n".repeat(usize::from(MAX_EXTENSION_BYTES) / 3 + 1);
    assert_eq!(ok(many + "0\r\n\r\n"), Err(FramingError::ExtensionsTooLong));
    assert_eq!(ok(format!("0\r\na:{}\r\n\r\n", name(MAX_TRAILER_BYTES - 6))), Ok(true));
    assert_eq!(
        ok(format!("0\r\na:{}\r\n\r\n", name(MAX_TRAILER_BYTES - 5))),
        Err(FramingError::TrailerTooLong)
    );
    let fields = |n: u8| format!("0\r\n{}\r\n", "a:\r\n".repeat(n.into()));
    assert_eq!(ok(fields(MAX_TRAILER_FIELDS)), Ok(true));
    assert_eq!(ok(fields(MAX_TRAILER_FIELDS + 1)), Err(FramingError::TrailerTooLong));
}

prop_compose! {
    fn chunk()(payload in prop::collection::vec(any::<u8>(), 1..40), zeros in 0..4usize, upper in any::<bool>(),
        extension in prop::sample::select(vec!["", ";a", ";a=b", ";a=\"q \\\" \u{e9}\"", ";a;b=c"]))
        -> (Vec<u8>, Vec<u8>) {
        let size = if upper { format!("{:X}", payload.len()) } else { format!("{:x}", payload.len()) };
        let mut wire = format!("{}{size}{extension}\r\n", "0".repeat(zeros)).into_bytes();
        wire.extend_from_slice(&payload);
        wire.extend_from_slice(b"\r\n");
        (wire, payload)
    }
}

prop_compose! {
    /// The bytes of a chunked body and its payload.
    fn message()(chunks in prop::collection::vec(chunk(), 0..5),
        trailer in prop::sample::select(vec!["", "a: b\r\n", "a:\r\nb-c:\td \r\n"])) -> (Vec<u8>, Vec<u8>) {
        let (mut wire, mut payload) = (Vec::new(), Vec::new());
        for (bytes, body) in chunks {
            wire.extend(bytes);
            payload.extend(body);
        }
        wire.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
        (wire, payload)
    }
}

fn cut<'a>(wire: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
    at.extend([0, wire.len()]);
    at.sort_unstable();
    at.windows(2).map(|ends| &wire[ends[0]..ends[1]]).collect()
}

proptest! {
    #[test]
    fn every_encoding_decodes_to_its_payload_however_it_is_cut(
        (wire, payload) in message(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let kinds = machine(Framing::chunked(), &cut(&wire, &cuts)).unwrap().unwrap();
        prop_assert_eq!(Some(kinds.clone()), twin(&wire));
        let decoded: Vec<u8> =
            wire.iter().zip(&kinds).filter(|(_, kind)| **kind == Kind::Body).map(|(byte, _)| *byte).collect();
        prop_assert_eq!(decoded, payload);
    }

    #[test]
    fn the_twin_agrees_on_damaged_messages(
        (mut wire, _) in message(),
        damage in prop::collection::vec((any::<prop::sample::Index>(),
            prop::sample::select(b"\r\n\0 \t;:=\"\\0aAfgx_+-\x7f\xff".to_vec()), 0..3u8), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        for (at, byte, how) in damage {
            let at = at.index(wire.len());
            match how {
                0 => wire[at] = byte,
                1 => wire.insert(at, byte),
                _ => { wire.remove(at); }
            }
            if wire.is_empty() { return Ok(()); }
        }
        let whole = machine(Framing::chunked(), &[&wire]);
        prop_assert_eq!(&whole, &machine(Framing::chunked(), &cut(&wire, &cuts)));
        prop_assert_eq!(whole.ok().flatten(), twin(&wire));
    }

    #[test]
    fn no_input_panics(wire in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = machine(Framing::chunked(), &[&wire]);
    }
}
