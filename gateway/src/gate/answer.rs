//! The rules for an engine's answer: the same strictness as toward clients, so that an engine that was talked
//! into writing two answers, or half of one, cannot reach another client with them.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use penstock_common::framing::Framing;

use super::fields::{Ruled, Seen, holds_control_byte};
use super::head::lines_end_in_crlf;
use super::{MAX_FIELDS, MAX_HEAD_BYTES};

/// Fields that the gateway adds before the client gets the head: Via and X-Request-Id. No more than there are, because a
/// map for more than six is too large for malloc's quick path.
const OURS: usize = 2;

/// The head of an engine's answer.
#[derive(Debug)]
pub struct Answer {
    /// 1xx are reported as they come (without 101): the caller drops them and reads on.
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Of the body behind it.
    pub framing: Framing,
    /// The connection may carry another request once the body is done.
    pub reusable: bool,
    /// Bytes of the head, with its empty line.
    pub len: usize,
}

/// Why bytes are not the head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("the answer is not HTTP/1.1: {0}")]
    Malformed(httparse::Error),
    #[error("the head of the answer is larger than 64 KiB or 100 fields")]
    TooLarge,
    #[error("a line of the answer's head does not end in CRLF")]
    LineEnd,
    #[error("the status {0} is not between 100 and 599")]
    Status(u16),
    #[error("the engine switched protocols (101) unasked")]
    Switched,
    #[error("in the answer's head, {0}")]
    Field(&'static str),
}

/// Reads the head of an answer to a request with `request_method`; `None`: `buf` does not hold all of it yet.
///
/// # Errors
/// When `buf` can no longer become the head of an answer with one reading.
pub fn parse(buf: &[u8], request_method: &Method) -> Result<Option<Answer>, AnswerError> {
    let mut lines = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut response, buf, &mut lines) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if buf.len() > MAX_HEAD_BYTES => return Err(AnswerError::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(AnswerError::TooLarge),
        Err(error) => return Err(AnswerError::Malformed(error)),
    };
    if len > MAX_HEAD_BYTES {
        return Err(AnswerError::TooLarge);
    }
    // httparse skips empty lines before an answer: there is no reason for any.
    if !buf.starts_with(b"HTTP/") || !lines_end_in_crlf(&buf[..len]) {
        return Err(AnswerError::LineEnd);
    }
    if holds_control_byte(&buf[..len]) {
        return Err(AnswerError::Field("a field value holds a control byte"));
    }
    let code = response.code.unwrap_or_default();
    let status = StatusCode::from_u16(code).ok().filter(|_| (100..=599).contains(&code));
    let status = status.ok_or(AnswerError::Status(code))?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(AnswerError::Switched);
    }
    let version_11 = response.version == Some(1);
    let mut seen = Seen::default();
    let mut headers = HeaderMap::with_capacity(response.headers.len() + OURS);
    // Copied once; each value is a part of it.
    let head = Bytes::copy_from_slice(&buf[..len]);
    for field in response.headers {
        if let Some(ruled) = Ruled::of(field.name).map_err(AnswerError::Field)? {
            seen.take(ruled, field.value).map_err(AnswerError::Field)?;
        }
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let start = field.value.as_ptr().addr() - buf.as_ptr().addr();
        let value = HeaderValue::from_maybe_shared(head.slice(start..start + field.value.len()));
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(AnswerError::Field("a field is malformed"));
        };
        headers.append(name, value);
    }
    if seen.chunked && !version_11 {
        return Err(AnswerError::Field("an HTTP/1.0 answer has Transfer-Encoding"));
    }
    let (framing, reusable) = framing(request_method, status, &seen, version_11);
    Ok(Some(Answer { status, headers, framing, reusable, len }))
}

/// RFC 9112 section 6.3, and whether the connection lives on.
fn framing(method: &Method, status: StatusCode, seen: &Seen, version_11: bool) -> (Framing, bool) {
    let keeps = seen.keeps(version_11);
    if status == StatusCode::NO_CONTENT || status.is_informational() {
        // A body announced here has two readings: none by the RFC, one by the engine.
        return (Framing::none(), keeps && !seen.chunked && seen.length.unwrap_or(0) == 0);
    }
    if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        return (Framing::none(), keeps);
    }
    match seen.length {
        _ if seen.chunked => (Framing::chunked(), keeps),
        Some(length) => (Framing::length(length), keeps),
        None => (Framing::until_close(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Answer {
        parse(text.as_bytes(), &Method::POST).unwrap().expect("whole")
    }

    #[test]
    fn an_answer_has_its_status_fields_and_framing() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\nX-A: c\r\n\r\nhello";
        let answer = read(text);
        assert_eq!((answer.status, answer.reusable), (StatusCode::OK, true));
        assert_eq!(answer.framing, Framing::length(5));
        assert_eq!(answer.len, text.len() - 5);
        assert_eq!(answer.headers.get_all("x-a").iter().count(), 2);
    }

    #[test]
    fn a_head_is_awaited_byte_by_byte() {
        let text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for end in 0..text.len() {
            assert!(parse(&text[..end], &Method::GET).unwrap().is_none(), "{end}");
        }
        assert_eq!(parse(text, &Method::GET).unwrap().unwrap().framing, Framing::chunked());
    }

    #[test]
    fn the_body_is_framed_as_rfc_9112_says() {
        let none = Framing::none();
        for (method, head, framing, reusable) in [
            (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5", none, true),
            (Method::GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5", none, true),
            (Method::GET, "HTTP/1.1 204 No Content", none, true),
            (Method::GET, "HTTP/1.1 204 No Content\r\nContent-Length: 0", none, true),
            (Method::GET, "HTTP/1.1 204 No Content\r\nContent-Length: 5", none, false),
            (Method::GET, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked", none, false),
            (Method::GET, "HTTP/1.1 100 Continue", none, true),
            (Method::GET, "HTTP/1.1 200 OK", Framing::until_close(), false),
            (Method::GET, "HTTP/1.1 200", Framing::until_close(), false),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close",
                Framing::length(5),
                false,
            ),
            (Method::GET, "HTTP/1.0 200 OK\r\nContent-Length: 5", Framing::length(5), false),
            (
                Method::GET,
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive",
                Framing::length(5),
                true,
            ),
        ] {
            let answer = parse(format!("{head}\r\n\r\n").as_bytes(), &method).unwrap().expect(head);
            assert_eq!((answer.framing, answer.reusable), (framing, reusable), "{head}");
        }
    }

    #[test]
    fn an_answer_with_two_readings_is_refused() {
        for head in [
            "HTTP/1.1 200 OK\nContent-Length: 5\n\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            "HTTP/1.1 099 Low\r\n\r\n",
            "HTTP/1.1 600 High\r\n\r\n",
            "HTTP/1.1 20 Short\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n",
            "{\"error\": 1}",
        ] {
            let error = parse(head.as_bytes(), &Method::GET).map(|answer| answer.is_some());
            assert!(error.is_err(), "{head:?}: {error:?}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(MAX_HEAD_BYTES));
        assert_eq!(parse(long.as_bytes(), &Method::GET).unwrap_err(), AnswerError::TooLarge);
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1));
        assert_eq!(parse(many.as_bytes(), &Method::GET).unwrap_err(), AnswerError::TooLarge);
    }
}
