//! The words of a refusal in the shape of the API that was called.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response};
use serde_json::json;

use super::{Failure, Reason};

/// Carries the reason word of a refusal.
pub const REASON_HEADER: HeaderName = HeaderName::from_static("x-penstock-reason");
/// Seconds that a shed client is asked to wait.
const RETRY_AFTER_S: &str = "1";

/// An API family: decides the shape of errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    #[default]
    OpenAi,
    Anthropic,
}

impl Dialect {
    /// The dialect of a request path: `…/v1/messages` and below it is Anthropic's.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        let messages = path.as_bytes().split(|&byte| byte == b'/').any(|segment| segment == b"messages");
        if messages { Self::Anthropic } else { Self::OpenAi }
    }
}

/// The response to a refused request.
#[must_use]
pub fn respond(failure: &Failure, dialect: Dialect) -> Response<Bytes> {
    let body = Bytes::from(body(failure, dialect));
    let mut response = Response::new(body);
    *response.status_mut() = failure.reason.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REASON_HEADER, HeaderValue::from_static(failure.reason.word()));
    if matches!(failure.reason, Reason::Saturated | Reason::RateLimited) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
    }
    response
}

/// The same as bytes of HTTP/1.1, for a connection that is closed behind it.
#[must_use]
pub fn respond_raw(failure: &Failure, dialect: Dialect) -> Vec<u8> {
    let response = respond(failure, dialect);
    let mut raw = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        raw.extend_from_slice(name.as_str().as_bytes());
        raw.extend_from_slice(b": ");
        raw.extend_from_slice(value.as_bytes());
        raw.extend_from_slice(b"\r\n");
    }
    let length = response.body().len();
    // RFC 9110 section 6.6.1: who has a clock says when it answered.
    let date = httpdate::fmt_http_date(SystemTime::now());
    let rest = format!("{CONTENT_LENGTH}: {length}\r\n{DATE}: {date}\r\nconnection: close\r\n\r\n");
    raw.extend_from_slice(rest.as_bytes());
    raw.extend_from_slice(response.body());
    raw
}

fn body(failure: &Failure, dialect: Dialect) -> String {
    let status = failure.reason.status().as_u16();
    match dialect {
        Dialect::OpenAi => json!({
            "error": {
                "message": failure.message,
                "type": openai_type(status),
                "param": openai_param(failure.reason),
                "code": failure.reason.word(),
            }
        }),
        Dialect::Anthropic => json!({
            "type": "error",
            "error": { "type": anthropic_type(status), "message": failure.message },
        }),
    }
    .to_string()
}

fn openai_type(status: u16) -> &'static str {
    match status {
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

/// The request parameter that an OpenAI client should look at.
fn openai_param(reason: Reason) -> Option<&'static str> {
    matches!(
        reason,
        Reason::ModelMissing | Reason::ModelAmbiguous | Reason::ModelNotFound | Reason::ModelTooLate
    )
    .then_some("model")
}

fn anthropic_type(status: u16) -> &'static str {
    match status {
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_both_shapes() {
        for &reason in Reason::ALL {
            let failure = Failure::new(reason, "what \"it\" is");
            let openai: serde_json::Value = serde_json::from_str(&body(&failure, Dialect::OpenAi)).unwrap();
            assert_eq!(openai["error"]["code"], reason.word());
            assert_eq!(openai["error"]["message"], "what \"it\" is");
            let anthropic: serde_json::Value =
                serde_json::from_str(&body(&failure, Dialect::Anthropic)).unwrap();
            assert_eq!(anthropic["type"], "error");
            assert_eq!(anthropic["error"]["message"], "what \"it\" is");
        }
    }

    #[test]
    fn a_raw_answer_is_one_whole_message_and_closes() {
        let raw = respond_raw(&Failure::new(Reason::HeadInvalid, "bad"), Dialect::OpenAi);
        let text = String::from_utf8(raw).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("connection: close"));
        assert!(head.contains("\r\ndate: "));
        assert!(head.contains("x-penstock-reason: head_invalid"));
        assert!(head.contains(&format!("content-length: {}", body.len())));
    }

    #[test]
    fn the_dialect_follows_the_path() {
        assert_eq!(Dialect::of_path("/v1/messages"), Dialect::Anthropic);
        assert_eq!(Dialect::of_path("/v1/messages/count_tokens"), Dialect::Anthropic);
        assert_eq!(Dialect::of_path("/v1/chat/completions"), Dialect::OpenAi);
    }
}
