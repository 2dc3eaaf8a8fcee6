//! The head of a request as an engine gets it.

use std::io::Write;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::Entry;
use http::header::{COOKIE, HOST, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use crate::inspect::MODEL_HEADER;
use crate::upload::Length;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// W3C Trace Context, version 00.
pub const TRACEPARENT_BYTES: usize = 55;
const PROTO: HeaderValue = HeaderValue::from_static("http");

/// What the gateway owes an engine in the head of a request.
#[derive(Clone, Debug)]
pub struct Owed {
    /// In which the client's request came.
    pub version: Version,
    /// The client's address, as [`forwarded_for`] writes it.
    pub ip: HeaderValue,
    /// Host as the client sent it.
    pub host: HeaderValue,
    pub request_id: HeaderValue,
    /// `None`: the client sent its own.
    pub traceparent: Option<[u8; TRACEPARENT_BYTES]>,
    pub model: Option<HeaderValue>,
}

impl Owed {
    /// Puts it among the client's own fields, where filters can change it: Via (RFC 9110 section 7.6.3), the
    /// X-Forwarded fields, ids and the model.
    pub fn insert(self, headers: &mut HeaderMap) {
        append(headers, VIA, HeaderValue::from_static(via(self.version)));
        append(headers, X_FORWARDED_FOR, self.ip);
        headers.insert(X_FORWARDED_PROTO, PROTO);
        headers.insert(X_FORWARDED_HOST, self.host);
        headers.insert(X_REQUEST_ID, self.request_id);
        let traceparent = self.traceparent.and_then(|value| HeaderValue::from_bytes(&value).ok());
        let rest = [(TRACEPARENT, traceparent), (MODEL_HEADER, self.model)];
        for (name, value) in rest {
            value.map(|value| headers.insert(name, value));
        }
    }

    /// Writes the same without a detour through the map: half of what a head costs.
    fn put(&self, head: &mut Vec<u8>, client: &HeaderMap, lists: Lists) {
        put_list(head, &VIA, client, lists.via, via(self.version).as_bytes());
        put_list(head, &X_FORWARDED_FOR, client, lists.forwarded_for, self.ip.as_bytes());
        put_field(head, X_FORWARDED_PROTO.as_str(), PROTO.as_bytes());
        put_field(head, X_FORWARDED_HOST.as_str(), self.host.as_bytes());
        put_field(head, X_REQUEST_ID.as_str(), self.request_id.as_bytes());
        if let Some(traceparent) = &self.traceparent {
            put_field(head, TRACEPARENT.as_str(), traceparent);
        }
        if let Some(model) = &self.model {
            put_field(head, MODEL_HEADER.as_str(), model.as_bytes());
        }
    }

    /// Whether a client's own field is written anew by [`Self::put`].
    fn replaces(&self, name: &str) -> bool {
        match name {
            "x-forwarded-proto" | "x-forwarded-host" | "x-request-id" => true,
            "traceparent" => self.traceparent.is_some(),
            "x-gateway-model-name" => self.model.is_some(),
            _ => false,
        }
    }
}

/// Which of the fields whose lines are joined the client sent: to look each of them up costs more than to have met none.
#[derive(Clone, Copy, Debug, Default)]
struct Lists {
    via: bool,
    forwarded_for: bool,
    cookie: bool,
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

/// Writes the request head. `headers` has passed the gate and lost its hop-by-hop fields; `owed` is not in it yet.
#[must_use]
pub fn request_head(
    method: &Method,
    target: &str,
    host: &[u8],
    headers: &HeaderMap,
    owed: Option<&Owed>,
    length: Length,
) -> Bytes {
    let mut head = Vec::with_capacity(1024);
    head.extend_from_slice(method.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(target.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    put_field(&mut head, HOST.as_str(), host);
    let mut lists = Lists::default();
    for (name, value) in headers {
        match name.as_str() {
            "host" | "content-length" | "expect" => {}
            "cookie" => lists.cookie = true,
            "via" if owed.is_some() => lists.via = true,
            "x-forwarded-for" if owed.is_some() => lists.forwarded_for = true,
            name if owed.is_some_and(|owed| owed.replaces(name)) => {}
            name => put_field(&mut head, name, value.as_bytes()),
        }
    }
    if let Some(owed) = owed {
        owed.put(&mut head, headers, lists);
    }
    if lists.cookie {
        put_cookies(&mut head, headers);
    }
    match length {
        Length::Known(0) if !expects_body(method) => {}
        // A vector takes whatever is written.
        Length::Known(length) => _ = write!(head, "content-length: {length}\r\n"),
        Length::Chunked => put_field(&mut head, "transfer-encoding", b"chunked"),
    }
    head.extend_from_slice(b"\r\n");
    head.into()
}

/// Whether an absent body is said to be absent (RFC 9110 section 8.6).
fn expects_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// HTTP/2 splits cookies into crumbs, which HTTP/1.1 has no room for (RFC 9113 section 8.2.3).
fn put_cookies(head: &mut Vec<u8>, headers: &HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let Some(first) = crumbs.next() else { return };
    head.extend_from_slice(b"cookie: ");
    head.extend_from_slice(first.as_bytes());
    for crumb in crumbs {
        head.extend_from_slice(b"; ");
        head.extend_from_slice(crumb.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
}

/// A list with an entry of ours behind the client's own, if there are any; one field line, as some engines read only the
/// first.
fn put_list(head: &mut Vec<u8>, name: &HeaderName, client: &HeaderMap, any: bool, ours: &[u8]) {
    head.extend_from_slice(name.as_str().as_bytes());
    head.extend_from_slice(b": ");
    if any {
        for value in client.get_all(name) {
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b", ");
        }
    }
    head.extend_from_slice(ours);
    head.extend_from_slice(b"\r\n");
}

fn put_field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn head(headers: &[(&'static str, &'static str)], length: Length) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let head = request_head(&Method::POST, "/v1/x?y=1", b"a.example:8080", &map, None, length);
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

    fn owed() -> Owed {
        Owed {
            version: Version::HTTP_11,
            ip: forwarded_for("::ffff:192.0.2.7".parse().unwrap()),
            host: HeaderValue::from_static("h"),
            request_id: HeaderValue::from_static("r"),
            traceparent: None,
            model: Some(HeaderValue::from_static("m")),
        }
    }

    #[test]
    fn forwarded_for_is_one_list_with_the_client_last() {
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("10.0.0.1"));
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("10.0.0.2"));
        owed().insert(&mut headers);
        assert_eq!(headers.get_all(X_FORWARDED_FOR).iter().count(), 1);
        assert_eq!(headers[X_FORWARDED_FOR], "10.0.0.1, 10.0.0.2, 192.0.2.7");
        assert_eq!(headers[VIA], "1.1 penstock");
        assert_eq!(headers[X_FORWARDED_HOST], "h");
    }

    fn client_fields() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
        let names = [
            "via",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-request-id",
            "traceparent",
            "cookie",
            "host",
            "accept",
        ];
        vec((select(names.to_vec()), select(&["a", "b, c", ""][..])), 0..12)
    }

    proptest! {
        #[test]
        fn what_is_owed_is_the_same_whichever_way_it_takes(client in client_fields()) {
            let mut map = HeaderMap::new();
            client.iter().for_each(|(name, value)| _ = map.append(*name, HeaderValue::from_static(value)));
            let traceparent = (!map.contains_key(TRACEPARENT)).then_some([b't'; TRACEPARENT_BYTES]);
            let owed = Owed { traceparent, ..owed() };
            let lines = |map: &HeaderMap, owed: Option<&Owed>| {
                let head = request_head(&Method::POST, "/", b"h", map, owed, Length::Known(1));
                let mut lines: Vec<_> =
                    std::str::from_utf8(&head).unwrap().split("\r\n").map(str::to_owned).collect();
                lines.sort_unstable();
                lines
            };
            let straight = lines(&map, Some(&owed));
            owed.insert(&mut map);
            prop_assert_eq!(straight, lines(&map, None));
        }
    }
}
