//! `penstock explain`: where a described request would go, and why not elsewhere.
//!
//! The verdict is the router's own; this file only words it.

#![forbid(unsafe_code)]

mod words;

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use http::header::{HOST, HeaderName, HeaderValue, LOCATION};
use http::request::Parts;
use http::{Method, Request, Uri};

use crate::failure::{Failure, Reason};
use crate::inspect::{self, Scan};
use crate::route::{Asked, Routes, Table, filters, mismatch, models};
use crate::snapshot::{Destination, Listener, Match, Model, Pool, Snapshot, Target};
use words::{HostnameText, MatchText, Share};

/// Rules that were passed over are shown up to this number.
const SHOWN: usize = 20;

/// A request as the options of the command describe it.
#[derive(Debug)]
pub struct Described {
    pub parts: Parts,
    pub model: Option<String>,
    /// `None`: every port that a listener has.
    pub port: Option<u16>,
}

impl Described {
    /// From the words of a command line; `headers` as `Name: value`. An error says which option to mend.
    pub fn new(method: &str, path: &str, host: Option<&str>, headers: &[String]) -> Result<Self, String> {
        let mut request = Request::new(());
        *request.method_mut() =
            Method::from_bytes(method.as_bytes()).map_err(|error| format!("--method {method}: {error}"))?;
        *request.uri_mut() = path.parse::<Uri>().map_err(|error| format!("--path {path}: {error}"))?;
        if let Some(host) = host {
            let value = HeaderValue::from_str(host).map_err(|error| format!("--host {host}: {error}"))?;
            request.headers_mut().insert(HOST, value);
        }
        for header in headers {
            let wrong = || format!("--header {header}: not of the form `Name: value`");
            let (name, value) = header.split_once(':').ok_or_else(wrong)?;
            let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
            let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
            request.headers_mut().append(name, value);
        }
        Ok(Self { parts: request.into_parts().0, model: None, port: None })
    }
}

/// The report for one request; ends with a line feed.
#[must_use]
pub fn explain(snapshot: &Snapshot, request: &Described) -> String {
    let mut report = String::new();
    // Writing to a String does not fail.
    _ = write_report(&mut report, snapshot, request);
    report
}

fn write_report(out: &mut String, snapshot: &Snapshot, request: &Described) -> fmt::Result {
    let mut parts = request.parts.clone();
    inspect::strip_internal(&mut parts.headers);
    let asked = Asked::new(&parts, request.model.as_deref());
    write!(out, "{} {}", parts.method, parts.uri)?;
    match asked.host {
        Some(host) => write!(out, ", host {}", host.as_str())?,
        None => write!(out, ", no host")?,
    }
    match asked.model {
        Some(model) => writeln!(out, ", model {model}")?,
        None => writeln!(out, ", no model")?,
    }
    if !write_scan(out, &parts, asked.model)? {
        return Ok(());
    }
    let ports = match request.port {
        Some(port) => BTreeSet::from([port]),
        None => snapshot.listeners.iter().flat_map(|listener| ports(listener)).collect(),
    };
    if ports.is_empty() {
        writeln!(out, "no Gateway has a listener that could be programmed; `penstock check` says why")?;
    }
    for port in ports {
        writeln!(out, "\nport       {port}")?;
        let listeners = snapshot.listeners.iter().filter(|l| ports_of(l, port));
        let table = Table::new(listeners);
        match table.listener(asked.host) {
            Ok(routes) => write_routes(out, routes, &parts, &asked, port)?,
            Err(failure) => write_failure(out, &failure)?,
        }
    }
    Ok(())
}

fn ports(listener: &Listener) -> impl Iterator<Item = u16> {
    listener.addresses.iter().map(std::net::SocketAddr::port)
}

fn ports_of(listener: &Listener, port: u16) -> bool {
    ports(listener).any(|bound| bound == port)
}

/// False where the request would be refused before it is routed.
fn write_scan(out: &mut String, parts: &Parts, model: Option<&str>) -> Result<bool, fmt::Error> {
    let facts = match inspect::inspect(parts) {
        Ok(facts) => facts,
        Err(failure) => {
            write_failure(out, &failure)?;
            return Ok(false);
        }
    };
    let (what, required) = match facts.scan {
        Scan::None => ("not read: neither an inference path nor a JSON or form body", false),
        Scan::Json { required } => ("read as JSON for its model", required),
        Scan::Multipart { required } => ("read as a form for its model", required),
    };
    writeln!(out, "body       {what}")?;
    if facts.scan == Scan::None && model.is_some() {
        writeln!(out, "           so the model given here is only supposed")?;
    }
    if required && model.is_none() {
        let what = "this path needs a model in the body";
        write_failure(out, &Failure::new(Reason::ModelMissing, what))?;
        return Ok(false);
    }
    Ok(true)
}

fn write_routes(
    out: &mut String,
    routes: &Routes,
    parts: &Parts,
    asked: &Asked<'_>,
    port: u16,
) -> fmt::Result {
    let listener = routes.listener();
    writeln!(
        out,
        "listener   {} {} ({})",
        listener.gateway,
        listener.name,
        HostnameText(&listener.hostname)
    )?;
    if models::answer(routes, parts).is_some() {
        let names = models::models(routes, asked);
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return writeln!(out, "answered   by the gateway itself; models: {names}");
    }
    let found = routes.find(asked);
    let chosen = found.as_ref().ok().map(|matched| std::ptr::from_ref(*matched));
    let better = listener.matches.iter().take_while(|entry| Some(std::ptr::from_ref(*entry)) != chosen);
    let mut hidden = 0_usize;
    for (position, entry) in better.enumerate() {
        let Some(reason) = mismatch(entry, asked) else { continue };
        if position < SHOWN {
            let Match { rule, .. } = entry;
            writeln!(out, "passed by  {} rule {}: {reason} ({})", rule.route, rule.index, MatchText(entry))?;
        } else {
            hidden += 1;
        }
    }
    if hidden > 0 {
        writeln!(out, "passed by  {hidden} more")?;
    }
    match found {
        Ok(matched) => write_match(out, matched, parts, asked, port),
        Err(failure) => write_failure(out, &failure),
    }
}

fn write_match(
    out: &mut String,
    matched: &Match,
    parts: &Parts,
    asked: &Asked<'_>,
    port: u16,
) -> fmt::Result {
    let rule = &matched.rule;
    writeln!(out, "rule       {} rule {} ({})", rule.route, rule.index, MatchText(matched))?;
    if let Some(redirect) = &rule.filters.redirect {
        let arrived = filters::Arrived { tls: false, port };
        return match filters::redirect(redirect, &matched.path, asked, arrived) {
            Ok(answer) => {
                let location = answer.headers().get(LOCATION).map(|value| value.to_str());
                let location = location.and_then(Result::ok).unwrap_or_default();
                writeln!(out, "redirect   {} to {location}", answer.status().as_u16())
            }
            Err(failure) => write_failure(out, &failure),
        };
    }
    let total: u64 = rule.destinations.iter().map(|destination| u64::from(destination.weight)).sum();
    if total == 0 {
        let what = "the rule has no destination with a weight above 0";
        return write_failure(out, &Failure::new(Reason::RouteInvalid, what));
    }
    for destination in &rule.destinations {
        let share = Share(destination.weight, total);
        match &destination.target {
            Target::Pool(pool) => {
                writeln!(out, "pool       {} {}, weight {share}", pool.kind, pool.name)?;
                write_pool(out, pool, asked.model)?;
                write_changes(out, matched, destination, parts)?;
            }
            Target::Invalid(why) => writeln!(out, "invalid    weight {share}: 500 route_invalid: {why}")?,
        }
    }
    Ok(())
}

fn write_pool(out: &mut String, pool: &Pool, name: Option<&str>) -> fmt::Result {
    match name.and_then(|name| pool.models.get(name)) {
        Some(model) => {
            write!(out, "  model    {}, {:?}, ", model.name, model.criticality)?;
            write_targets(out, model)?;
        }
        None if name.is_some() => {
            writeln!(out, "  model    named by no manifest of the pool; passed on as it is")?
        }
        None => {}
    }
    if pool.endpoints.is_empty() {
        writeln!(out, "  endpoint none is ready: 503 no_endpoint")?;
    }
    for endpoint in &pool.endpoints {
        writeln!(out, "  endpoint {}", endpoint.label)?;
    }
    Ok(())
}

fn write_targets(out: &mut String, model: &Model) -> fmt::Result {
    let total: u64 = model.targets.iter().map(|target| u64::from(target.weight)).sum();
    if model.targets.is_empty() {
        return writeln!(out, "asked for by its own name");
    }
    if total == 0 {
        return writeln!(out, "reserved: all of its targetModels have weight 0: 404 model_not_found");
    }
    let targets =
        model.targets.iter().map(|target| format!("{} {}", target.name, Share(target.weight, total)));
    writeln!(out, "asked for as {}", targets.collect::<Vec<_>>().join(", "))
}

/// What the URLRewrite makes of the head.
fn write_changes(out: &mut String, matched: &Match, to: &Destination, parts: &Parts) -> fmt::Result {
    let mut sent = parts.clone();
    if let Err(failure) = filters::on_request(&mut sent, matched, to) {
        return write_failure(out, &failure);
    }
    if sent.uri != parts.uri || sent.headers.get(HOST) != parts.headers.get(HOST) {
        let host = sent.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("as it was");
        writeln!(out, "  rewrite  {}, host {host}", sent.uri)?;
    }
    Ok(())
}

fn write_failure(out: &mut String, failure: &Failure) -> fmt::Result {
    writeln!(out, "refused    {} {failure}", failure.reason.status().as_u16())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::route::fixtures::*;
    use crate::snapshot::{Hostname, PathRewrite, Redirect, UrlRewrite};

    fn chat(model: Option<&str>) -> Described {
        let mut request = Described::new("POST", "/v1/chat/completions", Some("h:8080"), &[]).unwrap();
        request.model = model.map(Into::into);
        request
    }

    fn snapshot(matches: Vec<Match>) -> Snapshot {
        Snapshot { listeners: vec![listener(Hostname::Any, matches)], ..Snapshot::default() }
    }

    fn two_models() -> Snapshot {
        let mut qwen = pool("qwen-pool", 2);
        let models = &mut Arc::get_mut(&mut qwen).unwrap().models;
        models.insert("qwen".into(), model("qwen", &[("qwen-v1", 90), ("qwen", 10)]));
        snapshot(vec![to_model("deepseek-r1", &pool("deepseek-pool", 1)), to_model("qwen", &qwen)])
    }

    #[test]
    fn a_routed_request_is_told_from_listener_to_endpoints() {
        assert_eq!(
            explain(&two_models(), &chat(Some("qwen"))),
            "\
POST /v1/chat/completions, host h, model qwen
body       read as JSON for its model

port       8080
listener   default/gateway llm-gw (every hostname)
passed by  default/route rule 0: the model differs (any path, model = deepseek-r1)
rule       default/route rule 0 (any path, model = qwen)
pool       InferencePool default/qwen-pool, weight 1 of 1 (100.0 %)
  model    qwen, Standard, asked for as qwen-v1 90 of 100 (90.0 %), qwen 10 of 100 (10.0 %)
  endpoint 127.0.0.1:8000
  endpoint 127.0.0.1:8001
"
        );
    }

    #[test]
    fn a_refusal_is_told_as_the_client_would_get_it() {
        let unknown = explain(&two_models(), &chat(Some("gpt-5")));
        assert!(unknown.contains("refused    404 model_not_found: "), "{unknown}");
        assert_eq!(unknown.matches("passed by").count(), 2);
        let missing = explain(&two_models(), &chat(None));
        assert!(missing.contains("refused    400 model_missing: "), "{missing}");
        assert!(explain(&Snapshot::default(), &chat(Some("m"))).contains("no Gateway has a listener"));
        let mut elsewhere = chat(Some("qwen"));
        elsewhere.port = Some(9999);
        assert!(explain(&two_models(), &elsewhere).contains("refused    404 no_route: "));
    }

    #[test]
    fn an_empty_pool_an_invalid_share_and_a_rewrite_are_told() {
        let mut rule = rule(vec![destination(&pool("empty", 0), 1), invalid("no pool default/x", 3)]);
        rule.filters.rewrite =
            Some(UrlRewrite { hostname: None, path: Some(PathRewrite::Prefix("/up".into())) });
        let text = explain(&snapshot(vec![any_to(rule)]), &chat(Some("m")));
        assert!(text.contains("  endpoint none is ready: 503 no_endpoint\n"), "{text}");
        assert!(
            text.contains("invalid    weight 3 of 4 (75.0 %): 500 route_invalid: no pool default/x\n"),
            "{text}"
        );
        assert!(text.contains("  rewrite  /up/v1/chat/completions, host h:8080\n"), "{text}");
    }

    #[test]
    fn a_redirect_and_the_gateways_own_answer_are_told() {
        let mut redirecting = rule(vec![]);
        redirecting.filters.redirect = Some(Redirect {
            scheme: Some("https".into()),
            hostname: None,
            path: None,
            port: None,
            status: 301,
        });
        let text = explain(&snapshot(vec![any_to(redirecting)]), &chat(Some("m")));
        assert!(text.contains("redirect   301 to https://h/v1/chat/completions\n"), "{text}");
        let list = Described::new("GET", "/v1/models", None, &[]).unwrap();
        let text = explain(&two_models(), &list);
        assert!(text.contains("answered   by the gateway itself; models: deepseek-r1, qwen\n"), "{text}");
    }

    #[test]
    fn thousands_of_rules_are_cut_short() {
        let pool = pool("p", 1);
        let matches = (0..3_000).map(|i| to_model(&format!("m{i}"), &pool)).collect();
        let text = explain(&snapshot(matches), &chat(Some("m2999")));
        assert!(text.lines().count() < 40 && text.contains("passed by  2979 more\n"), "{text}");
    }

    #[test]
    fn options_that_make_no_request_are_named() {
        let wrong = |result: Result<Described, String>| result.unwrap_err();
        assert!(wrong(Described::new("PO ST", "/", None, &[])).starts_with("--method"));
        assert!(wrong(Described::new("POST", "/a b", None, &[])).starts_with("--path"));
        assert!(wrong(Described::new("POST", "/", Some("a\nb"), &[])).starts_with("--host"));
        assert!(wrong(Described::new("POST", "/", None, &["x".into()])).starts_with("--header"));
    }
}
