use super::*;

#[test]
fn an_unknown_field_is_a_warning_with_its_position() {
    let yaml = "apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: a}
spec:
  selector: {matchLabels: {app: a}}
  targetPorts: [{number: 8000, nummer: 1}]
  wrong: 1
";
    let warnings = warnings(yaml);
    assert_eq!(warnings[0], "test.yaml:1:1: warning: no route leads to this InferencePool");
    assert_eq!(
        warnings[1..],
        [
            "test.yaml:6:32: warning: spec.targetPorts[0].nummer: unknown field, ignored",
            "test.yaml:7:3: warning: spec.wrong: unknown field, ignored",
        ]
    );
}

#[test]
fn a_list_of_kubectl_is_a_file_like_any_other() {
    let item = "{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: %}, \
                spec: {controllerName: penstock.dev/gateway-controller, extra: 1}}";
    let yaml = format!(
        "apiVersion: v1\nkind: List\nitems: [{}, {}]",
        item.replace('%', "a"),
        item.replace('%', "b")
    );
    let (_, report) = built(&yaml);
    assert_eq!(report.objects.len(), 2);
    assert!(report.diagnostics[1].to_string().contains("items[1].spec.extra: unknown"));
}

#[test]
fn a_typed_list_gives_its_items_their_kind() {
    let yaml = "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: p}\n  status: {podIP: wrong}\n";
    one_error(yaml, &["items[0].status.podIP", "wrong"]);
}

#[test]
fn other_kinds_are_skipped_and_other_versions_are_not() {
    let (_, report) = built("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n");
    assert!(report.ok() && report.diagnostics[0].to_string().contains("ConfigMap (v1) is not used, skipped"));
    one_error(
        "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: InferencePool\nmetadata: {name: x}\n",
        &["use inference.networking.x-k8s.io/v1alpha2"],
    );
}

#[test]
fn what_is_no_manifest_is_an_error_and_the_rest_goes_on() {
    let (_, report) = built(
        "just text\n---\n[1, 2]\n---\nkind: Pod\n---\napiVersion: v1\nkind: Pod\n---\napiVersion: v1\nkind: List\nitems: 5\n",
    );
    assert_eq!(report.errors(), 5, "{}", crate::check::render(&report));
    assert!(!report.is_fatal());
}

#[test]
fn the_same_object_twice_is_an_error_that_names_both() {
    let pool = "apiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {name: a}\n\
                spec: {selector: {matchLabels: {app: a}}, targetPorts: [{number: 1}]}\n---\n";
    one_error(&format!("{pool}{pool}"), &["test.yaml:6:1", "defined twice, first at test.yaml:1:1"]);
    // The other group's pool of that name is another object.
    let alpha = "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferencePool\nmetadata: {name: a}\n\
                 spec: {selector: {app: a}, targetPortNumber: 1}\n";
    assert!(errors(&format!("{pool}{alpha}")).is_empty());
}

#[test]
fn names_and_labels_are_checked() {
    let pool = |meta: &str| {
        format!(
            "apiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {meta}\n\
             spec: {{selector: {{matchLabels: {{app: a}}}}, targetPorts: [{{number: 1}}]}}\n"
        )
    };
    one_error(&pool("{}"), &["metadata: name is missing"]);
    one_error(&pool("{name: A_b}"), &["is not a name"]);
    one_error(&pool("{name: 7}"), &["metadata.name: must be a string, not the number 7; put it in quotes"]);
    one_error(&pool("{name: a, labels: {x: true}}"), &["metadata.labels.x", "the boolean true"]);
}

#[test]
fn pools_are_checked() {
    let pool = |spec: &str| {
        format!(
            "apiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {{name: a}}\nspec: {spec}\n"
        )
    };
    for (spec, part) in [
        ("{targetPorts: [{number: 1}]}", "selector is missing"),
        ("{selector: {matchLabels: {}}, targetPorts: [{number: 1}]}", "at least one label"),
        (
            "{selector: {matchLabels: {a: b}}, targetPorts: [{number: 1}, {number: 1}]}",
            "port 1 is here twice",
        ),
        ("{selector: {matchLabels: {a: b}}, targetPorts: []}", "at least one port"),
        ("{selector: {matchLabels: {a: b}}, targetPorts: [{number: 0}]}", "between 1 and 65535"),
        (
            "{selector: {matchLabels: {a: b}}, targetPorts: [{number: 1}], appProtocol: kubernetes.io/h2c}",
            "http",
        ),
        (
            "{selector: {matchExpressions: [], matchLabels: {a: b}}, targetPorts: [{number: 1}]}",
            "not supported",
        ),
    ] {
        let errors = errors(&pool(spec));
        assert!(errors.iter().any(|error| error.contains(part)), "{spec}: {errors:?}");
    }
}

#[test]
fn a_backend_endpoint_is_exactly_one_of_three() {
    let backend = |endpoint: &str| {
        format!(
            "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: Backend\nmetadata: {{name: a}}\n\
             spec: {{endpoints: [{endpoint}]}}\n"
        )
    };
    let long = format!("{{unix: {{path: /{}}}}}", "x".repeat(107));
    for (endpoint, part) in [
        ("{}", "exactly one of"),
        ("{ip: {address: 1.1.1.1, port: 1}, unix: {path: /a}}", "exactly one of"),
        ("{ip: {address: example.com, port: 1}}", "endpoints[0].ip.address"),
        ("{fqdn: {hostname: '*.example.com', port: 1}}", "not a wildcard"),
        ("{fqdn: {hostname: 10.0.0.1, port: 1}}", "is an address"),
        ("{unix: {path: relative}}", "absolute path"),
        (&long, "at most 107 bytes"),
        ("{ip: {address: 1.1.1.1, port: x}}", "must be an integer, not the string \"x\""),
    ] {
        one_error(&backend(endpoint), &["spec.endpoints[0]", part]);
    }
    one_error(
        &backend("{ip: {address: 1.1.1.1, port: 1}}").replace("spec: {", "spec: {tls: {}, "),
        &["spec.tls"],
    );
}

#[test]
fn only_texts_that_cannot_be_read_are_fatal() {
    let loaded = texts(&[
        ("a.yaml", "a: 1\na: 2\n"),
        ("b.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nstatus: {podIP: x}\n"),
        ("c.yaml", "x: [\n"),
    ]);
    let config = parse(&loaded);
    assert!(config.report().is_fatal());
    assert_eq!(config.report().errors(), 3, "the other files are reported too");
    assert!(!parse(&texts(&[("b.yaml", "apiVersion: v1\nkind: Pod\n")])).report().is_fatal());
}
