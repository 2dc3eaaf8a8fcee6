//! The form twin: finds each delimiter by looking at every byte of the whole body.

use super::super::multipart::head::{self, Part};
use super::super::name;
use super::{Kind, Verdict};

/// Reads a form with this boundary.
pub(in super::super) fn form(boundary: &[u8], body: &[u8]) -> Verdict {
    let dashes = [b"--", boundary].concat();
    if !body.starts_with(&dashes) {
        return Err(if dashes.starts_with(body) { Kind::Truncated } else { Kind::FormPreamble });
    }
    let mut model = None;
    let mut at = dashes.len();
    for part in 0.. {
        match (body.get(at), body.get(at + 1)) {
            (Some(b'\r'), Some(b'\n')) => at += 2,
            (Some(b'-'), Some(b'-')) => return epilogue(&body[at + 2..]).map(|()| model),
            (None | Some(b'\r' | b'-'), None) => return Err(Kind::Truncated),
            _ => return Err(Kind::FormDelimiter),
        }
        if part == 1000 {
            return Err(Kind::FormTooManyParts);
        }
        let most = &body[at..body.len().min(at + 8192)];
        let end =
            if most.starts_with(b"\r\n") { Some(0) } else { find(most, b"\r\n\r\n").map(|end| end + 2) };
        let end = end.ok_or(if most.len() == 8192 { Kind::FormHeadTooLong } else { Kind::Truncated })?;
        let fields = &most[..end];
        if find(fields, &dashes).is_some() {
            return Err(Kind::FormDelimiter);
        }
        let kind = head::read(fields)?;
        at += end + 2;
        let rest = &body[at..];
        let next = find(rest, &dashes);
        if let Part::Model { ascii_only } = kind {
            if model.is_some() {
                return Err(Kind::ModelTwice);
            }
            let limit = 256 + 2 + dashes.len();
            if next.is_none_or(|next| next + dashes.len() > limit) && rest.len() >= limit {
                return Err(Kind::ModelTooLong);
            }
            let content = content(rest, next)?;
            let name = name::check(content)?;
            if ascii_only && !name.is_ascii() {
                return Err(Kind::ModelDisguised);
            }
            model = Some((name.to_string(), at as u64..(at + content.len()) as u64));
        }
        at += content(rest, next)?.len() + 2 + dashes.len();
    }
    Ok(model)
}

fn content(rest: &[u8], next: Option<usize>) -> Result<&[u8], Kind> {
    rest[..next.ok_or(Kind::Truncated)?].strip_suffix(b"\r\n").ok_or(Kind::FormDelimiter)
}

fn epilogue(rest: &[u8]) -> Result<(), Kind> {
    match rest {
        b"" | b"\r\n" => Ok(()),
        b"\r" => Err(Kind::Truncated),
        _ => Err(Kind::FormEpilogue),
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
