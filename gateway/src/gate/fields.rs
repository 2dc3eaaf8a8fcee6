//! Fields that decide framing, the connection or trust: what they may say, and which never travel on.

use http::header::{CONNECTION, HOST, HeaderMap, HeaderName};
use penstock_common::framing::{is_field_byte, is_token};

/// What the fields of one head say about its message and its connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
}

/// The fields that have rules of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruled {
    Authorization,
    Connection,
    ContentLength,
    ContentType,
    Expect,
    Host,
    Te,
    TransferEncoding,
    Upgrade,
}

impl Ruled {
    /// By its name, a token in any letter case. No two are of one length, so that a name is compared with one at most.
    pub(super) fn of(name: &str) -> Result<Option<Self>, &'static str> {
        let name = name.as_bytes();
        Ok(match name.len() {
            2 if is(name, b"te") => Some(Self::Te),
            4 if is(name, b"host") => Some(Self::Host),
            6 if is(name, b"expect") => Some(Self::Expect),
            7 if is(name, b"upgrade") => Some(Self::Upgrade),
            10 if is(name, b"connection") => Some(Self::Connection),
            12 if is(name, b"content-type") => Some(Self::ContentType),
            13 if is(name, b"authorization") => Some(Self::Authorization),
            14 if is(name, b"content-length") => Some(Self::ContentLength),
            17 if is(name, b"transfer-encoding") => Some(Self::TransferEncoding),
            14 if is_in_disguise(name, b"content-length") => return Err(DISGUISED),
            17 if is_in_disguise(name, b"transfer-encoding") => return Err(DISGUISED),
            _ => None,
        })
    }
}

const DISGUISED: &str = "a field name spells Content-Length or Transfer-Encoding with an underscore";

/// Whether a token is this name, which is in lower case.
fn is<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    // Of a known length and without an early end, so that the compiler looks at eight bytes at once. No other token byte
    // becomes a letter or `-` by this bit.
    <&[u8; N]>::try_from(name)
        .is_ok_and(|name| (0..N).fold(true, |all, at| all & (name[at] | 0x20 == lower[at])))
}

/// Whether a head, or the value of a field, holds a control byte that has no place in it.
pub(super) fn holds_control_byte(text: &[u8]) -> bool {
    // Without an early end the compiler looks at sixteen bytes at once.
    text.iter().fold(false, |any, &byte| any | !(is_field_byte(byte) | (byte == b'\r') | (byte == b'\n')))
}

impl Seen {
    /// Takes one field line; `Err` says what is wrong with it.
    pub(super) fn take(&mut self, field: Ruled, value: &[u8]) -> Result<(), &'static str> {
        match field {
            Ruled::ContentLength => {
                if self.length.is_some() {
                    return Err("there is more than one Content-Length");
                }
                self.length = Some(length(trim(value))?);
            }
            Ruled::TransferEncoding => {
                if self.chunked || !trim(value).eq_ignore_ascii_case(b"chunked") {
                    return Err("Transfer-Encoding is something other than one `chunked`");
                }
                self.chunked = true;
            }
            Ruled::Connection => {
                for token in list(value) {
                    if !token.iter().copied().all(is_token) {
                        return Err("Connection is not a list of tokens");
                    }
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            Ruled::Te if !list(value).all(is_coding) => return Err("TE is not a list of transfer codings"),
            _ => {}
        }
        if self.chunked && self.length.is_some() {
            return Err("there are both Content-Length and Transfer-Encoding");
        }
        Ok(())
    }

    /// Whether the sender wants the connection kept (RFC 9112 section 9.3).
    pub(super) fn keeps(&self, version_11: bool) -> bool {
        !self.close && (version_11 || self.keep_alive)
    }
}

/// Gateways of the CGI family read `_` as `-`: such a name would be framing to them and nothing to us.
fn is_in_disguise(name: &[u8], spelling: &[u8]) -> bool {
    let mut letters = name.iter().zip(spelling);
    letters.all(|(byte, is)| byte.eq_ignore_ascii_case(is) || *byte == b'_' && *is == b'-')
}

fn length(value: &[u8]) -> Result<u64, &'static str> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err("Content-Length is not one decimal number");
    }
    let too_large = "Content-Length is beyond 2^63 - 1";
    // The digits are ASCII.
    let digits = std::str::from_utf8(value).map_err(|_| too_large)?;
    if digits.len() > 19 {
        return Err(too_large);
    }
    digits.parse::<i64>().ok().and_then(|length| u64::try_from(length).ok()).ok_or(too_large)
}

/// The members of a comma-separated list; empty ones are skipped (RFC 9110 section 5.6.1.2).
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty())
}

/// `t-codings`: a token with parameters; only the alphabet is checked, since TE goes no further than here.
fn is_coding(coding: &[u8]) -> bool {
    coding.first().copied().is_some_and(is_token)
        && coding.iter().all(|&byte| is_token(byte) || matches!(byte, b';' | b'=' | b'"' | b' ' | b'\t'))
}

/// Without the optional white space around it.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Fields about one connection (RFC 9110 section 7.6.1), and credentials meant for a proxy: Penstock is the
/// origin to its clients, an engine is nobody's proxy.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "keep-alive"
            | "http2-settings"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-authorization"
            | "proxy-connection"
    )
}

/// Removes the fields that belong to the connection they came over, and those that Connection names, except for
/// the ones that frame, route, secure or describe the message: no peer may talk another hop out of those.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| list(value.as_bytes()))
            .filter(|token| {
                !token.eq_ignore_ascii_case(b"close") && !token.eq_ignore_ascii_case(b"keep-alive")
            })
            .filter_map(|token| HeaderName::from_bytes(token).ok())
            .filter(|name| !is_protected(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    remove_all(headers, is_hop_by_hop);
}

/// Removes the trailer fields of an answer that have no place behind a body.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    remove_all(trailers, |name| !may_trail(name));
}

/// Looks at each name there is: they are fewer than those that there might be.
fn remove_all(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let found: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

fn may_trail(name: &HeaderName) -> bool {
    !is_protected(name) && !is_hop_by_hop(name)
}

const PROTECTED_PREFIXES: [&str; 8] = [
    "access-control-",
    "content-",
    "sec-",
    "x-api-",
    "x-forwarded-",
    "x-gateway-",
    "x-llm-d-",
    "x-penstock-",
];
/// In order, for the binary search.
const PROTECTED: [&str; 33] = [
    "accept",
    "accept-encoding",
    "age",
    "anthropic-beta",
    "anthropic-version",
    "api-key",
    "authorization",
    "cache-control",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "if-match",
    "if-none-match",
    "location",
    "max-forwards",
    "openai-organization",
    "openai-project",
    "origin",
    "pragma",
    "range",
    "retry-after",
    "set-cookie",
    "strict-transport-security",
    "traceparent",
    "tracestate",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
    "x-real-ip",
    "x-request-id",
];

/// Fields for every recipient: Connection does not remove them, and they do not come as trailers.
fn is_protected(name: &HeaderName) -> bool {
    let text = name.as_str();
    *name == HOST
        || PROTECTED.binary_search(&text).is_ok()
        || PROTECTED_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_field_is_known_in_any_letter_case_and_framing_not_with_an_underscore() {
        assert_eq!(Ruled::of("CONTENT-Length"), Ok(Some(Ruled::ContentLength)));
        assert_eq!(Ruled::of("Transfer-Encoding"), Ok(Some(Ruled::TransferEncoding)));
        for other in ["content-lengths", "content_type", "accept", "x-framing-lengt", "", "host-"] {
            assert_eq!(Ruled::of(other), Ok(None), "{other}");
        }
        for disguised in ["content_length", "Content_Length", "TRANSFER_ENCODING"] {
            assert!(Ruled::of(disguised).is_err(), "{disguised}");
        }
    }

    #[test]
    fn no_control_byte_but_those_of_a_line_stands_in_a_head() {
        for byte in 0..=u8::MAX {
            let allowed = matches!(byte, b'\t' | b'\r' | b'\n') || (byte >= b' ' && byte != 0x7f);
            assert_eq!(holds_control_byte(&[b'a', byte, b'b']), !allowed, "{byte}");
        }
    }

    #[test]
    fn the_protected_names_are_in_order() {
        assert!(PROTECTED.is_sorted());
    }

    #[test]
    fn what_connection_names_goes() {
        let mut headers = headers(&[
            ("connection", "close, X-Mine"),
            ("connection", "x-too,,"),
            ("x-mine", "1"),
            ("x-too", "2"),
            ("x-stays", "3"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("proxy-authorization", "Basic eA=="),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-stays"]);
    }

    #[test]
    fn connection_cannot_talk_the_next_hop_out_of_framing_or_security() {
        let lines = [
            ("authorization", "Bearer x"),
            ("content-length", "5"),
            ("content-type", "application/json"),
            ("host", "a"),
            ("x-api-key", "x"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-gateway-model-name", "m"),
            ("x-request-id", "1"),
        ];
        let mut all = headers(&lines);
        for (name, _) in lines {
            all.append(CONNECTION, HeaderValue::from_static(name));
        }
        strip_hop_by_hop(&mut all);
        assert_eq!(all, headers(&lines));
    }

    #[test]
    fn trailers_that_belong_into_the_head_are_dropped() {
        for name in
            ["content-length", "transfer-encoding", "host", "authorization", "x-gateway-model-name", "te"]
        {
            let mut trailers = headers(&[("x-checksum", "1"), (name, "x")]);
            strip_trailers(&mut trailers);
            assert_eq!(trailers, headers(&[("x-checksum", "1")]), "{name}");
        }
    }
}
