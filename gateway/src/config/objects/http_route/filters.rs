//! `filters[]` of a rule or destination.

use http::{HeaderName, HeaderValue};

use crate::config::fields::{Field, Fields};
use crate::config::units;
use crate::snapshot::{Filters, HeaderEdit, Hostname, PathRewrite, Redirect, UrlRewrite};

/// Fields that frame a message or end at this hop: a filter that touched them could smuggle requests.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn read(fields: &Fields<'_>) -> Filters {
    let mut filters = Filters::default();
    let mut seen: Vec<&str> = Vec::new();
    for item in fields.items("filters", 16) {
        let Some(filter) = item.fields() else { continue };
        let kind = filter.required_string("type");
        if seen.contains(&kind) {
            item.error(format!("a second {kind} filter; one of each type is allowed"));
        }
        seen.push(kind);
        match kind {
            "RequestHeaderModifier" => {
                filters.request_headers = body(&filter, "requestHeaderModifier").map_or(vec![], header_edits);
            }
            "ResponseHeaderModifier" => {
                filters.response_headers =
                    body(&filter, "responseHeaderModifier").map_or(vec![], header_edits);
            }
            "RequestRedirect" => filters.redirect = body(&filter, "requestRedirect").map(redirect),
            "URLRewrite" => filters.rewrite = body(&filter, "urlRewrite").map(rewrite),
            "RequestMirror" | "CORS" | "ExtensionRef" | "ExternalAuth" => {
                item.unsupported(format!("the filter {kind} is not supported yet"));
                filter.skip(&["requestMirror", "cors", "extensionRef", "externalAuth"]);
            }
            "" => {}
            other => item.error(format!("{other:?} is not a filter type")),
        }
    }
    if filters.redirect.is_some() && filters.rewrite.is_some() {
        fields.error("filters: URLRewrite and RequestRedirect exclude each other");
    }
    filters
}

fn body<'t>(filter: &Fields<'t>, key: &str) -> Option<Fields<'t>> {
    filter.require(key).and_then(|field| field.fields())
}

fn header_edits(fields: Fields<'_>) -> Vec<HeaderEdit> {
    let mut edits = Vec::new();
    // In this order: what is set may be added to, and what is removed is gone.
    for (key, edit) in [("set", HeaderEdit::Set as fn(_, _) -> _), ("add", HeaderEdit::Add)] {
        for item in fields.items(key, 16) {
            let Some(pair) = item.fields() else { continue };
            let name = pair.require("name").and_then(|field| header_name(&field));
            let value = pair.require("value").and_then(|field| {
                let text = field.nonempty()?;
                field.ok(HeaderValue::from_str(text).map_err(|_| "must not hold control characters"))
            });
            edits.extend(name.zip(value).map(|(name, value)| edit(name, value)));
        }
    }
    let removed = fields.items("remove", 16);
    edits.extend(removed.iter().filter_map(header_name).map(HeaderEdit::Remove));
    edits
}

fn header_name(field: &Field<'_>) -> Option<HeaderName> {
    let text = field.string()?;
    let name: HeaderName = field.ok(text.parse().map_err(|_| format!("{text:?} is not a header name")))?;
    if FRAMING.contains(&name.as_str()) {
        field.error(format!("{name} must not be edited: it frames the message or names the host"));
        return None;
    }
    Some(name)
}

fn rewrite(fields: Fields<'_>) -> UrlRewrite {
    let hostname = hostname(&fields);
    UrlRewrite { hostname, path: path_rewrite(&fields) }
}

fn redirect(fields: Fields<'_>) -> Redirect {
    let scheme = fields.get("scheme").and_then(|field| field.choice(&[("http", "http"), ("https", "https")]));
    let status = fields.get("statusCode").and_then(|field| {
        let code = field.integer(301..=308)?;
        let known = [301, 302, 303, 307, 308].contains(&code);
        field.ok(if known {
            Ok(())
        } else {
            Err(format!("{code} is not a redirect; use 301, 302, 303, 307 or 308"))
        })?;
        u16::try_from(code).ok()
    });
    Redirect {
        scheme: scheme.map(Into::into),
        hostname: hostname(&fields),
        path: path_rewrite(&fields),
        port: fields.get("port").and_then(|field| field.port()),
        status: status.unwrap_or(302),
    }
}

fn hostname(fields: &Fields<'_>) -> Option<Box<str>> {
    let field = fields.get("hostname")?;
    match field.ok(units::hostname(field.string()?))? {
        Hostname::Exact(name) => Some(name),
        Hostname::Any | Hostname::Suffix(_) => {
            field.error("must be one host, not a wildcard");
            None
        }
    }
}

fn path_rewrite(fields: &Fields<'_>) -> Option<PathRewrite> {
    let path = fields.fields("path")?;
    let kinds = [("ReplaceFullPath", "replaceFullPath"), ("ReplacePrefixMatch", "replacePrefixMatch")];
    let key = path.require("type")?.choice(&kinds)?;
    let field = path.require(key)?;
    let text = field.string()?;
    // It goes into a request line or a Location: nothing there may end the line or the target.
    if text.len() > 1024 || !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        field.error("must be at most 1024 visible ASCII characters without #");
        return None;
    }
    if !text.is_empty() && !text.starts_with('/') || text.is_empty() && key == "replaceFullPath" {
        field.error(format!("{text:?} must start with /"));
        return None;
    }
    let text = text.into();
    Some(if key == "replaceFullPath" { PathRewrite::Full(text) } else { PathRewrite::Prefix(text) })
}
