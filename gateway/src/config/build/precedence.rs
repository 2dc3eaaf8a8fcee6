//! The precedence of the Gateway API, with the rank that Envoy Gateway gives to regular expressions: host name,
//! Exact before RegularExpression before PathPrefix, longest path, method, most headers, most exact headers,
//! most query parameters, most exact ones, oldest route, first rule.

use std::cmp::Reverse;

use crate::snapshot::{Hostname, Match, PathMatch, ValueMatch};

/// Sorts the most specific first.
pub(super) type Rank = (Reverse<[usize; 9]>, usize, usize);

/// `^(?:` and `)$`, which the reader of the manifest has put around an expression.
const REGEX_FRAME: usize = 6;

/// `age`: position of the route among all, oldest first.
pub(super) fn rank(made: &Match, age: usize) -> Rank {
    let (hostname, exact_hostname) = match &made.hostname {
        Hostname::Any => (0, 0),
        Hostname::Suffix(suffix) => (suffix.len(), 0),
        Hostname::Exact(name) => (name.len(), 1),
    };
    let (path_kind, path_length) = match &made.path {
        PathMatch::Exact(path) => (2, path.len()),
        PathMatch::Regex(regex) => (1, regex.as_str().len().saturating_sub(REGEX_FRAME)),
        PathMatch::Prefix(path) => (0, path.len()),
    };
    let specific = [
        hostname,
        exact_hostname,
        path_kind,
        path_length,
        usize::from(made.method.is_some()),
        made.headers.len(),
        exact(made.headers.iter().map(|(_, value)| value)),
        made.query.len(),
        exact(made.query.iter().map(|(_, value)| value)),
    ];
    (Reverse(specific), age, made.rule.index)
}

fn exact<'a>(values: impl Iterator<Item = &'a ValueMatch>) -> usize {
    values.filter(|value| matches!(value, ValueMatch::Exact(_))).count()
}
