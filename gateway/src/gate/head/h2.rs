//! The same rules for a request that came over HTTP/2 (RFC 9113 section 8), as far as the h2 crate leaves them.

use http::header::{COOKIE, HOST, HeaderMap};
use http::request::Parts;
use penstock_common::framing::is_field_byte;

use super::{Special, check_method, invalid, may_have_body, target};
use crate::failure::{Failure, Reason};
use crate::gate::fields::{Ruled, Seen};
use crate::gate::{MAX_FIELDS, MAX_H2_FIELDS};

/// Checks the head of an HTTP/2 request; `has_body`: its HEADERS did not end the stream. That the body is as long
/// as Content-Length says is checked by the h2 crate.
///
/// # Errors
/// With `head_invalid` or `head_too_large`, and what to mend.
pub fn check_h2(parts: &Parts, has_body: bool) -> Result<(), Failure> {
    if parts.headers.len() > MAX_H2_FIELDS {
        return Err(Failure::new(Reason::HeadTooLarge, "the request has more than 1000 fields; send fewer"));
    }
    // Toward an engine the crumbs of a cookie are one line; of the others it takes no more than over HTTP/1.1.
    let crumbs = parts.headers.get_all(COOKIE).iter().count();
    if parts.headers.len() - crumbs > MAX_FIELDS {
        let message = "the request has more than 100 fields beside its cookies; send fewer";
        return Err(Failure::new(Reason::HeadTooLarge, message));
    }
    check(parts, has_body).map_err(invalid)
}

fn check(parts: &Parts, has_body: bool) -> Result<(), &'static str> {
    check_method(parts.method.as_str())?;
    if !parts.uri.scheme_str().is_none_or(|scheme| matches!(scheme, "http" | "https")) {
        return Err("the scheme is neither http nor https");
    }
    match parts.uri.path_and_query() {
        Some(path) => {
            if target::check(parts.method.as_str(), path.as_str().as_bytes())?.is_some() {
                return Err("the path does not begin with a slash");
            }
        }
        None => return Err("there is no path"),
    }
    check_authority(parts)?;
    let length = check_fields(&parts.headers)?;
    if (has_body || length.unwrap_or(0) > 0) && !may_have_body(parts.method.as_str()) {
        return Err("this method takes no body; use POST and END_STREAM on HEADERS for the rest");
    }
    if !has_body && length.unwrap_or(0) > 0 {
        return Err("Content-Length announces a body that did not come");
    }
    Ok(())
}

/// RFC 9113 section 8.3.1: one of `:authority` and Host; where both are, they agree.
fn check_authority(parts: &Parts) -> Result<(), &'static str> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next().map(|host| host.as_bytes());
    if hosts.next().is_some() {
        return Err("there is more than one Host");
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    match (authority, host) {
        (None, None) => Err("there is neither :authority nor Host"),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err("Host differs from :authority")
        }
        (Some(named), _) | (None, Some(named)) => target::check_host(named),
    }
}

fn check_fields(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut seen = Seen::default();
    let mut special = Special::default();
    for (name, value) in headers {
        let (name, value) = (name.as_str(), value.as_bytes());
        if matches!(name, "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade")
        {
            return Err("a field about the connection came over HTTP/2");
        }
        if name == "te" && value != b"trailers" {
            return Err("TE is something other than `trailers`");
        }
        if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value {
            return Err("a field value begins or ends with white space");
        }
        if !value.iter().copied().all(is_field_byte) {
            return Err("a field value holds a control byte");
        }
        if let Some(ruled) = Ruled::of(name)? {
            seen.take(ruled, value)?;
            special.take(ruled, value)?;
        }
    }
    Ok(seen.length)
}
