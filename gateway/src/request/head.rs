//! Heads on their way: the request's as an engine gets it, the response's as the client gets it.

use std::mem;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, Uri, Version};

use super::{Client, Served};
use crate::endpoint::{Address, Endpoint};
use crate::failure::Failure;
use crate::forward::{Owed, TRACEPARENT, TRACEPARENT_BYTES, X_REQUEST_ID, request_head, via};
use crate::gate::fields::strip_hop_by_hop;
use crate::inspect::{model_header, strip_internal};
use crate::relay::Relay;
use crate::route::{Forward, filters};
use crate::snapshot::Match;
use crate::upload::Length;

/// A client's own id longer than this is replaced: it goes into logs and to engines.
const REQUEST_ID_MAX: usize = 256;

/// A request ready to be sent, as often as it takes.
pub(super) struct Outgoing {
    pub(super) method: Method,
    /// Of the client's request.
    pub(super) version: Version,
    uri: Uri,
    host: HeaderValue,
    headers: HeaderMap,
    /// `None`: it is among the headers, where filters may have changed it.
    owed: Option<Owed>,
}

impl Outgoing {
    /// Applies what the gateway owes the engine, then the filters of the rule and of the destination.
    pub(super) fn new(
        client: &Rc<Client>,
        parts: &mut Parts,
        client_host: &HeaderValue,
        request_id: &HeaderValue,
        model: Option<&str>,
        matched: &Match,
        forward: &Forward<'_>,
    ) -> Result<Self, Failure> {
        strip_hop_by_hop(&mut parts.headers);
        let mut owed = Some(Owed {
            version: parts.version,
            ip: client.forwarded_for.clone(),
            host: client_host.clone(),
            request_id: request_id.clone(),
            traceparent: (!parts.headers.contains_key(TRACEPARENT)).then(traceparent),
            model: model.map(model_header),
        });
        if filters::edit_request_fields(matched, forward.destination)
            && let Some(owed) = owed.take()
        {
            owed.insert(&mut parts.headers);
        }
        filters::on_request(parts, matched, forward.destination)?;
        let host = host(parts);
        let Parts { method, version, uri, headers, .. } = parts;
        let (method, uri, headers) = (mem::take(method), mem::take(uri), mem::take(headers));
        Ok(Self { method, version: *version, uri, host, headers, owed })
    }

    /// The bytes of the head for a body of this length. An HTTP/1.0 client may have named no host; HTTP/1.1 must.
    pub(super) fn bytes(&self, length: Length, endpoint: &Endpoint) -> Bytes {
        let host = match (self.host.as_bytes(), &endpoint.address) {
            (b"", Address::Tcp(_)) => endpoint.label.as_bytes(),
            (b"", Address::Unix(_)) => b"localhost",
            (host, _) => host,
        };
        let (target, owed) = (origin_form(&self.uri), self.owed.as_ref());
        request_head(&self.method, target, host, &self.headers, owed, length)
    }
}

/// The host that the client named: the authority of its target, or else its Host field; empty where it named none.
pub(super) fn host(parts: &Parts) -> HeaderValue {
    let named = match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => parts.headers.get(HOST).filter(|host| host.to_str().is_ok()).cloned(),
    };
    named.unwrap_or_else(|| HeaderValue::from_static(""))
}

/// The client's own X-Request-Id, or a new one.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let own = headers
        .get(X_REQUEST_ID)
        .filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.to_str().is_ok());
    own.cloned().unwrap_or_else(|| {
        let mut id = [0; 32];
        put_hex(&mut id, &fastrand::u128(..).to_be_bytes());
        // Digits always are a field value.
        HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("0"))
    })
}

/// Finishes every response, an engine's or our own.
pub(super) fn describe(response: &mut Response<Served>, request_id: &HeaderValue) {
    let headers = response.headers_mut();
    headers.entry(X_REQUEST_ID).or_insert_with(|| request_id.clone());
}

/// Whether only chunks, or the end of the connection, can say where the answer ends.
pub(super) fn is_of_unknown_length(response: &Response<Served>) -> bool {
    matches!(response.body(), Served::Engine(_)) && !response.headers().contains_key(CONTENT_LENGTH)
}

/// An answer of our own to HEAD has the length of its body, and no body (RFC 9110 section 9.3.2).
pub(super) fn without_body(response: &mut Response<Served>) {
    if let Served::Own(body) = response.body_mut() {
        let length = mem::take(body).len();
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
}

/// Makes an engine's head ready for the client: hop-by-hop fields go, Via and the filters come.
pub(super) fn edit_response(response: &mut Response<Box<Relay>>, matched: &Match, forward: &Forward<'_>) {
    strip_hop_by_hop(response.headers_mut());
    // An engine does not speak for the gateway.
    strip_internal(response.headers_mut());
    response.headers_mut().append(VIA, HeaderValue::from_static(via(http::Version::HTTP_11)));
    filters::on_response(response.headers_mut(), &matched.rule, Some(forward.destination));
}

/// A trace begins here where the client began none (W3C Trace Context, version 00). Sampled: an engine's own
/// sampler would have taken a request without a traceparent.
fn traceparent() -> [u8; TRACEPARENT_BYTES] {
    let mut value = *b"00-00000000000000000000000000000000-0000000000000000-01";
    put_hex(&mut value[3..19], &fastrand::u64(1..).to_be_bytes());
    put_hex(&mut value[19..35], &fastrand::u64(..).to_be_bytes());
    put_hex(&mut value[36..52], &fastrand::u64(1..).to_be_bytes());
    value
}

/// `{:02x}` of each byte, without `fmt`: these are the only digits that each request pays for.
fn put_hex(digits: &mut [u8], bytes: &[u8]) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// Engines are asked in origin form, also where the client sent a whole URI.
fn origin_form(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_that_fmt_writes() {
        for number in [0, 1, 0xf0, 0x0123_4567_89ab_cdef, u64::MAX] {
            let mut digits = [0; 16];
            put_hex(&mut digits, &number.to_be_bytes());
            assert_eq!(digits, format!("{number:016x}").as_bytes());
        }
    }

    #[test]
    fn a_new_trace_is_sampled_and_has_its_four_parts() {
        let value = traceparent();
        let parts: Vec<_> = std::str::from_utf8(&value).unwrap().split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
        assert_eq!((parts[0], parts[3]), ("00", "01"));
        let halves = [&parts[1][..16], &parts[1][16..], parts[2]];
        assert!(halves.iter().all(|half| u64::from_str_radix(half, 16).unwrap() != 0));
    }
}
