//! The rules for a request head: RFC 9112 and 9110, refused wherever two readers could differ.
//!
//! Stricter than the RFCs in these points, each for the sake of one reading: no bare LF, no empty line but one
//! CRLF before a request (which `io` drops), methods of the HTTPRoute kind only, a body only with POST, PUT,
//! PATCH or DELETE (some engines never read one behind GET), no identical duplicates of Content-Length, no
//! transfer coding but `chunked`, no dot segments.
//!
//! Upgrades are refused, but for `Upgrade: h2c`, which RFC 9110 section 7.8 lets a server ignore and
//! `curl --http2` sends with every plain request: it stays unanswered and
//! [`strip_hop_by_hop`](super::fields::strip_hop_by_hop) drops it.

mod h2;
mod target;
#[cfg(test)]
pub(super) mod tests;

use std::mem::{self, MaybeUninit};

use http::Method;
use penstock_common::framing::{Framing, is_token};

use super::fields::{Ruled, Seen, holds_control_byte, trim};
use super::{MAX_FIELDS, MAX_HEAD_BYTES};
use crate::failure::{Failure, Reason};

pub use h2::check_h2;

/// What an accepted HTTP/1 request head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Of the body behind it.
    pub framing: Framing,
    /// Its length, where the head declares one.
    pub length: Option<u64>,
    /// Where the digits of that length stand in the head.
    pub length_at: usize,
    /// The client wants to send another request.
    pub keep_alive: bool,
    /// The client waits for 100 before it sends the body; hyper sends it once the body is polled.
    pub expects_continue: bool,
    /// Bytes of the head, with its empty line.
    pub consumed: usize,
}

/// Checks the request head that `head` begins with.
///
/// # Errors
/// With `head_invalid` or `head_too_large`, and what to mend.
pub fn check_request(head: &[u8]) -> Result<RequestHead, Failure> {
    if !head.first().copied().is_some_and(is_token) {
        return Err(invalid("the request does not begin with a method"));
    }
    let mut lines = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let consumed = match request.parse_with_uninit_headers(head, &mut lines) {
        Ok(httparse::Status::Complete(consumed)) => consumed,
        Ok(httparse::Status::Partial) => return Err(invalid("the request head is cut short")),
        Err(error) => return Err(malformed(error)),
    };
    if consumed > MAX_HEAD_BYTES {
        return Err(too_large());
    }
    if !lines_end_in_crlf(&head[..consumed]) {
        return Err(invalid("a line of the head does not end in CRLF"));
    }
    if holds_control_byte(&head[..consumed]) {
        return Err(invalid("a field value holds a control byte"));
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(invalid("the request head is cut short"));
    };
    check_fields(head, method, target, version == 1, request.headers)
        .map(|head| RequestHead { consumed, ..head })
        .map_err(invalid)
}

/// Whether a head can still become one that is accepted, going by its first line; asked before the rest is there,
/// so that what is not HTTP gets its answer at once.
pub(super) fn check_request_line(line: &[u8]) -> Result<(), Failure> {
    let mut request = httparse::Request::new(&mut []);
    match request.parse(line) {
        Ok(_) => Ok(()),
        Err(error) => Err(malformed(error)),
    }
}

fn check_fields(
    head: &[u8],
    method: &str,
    target: &str,
    version_11: bool,
    fields: &[httparse::Header<'_>],
) -> Result<RequestHead, &'static str> {
    check_method(method)?;
    let authority = target::check(method, target.as_bytes())?;
    let mut seen = Seen::default();
    let mut special = Special::default();
    let mut length_at = 0;
    for field in fields {
        if let Some(ruled) = Ruled::of(field.name)? {
            seen.take(ruled, field.value)?;
            special.take(ruled, field.value)?;
            if ruled == Ruled::ContentLength {
                length_at = trim(field.value).as_ptr().addr() - head.as_ptr().addr();
            }
        }
    }
    if seen.chunked && !version_11 {
        return Err("an HTTP/1.0 request has Transfer-Encoding");
    }
    if (seen.chunked || seen.length.unwrap_or(0) > 0) && !may_have_body(method) {
        return Err("this method takes no body; use POST");
    }
    match (special.host, authority) {
        (None, _) if version_11 => return Err("there is no Host"),
        (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => {
            return Err("Host differs from the authority of the request target");
        }
        (None, Some(_)) => return Err("an absolute request target comes without Host"),
        _ => {}
    }
    let framing = match seen.length {
        _ if seen.chunked => Framing::chunked(),
        Some(length) => Framing::length(length),
        None => Framing::none(),
    };
    // RFC 9110 section 10.1.1: ignored from an HTTP/1.0 client and without a body.
    let expects_continue = special.expects_continue && version_11 && !framing.is_done();
    let keep_alive = seen.keeps(version_11);
    Ok(RequestHead { framing, length: seen.length, length_at, keep_alive, expects_continue, consumed: 0 })
}

/// The fields that matter in requests only.
#[derive(Default)]
struct Special<'a> {
    host: Option<&'a [u8]>,
    expects_continue: bool,
    authorization: bool,
    content_type: bool,
}

impl<'a> Special<'a> {
    fn take(&mut self, field: Ruled, value: &'a [u8]) -> Result<(), &'static str> {
        match field {
            Ruled::Host => {
                let value = trim(value);
                target::check_host(value)?;
                if self.host.replace(value).is_some() {
                    return Err("there is more than one Host");
                }
            }
            Ruled::Expect => {
                if self.expects_continue || !trim(value).eq_ignore_ascii_case(b"100-continue") {
                    return Err("Expect is something other than one `100-continue`");
                }
                self.expects_continue = true;
            }
            Ruled::Upgrade if !trim(value).eq_ignore_ascii_case(b"h2c") => {
                return Err("upgrades are not served; send the request without Upgrade");
            }
            Ruled::Authorization if mem::replace(&mut self.authorization, true) => {
                return Err("there is more than one Authorization");
            }
            Ruled::ContentType if mem::replace(&mut self.content_type, true) => {
                return Err("there is more than one Content-Type");
            }
            _ => {}
        }
        Ok(())
    }
}

/// The methods that an HTTPRoute can match, without CONNECT (a tunnel) and TRACE (an echo of credentials).
fn check_method(method: &str) -> Result<(), &'static str> {
    match method {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => Ok(()),
        "CONNECT" => Err("CONNECT is not served"),
        _ => Err("the method is not one of GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS"),
    }
}

fn may_have_body(method: &str) -> bool {
    [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].iter().any(|with| with.as_str() == method)
}

/// Whether every CR stands before an LF and every LF behind a CR.
pub(super) fn lines_end_in_crlf(head: &[u8]) -> bool {
    let [first, behind @ ..] = head else { return true };
    // Without an early end the compiler looks at sixteen pairs at once.
    let paired = |all, (&byte, &next): (&u8, &u8)| all & ((byte == b'\r') == (next == b'\n'));
    *first != b'\n' && head.last() != Some(&b'\r') && head.iter().zip(behind).fold(true, paired)
}

fn malformed(error: httparse::Error) -> Failure {
    use httparse::Error;
    invalid(match error {
        Error::TooManyHeaders => {
            return Failure::new(Reason::HeadTooLarge, "the request has more than 100 fields; send fewer");
        }
        Error::HeaderName => "a field name is malformed, folded or has white space beside it",
        Error::HeaderValue => "a field value holds a control byte",
        Error::NewLine => "a line of the head does not end in CRLF",
        Error::Token => "the method or the request target is malformed",
        Error::Version => "the request line does not end in HTTP/1.1 or HTTP/1.0",
        Error::Status => "the request head is malformed",
    })
}

pub(super) fn too_large() -> Failure {
    Failure::new(Reason::HeadTooLarge, "the request head is larger than 64 KiB; send fewer or shorter fields")
}

pub(super) fn invalid(message: &'static str) -> Failure {
    Failure::new(Reason::HeadInvalid, message)
}
