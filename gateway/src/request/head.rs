//! Heads on their way: the request's as an engine gets it, the response's as the client gets it.

use std::fmt::Write;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Uri};

use super::{Client, Served};
use crate::endpoint::{Address, Endpoint};
use crate::failure::Failure;
use crate::forward::{ClientSide, request_head, via};
use crate::gate::fields::strip_hop_by_hop;
use crate::inspect::{MODEL_HEADER, model_header, strip_internal};
use crate::relay::Relay;
use crate::route::{Forward, filters};
use crate::snapshot::Match;
use crate::upload::Length;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// A client's own id longer than this is replaced: it goes into logs and to engines.
const REQUEST_ID_MAX: usize = 256;

/// A request ready to be sent, as often as it takes.
pub(super) struct Outgoing {
    pub(super) method: Method,
    target: String,
    host: String,
    headers: HeaderMap,
}

impl Outgoing {
    /// Applies what the gateway owes the engine, then the filters of the rule and of the destination.
    pub(super) fn new(
        client: &Rc<Client>,
        mut parts: Parts,
        client_host: &str,
        request_id: &HeaderValue,
        model: Option<&str>,
        matched: &Match,
        forward: &Forward<'_>,
    ) -> Result<Self, Failure> {
        strip_hop_by_hop(&mut parts.headers);
        let side = ClientSide { ip: client.peer.ip(), version: parts.version, host: client_host };
        side.describe(&mut parts.headers);
        parts.headers.insert(X_REQUEST_ID, request_id.clone());
        parts.headers.entry(TRACEPARENT).or_insert_with(traceparent);
        if let Some(model) = model {
            parts.headers.insert(MODEL_HEADER, model_header(model));
        }
        filters::on_request(&mut parts, matched, forward.destination)?;
        Ok(Self {
            target: origin_form(&parts.uri).to_owned(),
            host: host(&parts),
            method: parts.method,
            headers: parts.headers,
        })
    }

    /// The bytes of the head for a body of this length. An HTTP/1.0 client may have named no host; HTTP/1.1 must.
    pub(super) fn bytes(&self, length: Length, endpoint: &Endpoint) -> Bytes {
        let host = match (&*self.host, &endpoint.address) {
            ("", Address::Tcp(_)) => &endpoint.label,
            ("", Address::Unix(_)) => "localhost",
            (host, _) => host,
        };
        request_head(&self.method, &self.target, host, &self.headers, length)
    }
}

/// The host that the client named: the authority of its target, or else its Host field.
pub(super) fn host(parts: &Parts) -> String {
    match parts.uri.authority() {
        Some(authority) => authority.as_str().to_owned(),
        None => parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned(),
    }
}

/// The client's own X-Request-Id, or a new one.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let own = headers
        .get(X_REQUEST_ID)
        .filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.to_str().is_ok());
    own.cloned().unwrap_or_else(|| {
        let (a, b) = (fastrand::u64(..), fastrand::u64(..));
        hex_value(format_args!("{a:016x}{b:016x}"))
    })
}

/// Finishes every response, an engine's or our own.
pub(super) fn describe(response: &mut Response<Served>, request_id: &HeaderValue) {
    let headers = response.headers_mut();
    headers.entry(X_REQUEST_ID).or_insert_with(|| request_id.clone());
}

/// An answer of our own to HEAD has the length of its body, and no body (RFC 9110 section 9.3.2).
pub(super) fn without_body(response: &mut Response<Served>) {
    if let Served::Own(body) = response.body_mut() {
        let length = std::mem::take(body).len();
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
}

/// Makes an engine's head ready for the client: hop-by-hop fields go, Via and the filters come.
pub(super) fn edit_response(response: &mut Response<Relay>, matched: &Match, forward: &Forward<'_>) {
    strip_hop_by_hop(response.headers_mut());
    // An engine does not speak for the gateway.
    strip_internal(response.headers_mut());
    response.headers_mut().append(VIA, HeaderValue::from_static(via(http::Version::HTTP_11)));
    filters::on_response(response.headers_mut(), &matched.rule, Some(forward.destination));
}

/// A trace begins here where the client began none (W3C Trace Context, version 00). Sampled: an engine's own
/// sampler would have taken a request without a traceparent.
fn traceparent() -> HeaderValue {
    let (trace, span) = (fastrand::u128(1..), fastrand::u64(1..));
    hex_value(format_args!("00-{trace:032x}-{span:016x}-01"))
}

fn hex_value(text: std::fmt::Arguments<'_>) -> HeaderValue {
    let mut value = String::with_capacity(64);
    let _ = value.write_fmt(text);
    HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// Engines are asked in origin form, also where the client sent a whole URI.
fn origin_form(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}
