//! A corpus of hostile heads, each with its name and verdict, and a differential test: what passes is read by
//! httparse and http's types, which hyper reads with, as the gate says.

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use proptest::prelude::*;

use super::*;

/// Heads that pass, and their framing.
pub(in crate::gate) const ACCEPTED: &[(&str, &str, Framing)] = &[
    ("plain", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::none()),
    ("with port", "GET /v1/models?x=1&y HTTP/1.1\r\nHost: a.example:8080\r\n\r\n", Framing::none()),
    ("IPv6 host", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Framing::none()),
    ("length", "POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n", Framing::length(12)),
    (
        "leading zeros in length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\n\r\n",
        Framing::length(7),
    ),
    ("chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::chunked()),
    ("OWS", "POST / HTTP/1.1\r\nHost:\ta \r\nContent-Length: \t5\t \r\n\r\n", Framing::length(5)),
    ("no OWS", "POST / HTTP/1.1\r\nhost:a\r\ncontent-length:5\r\n\r\n", Framing::length(5)),
    ("empty value", "GET / HTTP/1.1\r\nHost: a\r\nX-A:\r\n\r\n", Framing::none()),
    ("no body at POST", "POST / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::none()),
    ("zero length at GET", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Framing::none()),
    ("1.0 without Host", "GET / HTTP/1.0\r\n\r\n", Framing::none()),
    ("absolute form", "GET http://a:80/x?y HTTP/1.1\r\nHost: A:80\r\n\r\n", Framing::none()),
    ("absolute form without path", "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", Framing::none()),
    ("asterisk form", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Framing::none()),
    ("escaped slash", "GET /v1/models/a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n", Framing::none()),
    ("raw brackets in query", "GET /?a[b]=c|d HTTP/1.1\r\nHost: a\r\n\r\n", Framing::none()),
    ("dots in a segment", "GET /a..b/.c/...%2e HTTP/1.1\r\nHost: a\r\n\r\n", Framing::none()),
    (
        "curl --http2",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        Framing::none(),
    ),
    ("TE", "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers, deflate;q=0.5\r\n\r\n", Framing::none()),
    ("underscored name", "GET / HTTP/1.1\r\nHost: a\r\nx_y: 1\r\n\r\n", Framing::none()),
    ("obs-text", "GET / HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n", Framing::none()),
];

/// Heads that are refused with `head_invalid`.
const REFUSED: &[(&str, &str)] = &[
    // Line ends.
    ("bare LF everywhere", "GET / HTTP/1.1\nHost: a\n\n"),
    ("bare LF behind the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    ("bare LF behind a field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
    ("bare LF as the empty line", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
    ("bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: y\rContent-Length: 5\r\n\r\n"),
    ("bare CR behind the request line", "GET / HTTP/1.1\rHost: a\r\n\r\n"),
    ("CR CR LF", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
    ("leading empty line", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("leading LF", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("leading space", " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("cut short", "GET / HTTP/1.1\r\nHost: a\r\n"),
    ("empty", ""),
    // Field syntax.
    ("obs-fold", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n"),
    ("obs-fold with a tab", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n"),
    ("folded first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("folded Transfer-Encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n"),
    ("space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n"),
    ("tab before the colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n"),
    ("empty name", "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"),
    ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n"),
    ("NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n"),
    ("DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n"),
    ("vertical tab in a value", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n"),
    ("form feed in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \x0c\r\n\r\n"),
    ("non-ASCII name", "GET / HTTP/1.1\r\nHost: a\r\n\u{e9}: y\r\n\r\n"),
    ("quoted name", "GET / HTTP/1.1\r\nHost: a\r\n\"X\": y\r\n\r\n"),
    // Framing.
    ("CL.TE", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("TE.CL", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n"),
    ("TE.TE", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n"),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    ("chunked, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n"),
    ("gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    ("chunked, identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n"),
    ("identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
    ("xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"),
    ("quoted chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n"),
    ("chunked;q=1", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n"),
    ("empty Transfer-Encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n"),
    ("1.0 with Transfer-Encoding", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("Transfer_Encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n"),
    ("Content_Length", "POST / HTTP/1.1\r\nHost: a\r\ncontent_LENGTH: 5\r\n\r\n"),
    ("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
    ("equal lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"),
    ("length list", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n"),
    ("signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n"),
    ("negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"),
    ("hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n"),
    ("underscored length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\n"),
    ("spaced length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n\r\n"),
    ("fractional length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\n"),
    ("empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
    ("length overflow", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\n"),
    ("length beyond i64", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n"),
    ("CL.0 at GET", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
    ("chunked at HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
    // Host.
    ("no Host", "GET / HTTP/1.1\r\n\r\n"),
    ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("two equal Hosts", "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"),
    ("two Hosts at 1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    ("Host with all delimiters", "GET / HTTP/1.1\r\nHost: a/b?c#d@e\r\n\r\n"),
    ("Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("Host with a query", "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n"),
    ("Host with a fragment", "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n"),
    ("Host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    ("Host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    ("Host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("Host with an escape", "GET / HTTP/1.1\r\nHost: a%2eb\r\n\r\n"),
    ("Host with a bad port", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
    ("Host with a large port", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n"),
    ("Host with an empty port", "GET / HTTP/1.1\r\nHost: a:\r\n\r\n"),
    ("Host with two ports", "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n"),
    ("Host of a port only", "GET / HTTP/1.1\r\nHost: :80\r\n\r\n"),
    ("bad IPv6", "GET / HTTP/1.1\r\nHost: [::g]\r\n\r\n"),
    ("open IPv6", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    ("IPv6 with a tail", "GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n"),
    ("IPv6 with a zone", "GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n"),
    ("non-ASCII Host", "GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n"),
    ("absolute form against Host", "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n"),
    ("absolute form against port", "GET http://a:81/ HTTP/1.1\r\nHost: a:80\r\n\r\n"),
    ("absolute form without Host", "GET http://a/ HTTP/1.0\r\n\r\n"),
    ("absolute form with a user", "GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n"),
    ("absolute form with a query alone", "GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("absolute form without authority", "GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("ftp", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    // Request line.
    ("HTTP/0.9", "GET /\r\n\r\n"),
    ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    ("HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    ("HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
    ("HTTP/01.1", "GET / HTTP/01.1\r\nHost: a\r\n\r\n"),
    ("http/1.1", "GET / http/1.1\r\nHost: a\r\n\r\n"),
    ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("two spaces before the target", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("two spaces before the version", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("space behind the version", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    ("tab before the target", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("tab in the target", "GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("bad method token", "G(ET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("lower-case method", "get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("unknown method", "BREW / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
    ("authority form", "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
    ("asterisk at GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("asterisk with more", "OPTIONS *x HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("relative target", "GET a/b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("fragment in the query", "GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("DEL in the target", "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("non-ASCII target", "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("backslash", "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("quote", "GET /\"a\" HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("bad escape", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("cut escape", "GET /%2 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("encoded NUL", "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("dot segment", "GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("encoded dot segment", "GET /a/%2e%2E/b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("half-encoded dot segment", "GET /a/.%2e HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("single dot segment", "GET /./b HTTP/1.1\r\nHost: a\r\n\r\n"),
    // Other fields.
    ("websocket", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    ("upgrade list", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c, websocket\r\n\r\n"),
    ("other expectation", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 200-ok\r\n\r\n"),
    (
        "obfuscated expectation",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: y 100-continue\r\n\r\n",
    ),
    (
        "two expectations",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n",
    ),
    ("bad Connection", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close x\r\n\r\n"),
    ("bad TE", "GET / HTTP/1.1\r\nHost: a\r\nTE: {trailers}\r\n\r\n"),
    ("two Authorizations", "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n"),
    ("two Content-Types", "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n\r\n"),
];

#[test]
fn heads_with_one_reading_pass() {
    for (name, head, framing) in ACCEPTED {
        let accepted = check_request(head.as_bytes()).unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert_eq!(accepted.framing, *framing, "{name}");
        assert_eq!(accepted.consumed, head.len(), "{name}");
        assert_read_alike(head.as_bytes(), &accepted);
    }
}

#[test]
fn heads_with_two_readings_are_refused() {
    for (name, head) in REFUSED {
        match check_request(head.as_bytes()) {
            Ok(_) => panic!("{name} passed"),
            Err(failure) => assert_eq!(failure.reason, Reason::HeadInvalid, "{name}"),
        }
    }
}

#[test]
fn a_head_of_too_many_or_too_long_fields_is_431() {
    let many = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(n - 1));
    assert!(check_request(many(MAX_FIELDS).as_bytes()).is_ok());
    assert_eq!(check_request(many(MAX_FIELDS + 1).as_bytes()).unwrap_err().reason, Reason::HeadTooLarge);
    let long = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(n - 32));
    assert!(check_request(long(MAX_HEAD_BYTES).as_bytes()).is_ok());
    assert_eq!(check_request(long(MAX_HEAD_BYTES + 1).as_bytes()).unwrap_err().reason, Reason::HeadTooLarge);
}

#[test]
fn keep_alive_and_expect_follow_the_version() {
    for (head, keep_alive, expects_continue) in [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n", true, true),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", true, false),
        ("POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", false, false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", false, false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true, false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false, false),
    ] {
        let read = check_request(head.as_bytes()).unwrap();
        assert_eq!((read.keep_alive, read.expects_continue), (keep_alive, expects_continue), "{head}");
    }
}

fn h2(method: &str, uri: &str, fields: &[(&str, &str)], has_body: bool) -> Result<(), Failure> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    check_h2(&request.body(()).unwrap().into_parts().0, has_body)
}

#[test]
fn http_2_requests_keep_the_same_rules() {
    assert_eq!(h2("POST", "http://a/v1", &[("te", "trailers"), ("content-length", "5")], true), Ok(()));
    assert_eq!(
        h2("GET", "https://a:1/v1?x", &[("host", "A:1"), ("cookie", "a=b"), ("cookie", "c=d")], false),
        Ok(())
    );
    assert_eq!(h2("GET", "/v1", &[("host", "a")], false), Ok(()));
    type Case = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)], bool);
    let refused: &[Case] = &[
        ("no authority", "GET", "/v1", &[], false),
        ("Host against :authority", "GET", "http://a/", &[("host", "b")], false),
        ("two Hosts", "GET", "http://a/", &[("host", "a"), ("host", "a")], false),
        ("user", "GET", "http://u@a/", &[], false),
        ("CONNECT", "CONNECT", "a:80", &[], false),
        ("TRACE", "TRACE", "http://a/", &[], false),
        ("ftp", "GET", "ftp://a/", &[], false),
        ("Connection", "GET", "http://a/", &[("connection", "close")], false),
        ("Transfer-Encoding", "POST", "http://a/", &[("transfer-encoding", "chunked")], true),
        ("Upgrade", "GET", "http://a/", &[("upgrade", "h2c")], false),
        ("TE", "GET", "http://a/", &[("te", "gzip")], false),
        ("two lengths", "POST", "http://a/", &[("content-length", "5"), ("content-length", "5")], true),
        ("length list", "POST", "http://a/", &[("content-length", "5,5")], true),
        ("length without body", "POST", "http://a/", &[("content-length", "5")], false),
        ("GET with a body", "GET", "http://a/", &[], true),
        ("dot segment", "GET", "http://a/x/../y", &[], false),
        ("control byte", "GET", "http://a/", &[("x", " padded")], false),
        ("expectation", "POST", "http://a/", &[("expect", "x")], true),
        ("non-ASCII path", "GET", "http://a/\u{e9}", &[], false),
    ];
    for (name, method, uri, fields, has_body) in refused {
        let failure = h2(method, uri, fields, *has_body).expect_err(name);
        assert_eq!(failure.reason, Reason::HeadInvalid, "{name}");
    }
}

#[test]
fn http_2_requests_have_at_most_1000_fields() {
    let fields = |n| vec![("cookie", "a=b"); n];
    assert_eq!(h2("GET", "http://a/", &fields(1000), false), Ok(()));
    assert_eq!(h2("GET", "http://a/", &fields(1001), false).unwrap_err().reason, Reason::HeadTooLarge);
}

/// What the gate took for framing, target and fields is what hyper's own parser, types and rules take.
fn assert_read_alike(bytes: &[u8], read: &RequestHead) {
    let mut lines = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut lines);
    assert_eq!(request.parse(bytes).unwrap(), httparse::Status::Complete(read.consumed));
    let method = Method::from_bytes(request.method.unwrap().as_bytes()).unwrap();
    let target = request.path.unwrap();
    let uri = http::Uri::try_from(target).unwrap();
    let path = uri.path_and_query().unwrap().as_str();
    assert!(target.ends_with(path) || path == "/" && target.len() > 7, "{target} {path}");
    let mut headers = HeaderMap::new();
    for line in request.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(line.value).unwrap());
    }
    // hyper's rules, as it applies them to a server's request.
    let chunked = headers.get("transfer-encoding").is_some();
    let length: u64 =
        headers.get("content-length").map_or(0, |length| length.to_str().unwrap().parse().unwrap());
    assert!(!(chunked && headers.contains_key("content-length")));
    assert_eq!(read.framing, if chunked { Framing::chunked() } else { Framing::length(length) });
    if let Some(authority) = uri.authority() {
        assert!(authority.as_str().eq_ignore_ascii_case(headers.get("host").unwrap().to_str().unwrap()));
    }
    assert!(headers.get_all("host").iter().count() <= 1);
    assert!(!read.expects_continue || method != Method::GET);
}

fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&'static [u8]> = vec![
        b"GET",
        b"POST",
        b"OPTIONS",
        b" ",
        b"/",
        b"/v1/models",
        b"http://a",
        b"*",
        b"?q=[1]",
        b"%2F",
        b"..",
        b" HTTP/1.1",
        b" HTTP/1.0",
        b"\r\n",
        b"\n",
        b"\r",
        b"Host",
        b": ",
        b":",
        b"a",
        b"[::1]:80",
        b"Content-Length",
        b"5",
        b",",
        b"Transfer-Encoding",
        b"chunked",
        b"Connection",
        b"close",
        b"Expect",
        b"100-continue",
        b"\t",
        b"\0",
        b"\xff",
        b"#",
        b"@",
        b"~",
        b"_",
        b"-",
        b"Upgrade",
        b"h2c",
        b"TE",
    ];
    prop_oneof![4 => prop::sample::select(words).prop_map(<[u8]>::to_vec), 1 => any::<u8>().prop_map(|byte| vec![byte])]
}

/// The obvious way to say it.
fn each_line_ends_in_crlf(head: &[u8]) -> bool {
    (0..head.len()).all(|at| match head[at] {
        b'\r' => head.get(at + 1) == Some(&b'\n'),
        b'\n' => at > 0 && head[at - 1] == b'\r',
        _ => true,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn line_ends_are_judged_as_the_obvious_way_does(head in "[ab\r\n]{0,6}((\r\n)?[a-z]{0,20}){0,8}(\r\n)?") {
        prop_assert_eq!(lines_end_in_crlf(head.as_bytes()), each_line_ends_in_crlf(head.as_bytes()));
    }

    #[test]
    fn whatever_passes_is_read_alike_by_hyper(
        seed in 0..ACCEPTED.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3u8, fragment()), 0..4),
    ) {
        let mut head = ACCEPTED[seed].1.as_bytes().to_vec();
        for (at, how, text) in edits {
            let at = at.index(head.len() + 1);
            let end = match how { 0 => at, 1 => (at + 1).min(head.len()), _ => (at + text.len()).min(head.len()) };
            head.splice(at..end, text);
        }
        if let Ok(read) = check_request(&head) {
            assert_read_alike(&head, &read);
        }
    }

    #[test]
    fn no_head_panics(words in prop::collection::vec(fragment(), 0..40)) {
        let head = words.concat();
        if let Ok(read) = check_request(&head) {
            assert_read_alike(&head, &read);
        }
        let _ = crate::gate::answer::parse(&head, &Method::GET);
        let _ = check_request_line(&head);
    }
}
