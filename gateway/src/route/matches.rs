//! Whether one match holds for a request, and if not, why: one answer for the router and for `explain`.

use std::borrow::Cow;
use std::fmt;

use http::HeaderName;

use super::{Asked, host};
use crate::inspect::{MODEL_HEADER, decoded};
use crate::snapshot::{Match, PathMatch, ValueMatch};

/// The first condition of a match that a request does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch<'m> {
    Hostname,
    Path,
    Method,
    Header(&'m HeaderName),
    Query(&'m str),
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hostname => f.write_str("the host differs"),
            Self::Path => f.write_str("the path differs"),
            Self::Method => f.write_str("the method differs"),
            Self::Header(name) if *name == MODEL_HEADER => f.write_str("the model differs"),
            Self::Header(name) => write!(f, "the header {name} differs"),
            Self::Query(name) => write!(f, "the query parameter {name} differs"),
        }
    }
}

/// `None`: the match holds.
pub(crate) fn mismatch<'m>(entry: &'m Match, asked: &Asked<'_>) -> Option<Mismatch<'m>> {
    if !host::admits(&entry.hostname, asked.host) {
        return Some(Mismatch::Hostname);
    }
    if !path_holds(&entry.path, asked.path) {
        return Some(Mismatch::Path);
    }
    if entry.method.as_ref().is_some_and(|method| method != asked.method) {
        return Some(Mismatch::Method);
    }
    if let Some((name, _)) = entry.headers.iter().find(|(name, value)| !header_holds(name, value, asked)) {
        return Some(Mismatch::Header(name));
    }
    let (name, _) = entry.query.iter().find(|(name, value)| !query_holds(name, value, asked.query))?;
    Some(Mismatch::Query(name))
}

pub(super) fn path_holds(pattern: &PathMatch, path: &str) -> bool {
    match pattern {
        PathMatch::Exact(exact) => path == &**exact,
        PathMatch::Prefix(prefix) => {
            path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathMatch::Regex(regex) => regex.is_match(path),
    }
}

fn header_holds(name: &HeaderName, value: &ValueMatch, asked: &Asked<'_>) -> bool {
    if name == MODEL_HEADER {
        return asked.model.is_some_and(|model| value_holds(value, model.as_bytes()));
    }
    // The first field line of the name, as the Gateway API asks.
    asked.headers.get(name).is_some_and(|first| value_holds(value, first.as_bytes()))
}

/// Compared decoded, as an application would read it; `+` is a space. The first value of the name counts.
fn query_holds(name: &str, value: &ValueMatch, query: Option<&str>) -> bool {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .find(|(key, _)| form_decoded(key) == name.as_bytes())
        .is_some_and(|(_, first)| value_holds(value, &form_decoded(first)))
}

fn form_decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('+') {
        return decoded(text);
    }
    Cow::Owned(decoded(&text.replace('+', " ")).into_owned())
}

fn value_holds(pattern: &ValueMatch, value: &[u8]) -> bool {
    match pattern {
        ValueMatch::Exact(exact) => value == exact.as_bytes(),
        ValueMatch::Regex(regex) => std::str::from_utf8(value).is_ok_and(|value| regex.is_match(value)),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};
    use regex::Regex;

    use super::*;
    use crate::route::fixtures::{any_to, exact_header, rule};

    fn prefix(path: &str) -> PathMatch {
        PathMatch::Prefix(path.into())
    }

    #[test]
    fn prefixes_are_compared_by_element() {
        for (pattern, path, holds) in [
            ("/abc", "/abc", true),
            ("/abc", "/abc/", true),
            ("/abc", "/abc/def", true),
            ("/abc", "/abcd", false),
            ("/abc", "/ABC", false),
            ("/abc", "/ab", false),
            ("/abc", "//abc", false),
            ("/abc", "/abc//x", true),
            ("", "/", true),
            ("", "/anything", true),
            ("", "*", false),
            ("/aaa/bb", "/aaa/bbb", false),
            ("/abc", "/%61bc", false),
        ] {
            assert_eq!(path_holds(&prefix(pattern), path), holds, "{pattern} {path}");
        }
    }

    #[test]
    fn an_exact_path_is_exact_and_a_regex_whole() {
        let exact = PathMatch::Exact("/v1/models".into());
        assert!(path_holds(&exact, "/v1/models"));
        assert!(!path_holds(&exact, "/v1/models/"));
        let regex = PathMatch::Regex(Regex::new("^(?:/a|/ab)$").unwrap());
        assert!(path_holds(&regex, "/ab"));
        assert!(!path_holds(&regex, "/abc"));
    }

    #[test]
    fn the_first_line_of_a_header_counts() {
        let mut entry = any_to(rule(vec![]));
        entry.headers = vec![exact_header("x-tier", "gold")];
        let mut headers = HeaderMap::new();
        let holds = |headers: &HeaderMap| {
            let method = Method::GET;
            let asked = Asked { host: None, method: &method, path: "/", query: None, headers, model: None };
            mismatch(&entry, &asked).is_none()
        };
        assert!(!holds(&headers));
        headers.append("x-tier", HeaderValue::from_static("gold"));
        headers.append("x-tier", HeaderValue::from_static("lead"));
        assert!(holds(&headers));
        headers.insert("x-tier", HeaderValue::from_static("lead"));
        headers.append("x-tier", HeaderValue::from_static("gold"));
        assert!(!holds(&headers));
    }

    #[test]
    fn the_first_value_of_a_query_parameter_counts_decoded() {
        let gold = ValueMatch::Exact("a b".into());
        for (query, holds) in [
            (None, false),
            (Some(""), false),
            (Some("t=a%20b"), true),
            (Some("t=a+b"), true),
            (Some("&&x=1&%74=a%20b&t=no"), true),
            (Some("t=no&t=a+b"), false),
            (Some("T=a+b"), false),
            (Some("t"), false),
            (Some("t=a%2520b"), false),
        ] {
            assert_eq!(query_holds("t", &gold, query), holds, "{query:?}");
        }
        assert!(query_holds("t", &ValueMatch::Exact("".into()), Some("t")));
        assert!(!query_holds("t", &ValueMatch::Regex(Regex::new("^.*$").unwrap()), Some("t=%ff")));
    }
}
