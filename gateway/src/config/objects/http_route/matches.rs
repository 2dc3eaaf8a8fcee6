//! `matches[]` of a rule: path, method, headers, query.

use http::{HeaderName, Method};
use regex::{Regex, RegexBuilder};

use crate::config::fields::{Field, Fields};
use crate::snapshot::{PathMatch, ValueMatch};

/// A compiled expression may not take more; hostile patterns like `(a{1000}){1000}` do not get far.
const MAX_REGEX_BYTES: usize = 1 << 20;

#[derive(Clone, Debug)]
pub(crate) struct RouteMatch {
    pub(crate) path: PathMatch,
    pub(crate) method: Option<Method>,
    pub(crate) headers: Vec<(HeaderName, ValueMatch)>,
    pub(crate) query: Vec<(Box<str>, ValueMatch)>,
}

impl RouteMatch {
    pub(super) fn is_prefix(&self) -> bool {
        matches!(self.path, PathMatch::Prefix(_))
    }
}

impl Default for RouteMatch {
    /// Every request: PathPrefix `/`.
    fn default() -> Self {
        Self { path: PathMatch::Prefix("".into()), method: None, headers: Vec::new(), query: Vec::new() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Exact,
    Prefix,
    Regex,
}

pub(super) fn read(item: &Field<'_>) -> Option<RouteMatch> {
    let fields = item.fields()?;
    let path = fields.fields("path").and_then(|path| path_match(&path));
    let method = fields.get("method").and_then(|field| method(&field));
    let mut headers: Vec<(HeaderName, ValueMatch)> = Vec::new();
    for item in fields.items("headers", 16) {
        let Some((name, value)) = named_value(&item) else { continue };
        match item.ok(name.parse::<HeaderName>().map_err(|_| format!("{name:?} is not a header name"))) {
            Some(name) if headers.iter().any(|(known, _)| *known == name) => {
                // The CRD keys the list by name; where case hides a second one, the first counts.
                item.warning(format!("{name} is matched twice, only the first counts"));
            }
            Some(name) => headers.push((name, value)),
            None => {}
        }
    }
    let mut query: Vec<(Box<str>, ValueMatch)> = Vec::new();
    for item in fields.items("queryParams", 16) {
        match named_value(&item) {
            Some((name, _)) if query.iter().any(|(known, _)| **known == *name) => {
                item.error(format!("{name:?} is matched twice"));
            }
            Some((name, value)) => query.push((name.into(), value)),
            None => {}
        }
    }
    Some(RouteMatch { path: path.unwrap_or(PathMatch::Prefix("".into())), method, headers, query })
}

fn method(field: &Field<'_>) -> Option<Method> {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"];
    let text = field.string()?;
    if !known.contains(&text) {
        field.error(format!("{text:?} is not a method that can be matched; use one of {}", known.join(" ")));
        return None;
    }
    text.parse().ok()
}

fn path_match(path: &Fields<'_>) -> Option<PathMatch> {
    let types = [("Exact", Type::Exact), ("PathPrefix", Type::Prefix), ("RegularExpression", Type::Regex)];
    let kind = path.get("type").map_or(Some(Type::Prefix), |field| field.choice(&types))?;
    let Some(field) = path.get("value") else {
        return Some(PathMatch::Prefix("".into()));
    };
    let value = field.string()?;
    if kind == Type::Regex {
        return field.ok(full_match(value)).map(PathMatch::Regex);
    }
    field.ok(check_path(value))?;
    Some(match kind {
        Type::Exact => PathMatch::Exact(value.into()),
        _ => PathMatch::Prefix(value.strip_suffix('/').unwrap_or(value).into()),
    })
}

/// The rules of the CRD for Exact and PathPrefix.
fn check_path(value: &str) -> Result<(), String> {
    if !value.starts_with('/') {
        return Err(format!("{value:?} must start with /"));
    }
    if value.len() > 1024 {
        return Err("must have at most 1024 bytes".into());
    }
    for part in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        if value.contains(part) {
            return Err(format!("{value:?} must not contain {part}"));
        }
    }
    if value.ends_with("/..") || value.ends_with("/.") {
        return Err(format!("{value:?} must not end in a dot segment"));
    }
    let escaped =
        |rest: &str| rest.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    for (i, c) in value.char_indices() {
        let allowed = c.is_ascii_alphanumeric() || "-/._~!$&'()*+,;=:@".contains(c);
        let percent = c == '%' && escaped(value.get(i + 1..).unwrap_or_default());
        if !allowed && !percent {
            return Err(format!("{value:?} has {c:?}, which a path must write as %XX"));
        }
    }
    Ok(())
}

/// `name`, `type` and `value` of a header or query match.
fn named_value<'t>(item: &Field<'t>) -> Option<(&'t str, ValueMatch)> {
    let fields = item.fields()?;
    let types = [("Exact", Type::Exact), ("RegularExpression", Type::Regex)];
    let kind = fields.get("type").map_or(Some(Type::Exact), |field| field.choice(&types));
    let name = fields.required_string("name");
    let value = fields.require("value")?;
    let text = value.nonempty()?;
    let found = match kind? {
        Type::Regex => ValueMatch::Regex(value.ok(full_match(text))?),
        _ => ValueMatch::Exact(text.into()),
    };
    (!name.is_empty()).then_some((name, found))
}

/// RE2 semantics over the whole text, as Envoy does.
fn full_match(pattern: &str) -> Result<Regex, String> {
    let compile = |pattern: &str| {
        let mut builder = RegexBuilder::new(pattern);
        builder.size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_BYTES).nest_limit(100);
        builder.build().map_err(|error| format!("not a usable regular expression: {}", last_line(&error)))
    };
    if pattern.len() > 1024 {
        return Err("must have at most 1024 bytes".into());
    }
    // On its own first: `a)|(b` must not become valid by what is put around it.
    compile(pattern)?;
    compile(&format!("^(?:{pattern})$"))
}

fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
