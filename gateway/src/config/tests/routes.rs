use std::time::Duration;

use super::*;
use crate::snapshot::{HeaderEdit, PathMatch, PathRewrite};

#[test]
fn an_invalid_reference_gets_its_share_and_the_rest_runs() {
    let yaml = with_rules(&format!(
        "  - backendRefs:
    - {{group: inference.networking.k8s.io, kind: InferencePool, name: a, weight: 3}}
    - {{group: inference.networking.x-k8s.io, kind: InferencePool, name: b}}
    - {{group: inference.networking.k8s.io, kind: InferencePool, name: b, namespace: other}}
    - {{name: nothing, port: 80}}
    - {{group: apps, kind: Deployment, name: d}}
  - backendRefs: [{TO_B}]"
    ));
    let (snapshot, report) = built(&yaml);
    let matches = &listener(&snapshot, "web").matches;
    assert_eq!(targets(&matches[0]), ["a", "!", "!", "!", "!"]);
    assert_eq!(matches[0].rule.destinations[0].weight, 3);
    assert_eq!(targets(&matches[1]), ["b"]);
    let errors: Vec<String> = report.diagnostics.iter().map(ToString::to_string).collect();
    let all = errors.join("\n");
    for wanted in [
        "spec.rules[0].backendRefs[1]: BackendNotFound: there is no InferencePool default/b of this group",
        "spec.rules[0].backendRefs[2]: RefNotPermitted: other/b is in another namespace",
        "spec.rules[0].backendRefs[3]: BackendNotFound: there is no Service default/nothing",
        "spec.rules[0].backendRefs[4]: InvalidKind: Deployment cannot take requests",
    ] {
        assert!(all.contains(wanted), "{wanted}\n{all}");
    }
    assert_eq!(
        condition(&report, "HTTPRoute default/r", "parent gw", "ResolvedRefs"),
        "false BackendNotFound"
    );
    assert_eq!(condition(&report, "HTTPRoute default/r", "parent gw", "Accepted"), "true Accepted");
}

#[test]
fn parents_that_do_not_fit_are_told_why() {
    let parent = |parent: &str, more: &str| {
        with_base(&format!(
            "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r{more}}}
spec:
  parentRefs: [{parent}]
  rules: [{{backendRefs: [{TO_A}]}}]
"
        ))
    };
    one_error(&parent("{name: nowhere}", ""), &["NoMatchingParent", "there is no Gateway default/nowhere"]);
    one_error(&parent("{name: gw, sectionName: x}", ""), &["NoMatchingParent", "has no listener x"]);
    one_error(&parent("{name: gw, port: 9}", ""), &["NoMatchingParent", "spec.parentRefs[0]"]);
    // Broken as a reference too: the pools live in another namespace than the route.
    let other = errors(&parent("{name: gw, namespace: default}", ", namespace: other"));
    assert!(other.iter().any(|error| error.contains("NotAllowedByListeners")), "{other:#?}");
}

#[test]
fn a_route_without_common_host_names_is_not_attached() {
    let yaml = BASE.replace("protocol: HTTP}", "protocol: HTTP, hostname: '*.example.com'}");
    let rules = format!("  - backendRefs: [{TO_A}]");
    let route =
        |hosts: &str| route("r", &rules).replace("  rules:", &format!("  hostnames: {hosts}\n  rules:"));
    one_error(&format!("{yaml}{}", route("[other.com]")), &["NoMatchingListenerHostname"]);
    let snapshot = good(&format!("{yaml}{}", route("[other.com, a.example.com, b.example.com]")));
    assert_eq!(listener(&snapshot, "web").matches.len(), 2, "one per common host name");
}

#[test]
fn a_route_attaches_to_a_listener_once() {
    let rules = format!("  - backendRefs: [{TO_A}]");
    let twice = route("r", &rules).replace("[{name: gw}]", "[{name: gw}, {name: gw, sectionName: web}]");
    assert_eq!(listener(&good(&with_base(&twice)), "web").matches.len(), 1);
}

#[test]
fn the_values_of_matches_are_checked() {
    let rule = |text: &str| with_rules(&format!("  - matches: [{text}]\n    backendRefs: [{TO_A}]"));
    for (text, part) in [
        ("{path: {value: v1}}", "must start with /"),
        ("{path: {value: /a//b}}", "must not contain //"),
        ("{path: {type: Exact, value: /a/..}}", "dot segment"),
        ("{path: {type: Exact, value: /a b}}", "%XX"),
        ("{path: {type: Regex, value: /a}}", "must be Exact or PathPrefix or RegularExpression"),
        ("{path: {type: RegularExpression, value: 'a)|(b'}}", "regular expression"),
        ("{path: {type: RegularExpression, value: '((a{1000}){1000}){1000}'}}", "regular expression"),
        ("{path: {type: RegularExpression, value: '(?x) a # b'}}", "regular expression"),
        ("{method: get}", "is not a method"),
        ("{headers: [{name: 'a b', value: x}]}", "is not a header name"),
        ("{headers: [{name: a}]}", "value is missing"),
        ("{headers: [{name: a, value: 8}]}", "must be a string, not the number 8; put it in quotes"),
        ("{queryParams: [{name: a, value: x}, {name: a, value: y}]}", "matched twice"),
    ] {
        one_error(&rule(text), &["spec.rules[0].matches[0]", part]);
    }
}

#[test]
fn expressions_match_the_whole_value() {
    let yaml = with_rules(&format!(
        "  - matches: [{{path: {{type: RegularExpression, value: '/a|/b+'}}}}]\n    backendRefs: [{TO_A}]"
    ));
    let snapshot = good(&yaml);
    let PathMatch::Regex(regex) = &listener(&snapshot, "web").matches[0].path else { panic!() };
    assert!(regex.is_match("/a") && regex.is_match("/bbb"));
    assert!(!regex.is_match("/ab") && !regex.is_match("x/b") && !regex.is_match("/a\n"));
}

#[test]
fn filters_become_edits() {
    let yaml = with_rules(&format!(
        "  - matches: [{{path: {{value: /v1/}}}}]
    backendRefs: [{TO_A}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {{add: [{{name: A, value: '1'}}], set: [{{name: b, value: x}}], remove: [C]}}
    - type: URLRewrite
      urlRewrite: {{hostname: engine.local, path: {{type: ReplacePrefixMatch, replacePrefixMatch: /}}}}"
    ));
    let snapshot = good(&yaml);
    let made = &listener(&snapshot, "web").matches[0];
    assert!(matches!(&made.path, PathMatch::Prefix(prefix) if **prefix == *"/v1"));
    let filters = &made.rule.filters;
    let wanted = [
        HeaderEdit::Set("b".parse().unwrap(), "x".parse().unwrap()),
        HeaderEdit::Add("a".parse().unwrap(), "1".parse().unwrap()),
        HeaderEdit::Remove("c".parse().unwrap()),
    ];
    assert_eq!(filters.request_headers, wanted);
    let rewrite = filters.rewrite.as_ref().unwrap();
    assert_eq!(rewrite.path, Some(PathRewrite::Prefix("/".into())));
    assert_eq!(rewrite.hostname.as_deref(), Some("engine.local"));
}

#[test]
fn filters_that_cannot_be_obeyed_refuse_the_route() {
    let filter = |text: &str| with_rules(&format!("  - filters: [{text}]"));
    let full = "path: {type: ReplaceFullPath, replaceFullPath: /x}";
    for (text, part) in [
        ("{type: RequestMirror, requestMirror: {}}", "RequestMirror is not supported yet"),
        ("{type: Nonsense}", "is not a filter type"),
        ("{type: RequestRedirect}", "requestRedirect is missing"),
        ("{type: RequestRedirect, requestRedirect: {statusCode: 306}}", "306"),
        ("{type: RequestHeaderModifier, requestHeaderModifier: {remove: [Host]}}", "must not be edited"),
        (
            "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Content-Length, value: '1'}]}}",
            "must not be edited",
        ),
        (
            "{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: a, value: \"x\\r\\ny\"}]}}",
            "control",
        ),
        (
            "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: \"/ x\"}}}",
            "visible",
        ),
        (
            &format!("{{type: URLRewrite, urlRewrite: {{{full}}}}}, {{type: URLRewrite, urlRewrite: {{}}}}"),
            "second",
        ),
        (
            &format!(
                "{{type: URLRewrite, urlRewrite: {{{full}}}}}, {{type: RequestRedirect, requestRedirect: {{}}}}"
            ),
            "exclude each other",
        ),
        (
            "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /a}}}, \
             {type: ResponseHeaderModifier, responseHeaderModifier: {bogus: 1, add: 5}}",
            "must be a list",
        ),
    ] {
        let (snapshot, report) = built(&filter(text));
        assert!(listener(&snapshot, "web").matches.is_empty(), "{text}");
        let all: Vec<String> = report.diagnostics.iter().map(ToString::to_string).collect();
        assert!(all.iter().any(|line| line.contains(part)), "{part}: {all:#?}");
    }
}

#[test]
fn a_prefix_replacement_wants_one_prefix_match() {
    let rewrite = "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]";
    one_error(
        &with_rules(&format!(
            "  - matches: [{{path: {{type: Exact, value: /a}}}}]\n    {rewrite}\n    backendRefs: [{TO_A}]"
        )),
        &["exactly one match, of type PathPrefix"],
    );
}

#[test]
fn a_redirect_does_not_go_with_destinations() {
    let rule = "  - filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]";
    assert_eq!(
        listener(&good(&with_rules(rule)), "web").matches[0].rule.filters.redirect.as_ref().unwrap().status,
        302
    );
    one_error(&with_rules(&format!("{rule}\n    backendRefs: [{TO_A}]")), &["does not go with backendRefs"]);
}

#[test]
fn timeouts_and_retries_of_a_rule_hold() {
    let yaml = with_rules(&format!(
        "  - backendRefs: [{TO_A}]
    timeouts: {{request: 2h, backendRequest: 10m}}
    retry: {{attempts: 3, codes: [500, 503], backoff: 100ms}}
  - backendRefs: [{TO_B}]
    timeouts: {{request: 0s}}"
    ));
    let snapshot = good(&yaml);
    let traffic = &listener(&snapshot, "web").matches[0].rule.traffic;
    assert_eq!(traffic.request_timeout, Some(Duration::from_secs(7200)));
    assert_eq!(traffic.attempt_timeout, Some(Duration::from_secs(600)));
    assert_eq!(traffic.stream_idle_timeout, Duration::from_secs(7200));
    assert_eq!((traffic.retry.attempts, traffic.retry.on_reset), (3, true));
    assert_eq!(traffic.retry.on_status, [500, 503]);
    assert_eq!(traffic.retry.backoff, Duration::from_millis(100));
    assert_eq!(listener(&snapshot, "web").matches[1].rule.traffic.request_timeout, None);
    one_error(
        &with_rules("  - timeouts: {request: 1s, backendRequest: 2s}"),
        &["spec.rules[0].timeouts: backendRequest must not be longer"],
    );
    one_error(&with_rules("  - timeouts: {request: 1d}"), &["timeouts.request", "is not a duration"]);
}

#[test]
fn a_service_wants_a_port_that_it_has() {
    let service = "
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {type: ExternalName, externalName: x, ports: [{port: 80}]}
---
";
    let rules =
        |port: &str| format!("{service}{}", with_rules(&format!("  - backendRefs: [{{name: s{port}}}]")));
    one_error(&rules(""), &["port is missing"]);
    one_error(&rules(", port: 80"), &["is an ExternalName"]);
    let plain = rules(", port: 81").replace("type: ExternalName, externalName: x, ", "");
    one_error(&plain, &["the Service default/s has no port 81"]);
}

#[test]
fn an_unsupported_field_refuses_the_route_and_nothing_else() {
    let rules = format!("  - backendRefs: [{TO_A}]\n    sessionPersistence: {{}}");
    let yaml = format!("{}{}", with_rules(&rules), route("other", &format!("  - backendRefs: [{TO_B}]")));
    let (snapshot, report) = built(&yaml);
    assert_eq!(listener(&snapshot, "web").matches.len(), 1);
    assert_eq!(condition(&report, "HTTPRoute default/r", "", "Accepted"), "false UnsupportedValue");
    assert!(!report.ok() && !report.is_fatal());
}

#[test]
fn an_annotation_of_a_route_keeps_its_streams_from_being_spliced() {
    let route = |annotation: &str| {
        with_base(&format!(
            "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r, annotations: {{other.dev/x: [1], {annotation}}}}}
spec:
  parentRefs: [{{name: gw}}]
  rules: [{{backendRefs: [{TO_A}]}}]
"
        ))
    };
    for (annotation, spliced) in
        [("a: b", true), ("penstock.dev/splice: auto", true), ("penstock.dev/splice: \"off\"", false)]
    {
        let (snapshot, report) = built(&route(annotation));
        assert!(report.ok(), "{annotation}");
        assert_eq!(listener(&snapshot, "web").matches[0].rule.traffic.splice, spliced, "{annotation}");
    }
    one_error(
        &route("penstock.dev/splice: never"),
        &["metadata.annotations.penstock.dev/splice", "auto or off"],
    );
    let elsewhere = "apiVersion: v1
kind: Service
metadata: {name: s, annotations: {penstock.dev/splice: auto}}
spec: {ports: [{port: 80}]}
";
    let warnings = warnings(elsewhere);
    assert!(warnings.iter().any(|warning| warning.contains("only an HTTPRoute")), "{warnings:?}");
}
