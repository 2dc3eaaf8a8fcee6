//! The head of a request as an engine gets it.

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::Entry;
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use crate::upload::Length;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What a request's head says about the client that sent it.
#[derive(Clone, Copy, Debug)]
pub struct ClientSide<'a> {
    /// Its address, as [`forwarded_for`] writes it.
    pub ip: &'a HeaderValue,
    pub version: Version,
    /// Host as the client sent it.
    pub host: &'a HeaderValue,
}

impl ClientSide<'_> {
    /// Adds what a proxy owes its next hop: Via (RFC 9110 section 7.6.3) and the X-Forwarded fields.
    pub fn describe(&self, headers: &mut HeaderMap) {
        append(headers, VIA, HeaderValue::from_static(via(self.version)));
        append(headers, X_FORWARDED_FOR, self.ip.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
        headers.insert(X_FORWARDED_HOST, self.host.clone());
    }
}

/// A client's address as an entry of X-Forwarded-For.
#[must_use]
pub fn forwarded_for(ip: IpAddr) -> HeaderValue {
    // An address in text always is a field value.
    HeaderValue::try_from(ip.to_canonical().to_string())
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Our entry in Via for a message that came in `version`.
#[must_use]
pub fn via(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0 penstock",
        Version::HTTP_2 => "2 penstock",
        _ => "1.1 penstock",
    }
}

/// Appends to a list field; one field line, as some engines read only the first.
fn append(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    match headers.entry(name) {
        Entry::Vacant(field) => _ = field.insert(value),
        Entry::Occupied(mut field) => {
            let mut list = Vec::new();
            for present in field.iter() {
                list.extend_from_slice(present.as_bytes());
                list.extend_from_slice(b", ");
            }
            list.extend_from_slice(value.as_bytes());
            if let Ok(list) = HeaderValue::from_bytes(&list) {
                field.insert(list);
            }
        }
    }
}

/// Writes the request head. `headers` has passed the gate and lost its hop-by-hop fields.
#[must_use]
pub fn request_head(
    method: &Method,
    target: &str,
    host: &[u8],
    headers: &HeaderMap,
    length: Length,
) -> Bytes {
    let mut head = BytesMut::with_capacity(1024);
    head.put_slice(method.as_str().as_bytes());
    head.put_u8(b' ');
    head.put_slice(target.as_bytes());
    head.put_slice(b" HTTP/1.1\r\n");
    put_field(&mut head, HOST.as_str(), host);
    for (name, value) in headers {
        if ![HOST, CONTENT_LENGTH, EXPECT, COOKIE].contains(name) {
            put_field(&mut head, name.as_str(), value.as_bytes());
        }
    }
    put_cookies(&mut head, headers);
    match length {
        Length::Known(0) if !expects_body(method) => {}
        Length::Known(length) => put_field(&mut head, CONTENT_LENGTH.as_str(), length.to_string().as_bytes()),
        Length::Chunked => put_field(&mut head, "transfer-encoding", b"chunked"),
    }
    head.put_slice(b"\r\n");
    head.freeze()
}

/// Whether an absent body is said to be absent (RFC 9110 section 8.6).
fn expects_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// HTTP/2 splits cookies into crumbs, which HTTP/1.1 has no room for (RFC 9113 section 8.2.3).
fn put_cookies(head: &mut BytesMut, headers: &HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let Some(first) = crumbs.next() else { return };
    head.put_slice(b"cookie: ");
    head.put_slice(first.as_bytes());
    for crumb in crumbs {
        head.put_slice(b"; ");
        head.put_slice(crumb.as_bytes());
    }
    head.put_slice(b"\r\n");
}

fn put_field(head: &mut BytesMut, name: &str, value: &[u8]) {
    head.put_slice(name.as_bytes());
    head.put_slice(b": ");
    head.put_slice(value);
    head.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&'static str, &'static str)], length: Length) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let head = request_head(&Method::POST, "/v1/x?y=1", b"a.example:8080", &map, length);
        String::from_utf8(head.to_vec()).unwrap()
    }

    #[test]
    fn the_host_comes_first_and_once() {
        let head = head(&[("host", "other"), ("accept", "*/*")], Length::Known(3));
        assert_eq!(
            head,
            "POST /v1/x?y=1 HTTP/1.1\r\nhost: a.example:8080\r\naccept: */*\r\ncontent-length: 3\r\n\r\n"
        );
    }

    #[test]
    fn cookie_crumbs_become_one_line() {
        let head = head(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")], Length::Chunked);
        assert!(head.contains("\r\ncookie: a=1; b=2\r\n"), "{head}");
        assert!(head.ends_with("transfer-encoding: chunked\r\n\r\n"));
    }

    #[test]
    fn forwarded_for_is_one_list_with_the_client_last() {
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("10.0.0.1"));
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("10.0.0.2"));
        let ip = &forwarded_for("::ffff:192.0.2.7".parse().unwrap());
        let host = &HeaderValue::from_static("h");
        ClientSide { ip, version: Version::HTTP_11, host }.describe(&mut headers);
        assert_eq!(headers.get_all(X_FORWARDED_FOR).iter().count(), 1);
        assert_eq!(headers[X_FORWARDED_FOR], "10.0.0.1, 10.0.0.2, 192.0.2.7");
        assert_eq!(headers[VIA], "1.1 penstock");
        assert_eq!(headers[X_FORWARDED_HOST], "h");
    }
}
