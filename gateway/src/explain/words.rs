//! How the parts of a match read on one line.

use std::fmt;

use crate::inspect::MODEL_HEADER;
use crate::snapshot::{Hostname, Match, PathMatch, ValueMatch};

/// A weight and the sum that it is a part of.
pub(super) struct Share(pub(super) u32, pub(super) u64);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(weight, total) = *self;
        write!(f, "{weight} of {total} ({:.1} %)", f64::from(weight) * 100.0 / total as f64)
    }
}

pub(super) struct HostnameText<'a>(pub(super) &'a Hostname);

impl fmt::Display for HostnameText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Hostname::Any => f.write_str("every hostname"),
            Hostname::Exact(name) => write!(f, "hostname {name}"),
            Hostname::Suffix(suffix) => write!(f, "hostname *{suffix}"),
        }
    }
}

/// Its conditions.
pub(super) struct MatchText<'a>(pub(super) &'a Match);

impl fmt::Display for MatchText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Match { hostname, path, method, headers, query, .. } = self.0;
        match path {
            PathMatch::Exact(path) => write!(f, "path {path}")?,
            PathMatch::Prefix(prefix) if prefix.is_empty() => f.write_str("any path")?,
            PathMatch::Prefix(prefix) => write!(f, "path prefix {prefix}")?,
            PathMatch::Regex(regex) => write!(f, "path ~ {regex}")?,
        }
        if *hostname != Hostname::Any {
            write!(f, ", {}", HostnameText(hostname))?;
        }
        if let Some(method) = method {
            write!(f, ", {method}")?;
        }
        for (name, value) in headers {
            let name = if name == MODEL_HEADER { "model" } else { name.as_str() };
            write!(f, ", {name} {}", ValueText(value))?;
        }
        for (name, value) in query {
            write!(f, ", ?{name} {}", ValueText(value))?;
        }
        Ok(())
    }
}

struct ValueText<'a>(&'a ValueMatch);

impl fmt::Display for ValueText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ValueMatch::Exact(value) => write!(f, "= {value}"),
            ValueMatch::Regex(regex) => write!(f, "~ {regex}"),
        }
    }
}
