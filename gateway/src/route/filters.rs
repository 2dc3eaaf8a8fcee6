//! What a rule changes on the way: header fields, the host, the path.
//!
//! The rule's edits come before its destination's. Framing and hop-by-hop fields, Host and the gateway's own
//! fields are left as they are, whatever a filter says: the first decide where a message ends, Host belongs to
//! URLRewrite, and X-Gateway-Model-Name always carries the client's own name. It may be removed, not changed.

mod path;
mod redirect;

use http::Uri;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};

use crate::failure::{Failure, Reason};
use crate::inspect::is_internal;
use crate::snapshot::{Destination, HeaderEdit, Match, Rule, UrlRewrite};

pub use redirect::{Arrived, redirect};

const PROTECTED: [HeaderName; 10] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Whether a filter may make this edit; others are without effect.
#[must_use]
pub fn allows(edit: &HeaderEdit) -> bool {
    match edit {
        HeaderEdit::Set(name, _) | HeaderEdit::Add(name, _) => {
            !PROTECTED.contains(name) && !is_internal(name.as_str())
        }
        HeaderEdit::Remove(name) => !PROTECTED.contains(name),
    }
}

/// Whether [`on_request`] will change header fields.
#[must_use]
pub fn edit_request_fields(matched: &Match, destination: &Destination) -> bool {
    let edits = [&matched.rule.filters.request_headers, &destination.filters.request_headers];
    edits.iter().any(|edits| !edits.is_empty())
}

/// Makes a client's request the one that the engine gets. Where there are edits, what the gateway owes the engine,
/// X-Gateway-Model-Name too, is already in it.
pub fn on_request(parts: &mut Parts, matched: &Match, destination: &Destination) -> Result<(), Failure> {
    let rule = &matched.rule.filters;
    edit(&mut parts.headers, &rule.request_headers);
    edit(&mut parts.headers, &destination.filters.request_headers);
    match destination.filters.rewrite.as_ref().or(rule.rewrite.as_ref()) {
        Some(rewrite) => rewrite_url(parts, matched, rewrite),
        None => Ok(()),
    }
}

/// Makes an engine's response the one that the client gets; `None` for a response of the rule's own (a redirect).
pub fn on_response(headers: &mut HeaderMap, rule: &Rule, destination: Option<&Destination>) {
    edit(headers, &rule.filters.response_headers);
    if let Some(destination) = destination {
        edit(headers, &destination.filters.response_headers);
    }
}

fn edit(headers: &mut HeaderMap, edits: &[HeaderEdit]) {
    for edit in edits.iter().filter(|edit| allows(edit)) {
        // A map that is full to its type's bound keeps what it has.
        match edit {
            HeaderEdit::Set(name, value) => _ = headers.try_insert(name, value.clone()),
            HeaderEdit::Add(name, value) => _ = headers.try_append(name, value.clone()),
            HeaderEdit::Remove(name) => _ = headers.remove(name),
        }
    }
}

/// Host and authority are changed together, so that it does not matter which one is read later.
fn rewrite_url(parts: &mut Parts, matched: &Match, rewrite: &UrlRewrite) -> Result<(), Failure> {
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    if let Some(hostname) = rewrite.hostname.as_deref() {
        let host = HeaderValue::from_str(hostname).map_err(|_| unusable("hostname"))?;
        if uri.authority.is_some() {
            uri.authority = Some(Authority::try_from(hostname).map_err(|_| unusable("hostname"))?);
        }
        parts.headers.insert(HOST, host);
    }
    if let Some(rewrite) = &rewrite.path {
        let (old, query) = uri.path_and_query.as_ref().map_or(("/", None), |old| (old.path(), old.query()));
        let mut target = path::rewritten(rewrite, &matched.path, old).into_owned();
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        uri.path_and_query = Some(PathAndQuery::try_from(target).map_err(|_| unusable("path"))?);
    }
    parts.uri = Uri::from_parts(uri).map_err(|_| unusable("path"))?;
    Ok(())
}

fn unusable(what: &'static str) -> Failure {
    Failure::new(
        Reason::RouteInvalid,
        format!("the rule's URLRewrite or RequestRedirect has an unusable {what}"),
    )
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::route::fixtures::{any_to, destination, pool, rule};
    use crate::snapshot::{PathMatch, PathRewrite};

    fn named(name: &'static str) -> HeaderName {
        HeaderName::from_static(name)
    }

    fn set(name: &'static str, value: &'static str) -> HeaderEdit {
        HeaderEdit::Set(named(name), HeaderValue::from_static(value))
    }

    fn add(name: &'static str, value: &'static str) -> HeaderEdit {
        HeaderEdit::Add(named(name), HeaderValue::from_static(value))
    }

    fn lines(headers: &HeaderMap, name: &str) -> Vec<String> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    fn request(uri: &str) -> Parts {
        Request::get(uri).header("host", "client.org").body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_rules_edits_come_before_the_destinations() {
        let mut parts = request("/");
        parts.headers.insert("x-gone", HeaderValue::from_static("1"));
        parts.headers.insert("x-tier", HeaderValue::from_static("client"));
        let mut rule = rule(vec![]);
        rule.filters.request_headers =
            vec![set("x-tier", "rule"), add("x-via", "rule"), HeaderEdit::Remove(named("x-gone"))];
        let mut to = destination(&pool("p", 1), 1);
        to.filters.request_headers = vec![add("x-tier", "destination"), set("x-via", "destination")];
        on_request(&mut parts, &any_to(rule), &to).unwrap();
        assert_eq!(lines(&parts.headers, "x-tier"), ["rule", "destination"]);
        assert_eq!(lines(&parts.headers, "x-via"), ["destination"]);
        assert!(!parts.headers.contains_key("x-gone"));
    }

    #[test]
    fn framing_host_and_internal_fields_are_not_edited() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
        headers.insert("x-gateway-model-name", HeaderValue::from_static("qwen"));
        edit(
            &mut headers,
            &[
                set("content-length", "7"),
                HeaderEdit::Remove(CONTENT_LENGTH),
                set("transfer-encoding", "chunked"),
                add("connection", "x-secret"),
                set("host", "evil.org"),
                set("x-gateway-model-name", "other"),
                add("x-gateway-model-name", "other"),
            ],
        );
        assert_eq!(lines(&headers, "content-length"), ["5"]);
        assert_eq!(lines(&headers, "x-gateway-model-name"), ["qwen"]);
        assert_eq!(headers.len(), 2);
        edit(&mut headers, &[HeaderEdit::Remove(named("x-gateway-model-name"))]);
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn responses_are_edited_too() {
        let mut rule = rule(vec![]);
        rule.filters.response_headers = vec![set("x-by", "rule")];
        let mut to = destination(&pool("p", 1), 1);
        to.filters.response_headers = vec![add("x-by", "destination")];
        let mut headers = HeaderMap::new();
        on_response(&mut headers, &rule, Some(&to));
        assert_eq!(lines(&headers, "x-by"), ["rule", "destination"]);
    }

    fn rewritten(uri: &str, rewrite: UrlRewrite) -> Result<Parts, Reason> {
        let mut parts = request(uri);
        let mut rule = rule(vec![]);
        rule.filters.rewrite = Some(rewrite);
        let matched = crate::snapshot::Match { path: PathMatch::Prefix("/foo".into()), ..any_to(rule) };
        on_request(&mut parts, &matched, &destination(&pool("p", 1), 1)).map_err(|failure| failure.reason)?;
        Ok(parts)
    }

    #[test]
    fn a_rewrite_keeps_the_query_and_sets_host_and_authority() {
        let to = |path| UrlRewrite { hostname: Some("engine.local".into()), path: Some(path) };
        let parts = rewritten("/foo/bar?a=b&c", to(PathRewrite::Prefix("/xyz".into()))).unwrap();
        assert_eq!(parts.uri, "/xyz/bar?a=b&c");
        assert_eq!(parts.headers[HOST], "engine.local");
        let parts = rewritten("http://client.org/foo?q", to(PathRewrite::Full("/all".into()))).unwrap();
        assert_eq!(parts.uri, "http://engine.local/all?q");
    }

    #[test]
    fn a_rewrite_that_is_no_target_is_the_routes_fault() {
        for bad in ["/a b", "no-slash"] {
            let rewrite = UrlRewrite { hostname: None, path: Some(PathRewrite::Full(bad.into())) };
            match rewritten("/foo", rewrite) {
                Err(reason) => assert_eq!(reason, Reason::RouteInvalid),
                Ok(parts) => panic!("{bad} became {}", parts.uri),
            }
        }
    }
}
