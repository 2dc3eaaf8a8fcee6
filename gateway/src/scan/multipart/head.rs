//! Reads the head of one part, and the Content-Type of the form.

use super::super::{ScanErrorKind, name};
use super::parameters::{Parameters, is_token};

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scan) enum Part {
    /// The model; `ascii_only` where its charset agrees with UTF-8 in ASCII alone.
    Model {
        ascii_only: bool,
    },
    Other,
}

/// The boundary that a Content-Type names: 1 to 70 characters of RFC 2046's, space excepted. No other parameter is
/// taken: cpp-httplib looks for `boundary=` anywhere, and Starlette decodes every field by `charset`.
pub(super) fn boundary(content_type: &[u8]) -> Option<&[u8]> {
    let parameters = Parameters::read(content_type)?;
    let boundary = parameters.get("boundary")?;
    let usable = parameters.value.eq_ignore_ascii_case(b"multipart/form-data")
        && parameters.names().all(|name| matches!(name, b"boundary" | b"charset"))
        && parameters.get("charset").is_none_or(|charset| charset.eq_ignore_ascii_case(b"utf-8"))
        && (1..=70).contains(&boundary.len())
        && boundary.iter().all(|b| b.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(b));
    usable.then_some(boundary)
}

/// Reads the field lines of a part, each ended by CRLF.
pub(in crate::scan) fn read(head: &[u8]) -> Result<Part, ScanErrorKind> {
    let (mut disposition, mut media, mut encoding) = (None, None, None);
    let mut rest = head;
    while !rest.is_empty() {
        let (field, value, after) = line(rest).ok_or(ScanErrorKind::FormHead)?;
        rest = after;
        let slot = if field.eq_ignore_ascii_case(b"content-disposition") {
            &mut disposition
        } else if field.eq_ignore_ascii_case(b"content-type") {
            &mut media
        } else if field.eq_ignore_ascii_case(b"content-transfer-encoding") {
            &mut encoding
        } else {
            continue;
        };
        if slot.replace(value).is_some() {
            return Err(ScanErrorKind::FormHead);
        }
    }
    let disposition = disposition.and_then(Parameters::read).ok_or(ScanErrorKind::FormHead)?;
    match field_name(&disposition)? {
        b"model" => model(&disposition, media, encoding),
        _ => Ok(Part::Other),
    }
}

/// Splits off one line: its field name, its value without white space around it, and the lines after it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let end = bytes.iter().position(|&b| b == b'\r')?;
    let (line, rest) = bytes.split_at(end);
    let rest = rest.strip_prefix(b"\r\n")?;
    let colon = line.iter().position(|&b| b == b':')?;
    let (field, value) = (&line[..colon], &line[colon + 1..]);
    // Folded lines fail here: they begin with white space, which is not in a token.
    let well_formed = !field.is_empty()
        && field.iter().all(|&b| is_token(b))
        && value.iter().all(|&b| b == b'\t' || (b >= 0x20 && b != 0x7f));
    well_formed.then_some((field, value.trim_ascii(), rest))
}

/// The name of the field, if all readers see the same one: of few characters, so that no quoting, percent-encoding,
/// encoded word or charset has a say in it, and not nearly `model`.
fn field_name<'a>(disposition: &Parameters<'a>) -> Result<&'a [u8], ScanErrorKind> {
    if disposition.names().any(|name| name.starts_with(b"name*")) {
        return Err(ScanErrorKind::ModelDisguised);
    }
    let name = disposition
        .get("name")
        .filter(|name| disposition.value.eq_ignore_ascii_case(b"form-data") && is_plain(name))
        .ok_or(ScanErrorKind::FormHead)?;
    if name::is_case_variant(name) {
        return Err(ScanErrorKind::ModelCase);
    }
    // Some frameworks read `model[]` as `model`; `_charset_` sets how all fields are decoded (RFC 7578, 4.6).
    let stem = name.split(|&b| b == b'[').next().unwrap_or_default();
    if name != b"model" && stem.eq_ignore_ascii_case(b"model") || name.eq_ignore_ascii_case(b"_charset_") {
        return Err(ScanErrorKind::ModelDisguised);
    }
    Ok(name)
}

fn is_plain(name: &[u8]) -> bool {
    !name.is_empty()
        && name.trim_ascii() == name
        && name.iter().all(|&b| b.is_ascii_alphanumeric() || b"_-.:[] ".contains(&b))
}

/// Checks that the model is a plain field.
fn model(
    disposition: &Parameters<'_>,
    media: Option<&[u8]>,
    encoding: Option<&[u8]>,
) -> Result<Part, ScanErrorKind> {
    let disguised = ScanErrorKind::ModelDisguised;
    if disposition.names().any(|name| name != b"name") {
        return Err(disguised);
    }
    let identity: [&[u8]; 3] = [b"7bit", b"8bit", b"binary"];
    if encoding.is_some_and(|e| !identity.iter().any(|i| i.eq_ignore_ascii_case(e))) {
        return Err(disguised);
    }
    let Some(media) = media else { return Ok(Part::Model { ascii_only: false }) };
    let media = Parameters::read(media).ok_or(disguised)?;
    if !media.value.eq_ignore_ascii_case(b"text/plain") || media.names().any(|name| name != b"charset") {
        return Err(disguised);
    }
    match media.get("charset").map(<[u8]>::to_ascii_lowercase).as_deref() {
        None | Some(b"utf-8") => Ok(Part::Model { ascii_only: false }),
        Some(b"us-ascii" | b"iso-8859-1") => Ok(Part::Model { ascii_only: true }),
        Some(_) => Err(disguised),
    }
}
