use super::*;

/// Names of the header, in the order of the matches, that mark who they are.
fn order(rules: &[&str]) -> Vec<usize> {
    let rule = |rule: &&str| format!("  - matches: [{rule}]\n    backendRefs: [{TO_A}]\n");
    let snapshot = good(&with_rules(&rules.iter().map(rule).collect::<String>()));
    listener(&snapshot, "web").matches.iter().map(|made| made.rule.index).collect()
}

#[test]
fn exact_paths_go_before_expressions_before_prefixes_and_longer_before_shorter() {
    let rules = [
        "{path: {value: /}}",
        "{path: {value: /long/long/long/long}}",
        "{path: {type: RegularExpression, value: /a}}",
        "{path: {type: RegularExpression, value: /a.*}}",
        "{path: {type: Exact, value: /a}}",
        "{path: {value: /long/}}",
    ];
    assert_eq!(order(&rules), [4, 3, 2, 1, 5, 0]);
}

#[test]
fn then_method_then_headers_then_query_then_the_first_rule() {
    let rules = [
        "{}",
        "{queryParams: [{name: q, value: x}]}",
        "{queryParams: [{name: q, value: x, type: RegularExpression}]}",
        "{headers: [{name: a, value: x, type: RegularExpression}]}",
        "{headers: [{name: a, value: x}]}",
        "{headers: [{name: a, value: x}, {name: b, value: x}]}",
        "{method: POST}",
        "{}",
    ];
    assert_eq!(order(&rules), [6, 5, 4, 3, 1, 2, 0, 7]);
}

#[test]
fn the_most_specific_host_name_goes_first() {
    let rules = format!("  - backendRefs: [{TO_A}]");
    let hosts = "  hostnames: ['*.example.com', a.example.com, '*.b.example.com']\n  rules:";
    let yaml = route("r", &rules).replace("  rules:", hosts);
    let snapshot = good(&format!("{}{}{}", BASE, yaml, route("z", &rules)));
    let found: Vec<String> =
        listener(&snapshot, "web").matches.iter().map(|made| format!("{:?}", made.hostname)).collect();
    let wanted =
        ["Suffix(\".b.example.com\")", "Exact(\"a.example.com\")", "Suffix(\".example.com\")", "Any"];
    assert_eq!(found, wanted);
}

#[test]
fn ties_go_to_the_oldest_route_then_to_the_name() {
    let rules = format!("  - backendRefs: [{TO_A}]");
    let dated = |name: &str, date: &str| {
        route(name, &rules)
            .replace(&format!("{{name: {name}}}"), &format!("{{name: {name}, creationTimestamp: '{date}'}}"))
    };
    let yaml = format!(
        "{BASE}{}{}{}{}",
        route("b", &rules),
        route("a", &rules),
        dated("young", "2025-02-01T00:00:00Z"),
        dated("old", "2024-02-01T00:00:00Z"),
    );
    let snapshot = good(&yaml);
    let names: Vec<&str> =
        listener(&snapshot, "web").matches.iter().map(|made| &*made.rule.route.name).collect();
    assert_eq!(names, ["old", "young", "a", "b"]);
}
