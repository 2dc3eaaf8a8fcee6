//! Percent-encoding (RFC 3986, section 2.1), both ways.

use std::borrow::Cow;

/// The bytes that `text` spells. Escapes that are none are kept as they stand, as engines do.
pub(crate) fn decoded(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    let Some(first) = memchr::memchr(b'%', bytes) else { return Cow::Borrowed(bytes) };
    let (plain, mut rest) = bytes.split_at(first);
    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(plain);
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        decoded.push(match (byte, escape(tail)) {
            (b'%', Some(escaped)) => {
                rest = &tail[2..];
                escaped
            }
            _ => byte,
        });
    }
    Cow::Owned(decoded)
}

/// Visible ASCII other than `%` as it stands, everything else as escapes, so that it decodes to one text only.
pub(super) fn encoded(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if bytes.iter().copied().all(is_plain) {
        return Cow::Borrowed(bytes);
    }
    let mut encoded = Vec::with_capacity(bytes.len() * 3);
    for &byte in bytes {
        if is_plain(byte) {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(&[b'%', hex(byte >> 4), hex(byte & 15)]);
        }
    }
    Cow::Owned(encoded)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'%'
}

fn hex(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 }
}

fn escape(after_percent: &[u8]) -> Option<u8> {
    let [high, low, ..] = after_percent else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn broken_escapes_stay_as_they_are() {
        for (text, expected) in [
            ("plain", "plain"),
            ("%63hat%2Fc", "chat/c"),
            ("%2fx", "/x"),
            ("%", "%"),
            ("a%2", "a%2"),
            ("%zz%+1%2 f", "%zz%+1%2 f"),
            ("%%41", "%A"),
            ("%252F", "%2F"),
        ] {
            assert_eq!(decoded(text), expected.as_bytes(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same_text(text: String) {
            let wire = encoded(&text).into_owned();
            prop_assert!(wire.iter().all(u8::is_ascii_graphic));
            let wire = String::from_utf8(wire).unwrap();
            let back = decoded(&wire);
            prop_assert_eq!(back.as_ref(), text.as_bytes());
        }
    }
}
