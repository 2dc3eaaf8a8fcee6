//! Content-Type and Content-Encoding, as far as they decide how a body is scanned.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use crate::failure::{Failure, Reason};

/// A body's type. JSON and multipart exclude each other (a boundary line is no JSON, and no JSON string holds a
/// line break), so it cannot be read as both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    Multipart,
    UrlEncoded,
    Other,
}

impl Media {
    /// Two Content-Type lines are refused: engines differ in which one they read.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let mut lines = headers.get_all(CONTENT_TYPE).iter();
        let first = lines.next();
        if lines.next().is_some() {
            return Err(Failure::new(Reason::HeadInvalid, "more than one Content-Type; send one"));
        }
        // What nearly every client says.
        if first.is_some_and(|value| value == "application/json") {
            return Ok(Self::Json);
        }
        let value = first.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = value.split(';').next().unwrap_or_default().trim();
        let Some((_, subtype)) = essence.split_once('/') else { return Ok(Self::Other) };
        Ok(if subtype.eq_ignore_ascii_case("json") || ends_with(subtype, "+json") {
            Self::Json
        } else if essence.eq_ignore_ascii_case("multipart/form-data") {
            Self::Multipart
        } else if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            Self::UrlEncoded
        } else {
            Self::Other
        })
    }
}

/// Why the scanner cannot read the body's bytes as the engine would, if so.
pub(super) fn unreadable(headers: &HeaderMap, media: Media) -> Option<&'static str> {
    if headers.get_all(CONTENT_ENCODING).iter().any(|value| !is_identity(value.as_bytes())) {
        return Some("bodies with a Content-Encoding are not accepted here; send it unencoded");
    }
    // JSON is UTF-8 (RFC 8259, section 8.1). In GBK or UTF-7 a reader that honours the label sees other quotes.
    let labelled = || headers.get(CONTENT_TYPE).is_some_and(|value| other_charset(value.as_bytes()));
    (media == Media::Json && labelled())
        .then_some("JSON is UTF-8; send it so, without another charset in the Content-Type")
}

fn is_identity(codings: &[u8]) -> bool {
    codings
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity"))
}

fn other_charset(content_type: &[u8]) -> bool {
    let Some(essence) = memchr::memchr(b';', content_type) else { return false };
    content_type[essence + 1..].split(|&byte| byte == b';').any(|parameter| {
        let mut halves = parameter.splitn(2, |&byte| byte == b'=');
        let name = halves.next().unwrap_or_default().trim_ascii();
        let Some(value) = halves.next() else { return false };
        let value = value.trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
        name.eq_ignore_ascii_case(b"charset")
            && ![&b"utf-8"[..], b"utf8", b"us-ascii"].iter().any(|utf8| value.eq_ignore_ascii_case(utf8))
    })
}

fn ends_with(text: &str, suffix: &str) -> bool {
    let (text, suffix) = (text.as_bytes(), suffix.as_bytes());
    text.len() >= suffix.len() && text[text.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
}
