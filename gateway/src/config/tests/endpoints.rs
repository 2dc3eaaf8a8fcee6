use std::net::IpAddr;

use super::*;

/// A base in which a route leads to pool `a`, whose only endpoints are these.
fn found(yaml: &str) -> Vec<String> {
    found_with(yaml, &Names::default())
}

fn found_with(yaml: &str, names: &Names) -> Vec<String> {
    let base =
        with_rules(&format!("  - backendRefs: [{TO_A}]")).replace("labels: {app: a}", "labels: {app: x}");
    let (snapshot, report) = built_with(&format!("{base}{yaml}"), names);
    assert!(report.ok(), "{}", crate::check::render(&report));
    addresses(pool(&snapshot, "a"))
}

fn pod(name: &str, labels: &str, status: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {labels}}}\nstatus: {status}\n"
    )
}

const READY: &str = "conditions: [{type: Initialized, status: 'True'}, {type: Ready, status: 'True'}]";

#[test]
fn ready_pods_that_match_the_selector_serve_on_the_target_port() {
    let yaml = [
        pod("p1", "{app: a, x: y}", &format!("{{podIP: 10.0.0.1, {READY}}}")),
        pod("p2", "{app: a}", "{podIP: 10.0.0.2, conditions: [{type: Ready, status: 'False'}]}"),
        pod("p3", "{app: a}", &format!("{{{READY}}}")),
        pod("p4", "{app: b}", &format!("{{podIP: 10.0.0.4, {READY}}}")),
        pod("p5", "{app: a}", "{podIP: 10.0.0.5}"),
        pod("p6", "{app: a}, namespace: other", &format!("{{podIP: 10.0.0.6, {READY}}}")),
        pod(
            "p7",
            "{app: a}, deletionTimestamp: '2025-01-01T00:00:00Z'",
            &format!("{{podIP: 10.0.0.7, {READY}}}"),
        ),
    ];
    assert_eq!(found(&yaml.concat()), ["10.0.0.1:8000", "10.0.0.5:8000"]);
}

#[test]
fn unready_pods_may_change_nothing_but_the_endpoints() {
    let ready = pod("p", "{app: a}", &format!("{{podIP: 10.0.0.1, {READY}}}"));
    assert_eq!(found(&ready.replace("'True'", "'Unknown'")), [] as [&str; 0]);
}

fn slice(name: &str, labels: &str, rest: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: {labels}}}\n\
         addressType: IPv4\n{rest}\n"
    )
}

#[test]
fn slices_count_by_their_own_labels_and_by_the_selector_of_their_service() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\n\
                   spec: {selector: {app: a, tier: x}, ports: [{port: 80}]}\n";
    let yaml = [
        service.to_owned(),
        slice(
            "s1",
            "{kubernetes.io/service-name: s}",
            "endpoints: [{addresses: [10.1.0.1]}]\nports: [{port: 9}]",
        ),
        slice(
            "s2",
            "{app: a}",
            "endpoints:\n- {addresses: [10.1.0.2]}\n- {addresses: [10.1.0.3], conditions: {ready: false}}\n\
             - {addresses: [10.1.0.4], conditions: {ready: true}}\nports: [{port: 7000}, {port: 8000}]",
        ),
        slice("s3", "{app: a}", "endpoints: [{addresses: [10.1.0.5]}]\nports: [{port: 7000}]"),
        slice("s4", "{app: a}", "endpoints: [{addresses: [10.1.0.6]}]"),
        slice("s5", "{app: z}", "endpoints: [{addresses: [10.1.0.7]}]"),
    ];
    let wanted = ["10.1.0.1:8000", "10.1.0.2:8000", "10.1.0.4:8000", "10.1.0.5:7000", "10.1.0.6:8000"];
    assert_eq!(found(&yaml.concat()), wanted);
}

#[test]
fn the_service_of_the_external_picker_is_no_source_of_endpoints() {
    let yaml = [
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: epp}\nspec: {selector: {app: a}}\n".to_owned(),
        slice("s", "{kubernetes.io/service-name: epp, app: a}", "endpoints: [{addresses: [10.1.0.1]}]"),
    ]
    .concat();
    let base = with_rules(&format!("  - backendRefs: [{TO_A}]")).replace(
        "matchLabels: {app: a}}",
        "matchLabels: {app: a}}, endpointPickerRef: {name: epp, port: {number: 9002}}",
    );
    let snapshot = good(&format!("{base}{yaml}"));
    assert_eq!(addresses(pool(&snapshot, "a")), ["127.0.0.1:9001"]);
}

#[test]
fn backends_bring_their_own_ports_host_names_and_sockets() {
    let yaml = "
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: more, labels: {app: a}}
spec:
  endpoints:
  - {ip: {address: '::1', port: 1}}
  - {fqdn: {hostname: engine.example.com, port: 2}}
  - {fqdn: {hostname: unknown.example.com, port: 3}}
  - {unix: {path: /run/engine.sock}}
";
    let mut names = Names::default();
    names.insert("engine.example.com", vec![IpAddr::from([10, 2, 0, 1]), IpAddr::from([10, 2, 0, 2])]);
    let wanted = ["10.2.0.1:2", "10.2.0.2:2", "[::1]:1", "unix:/run/engine.sock"];
    assert_eq!(found_with(yaml, &names), wanted);
    let config = parse(&texts(&[("test.yaml", yaml)]));
    assert_eq!(config.hostnames(), ["engine.example.com".into(), "unknown.example.com".into()]);
}

#[test]
fn an_endpoint_found_twice_is_one() {
    let pod = pod("p", "{app: a}", &format!("{{podIP: 10.0.0.1, {READY}}}"));
    let slice = slice("s", "{app: a}", "endpoints: [{addresses: [10.0.0.1]}]");
    assert_eq!(found(&format!("{pod}{slice}")), ["10.0.0.1:8000"]);
}

#[test]
fn an_ipv4_address_and_its_form_in_ipv6_are_one_endpoint() {
    let ready = |name, ip| pod(name, "{app: a}", &format!("{{podIP: '{ip}', {READY}}}"));
    let slice = slice("s", "{app: a}", "endpoints: [{addresses: ['::ffff:a00:1']}]");
    let backend = "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: Backend\n\
                   metadata: {name: more, labels: {app: a}}\n\
                   spec: {endpoints: [{ip: {address: '::FFFF:10.0.0.1', port: 8000}}]}\n";
    let yaml = [ready("p", "10.0.0.1"), ready("q", "::ffff:10.0.0.1"), slice, backend.to_owned()].concat();
    assert_eq!(found(&yaml), ["10.0.0.1:8000"]);
}

#[test]
fn each_target_port_is_an_endpoint() {
    let base = with_rules(&format!("  - backendRefs: [{TO_A}]"))
        .replace("[{number: 8000}]", "[{number: 1}, {number: 2}]");
    let yaml = format!("{base}{}", pod("p", "{app: a}", &format!("{{podIP: 10.0.0.1, {READY}}}")));
    assert_eq!(addresses(pool(&good(&yaml), "a")), ["10.0.0.1:1", "10.0.0.1:2", "127.0.0.1:9001"]);
}

#[test]
fn a_service_as_destination_takes_its_slices_by_port_name_and_its_pods_by_target_port() {
    let yaml = [
        with_rules("  - backendRefs: [{name: s, port: 80}]"),
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  selector: {run: s}\n  ports:\n  \
         - {name: http, port: 80, targetPort: web}\n  - {name: metrics, port: 90}\n"
            .to_owned(),
        slice(
            "s1",
            "{kubernetes.io/service-name: s}",
            "endpoints: [{addresses: [10.1.0.1]}]\nports: [{name: http, port: 8001}, {name: metrics, port: 9090}]",
        ),
        pod("p", "{run: s}", &format!("{{podIP: 10.0.0.1, {READY}}}"))
            + "spec: {containers: [{ports: [{name: web, containerPort: 8002}]}]}\n",
    ];
    let snapshot = good(&yaml.concat());
    assert_eq!(addresses(pool(&snapshot, "s")), ["10.0.0.1:8002", "10.1.0.1:8001"]);
    assert_eq!(pool(&snapshot, "s").kind, "Service");
}

#[test]
fn a_backend_as_destination_is_a_pool_of_its_own() {
    let rules = "  - backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: b}]";
    let snapshot = good(&with_rules(rules));
    assert_eq!(addresses(pool(&snapshot, "b")), ["127.0.0.1:9002"]);
    assert_eq!(snapshot.pools.len(), 1);
}
