use super::*;
use crate::snapshot::Hostname;

const CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: class}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
---
";

fn gateway(name: &str, spec: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  gatewayClassName: class
{spec}
---
"
    )
}

#[test]
fn a_gateway_of_another_controller_is_skipped_without_complaint() {
    let yaml = CLASS.replace("gateway.envoyproxy.io/gatewayclass-controller", "example.com/other");
    let (snapshot, report) =
        built(&format!("{yaml}{}", gateway("g", "  listeners: [{name: a, port: 80, protocol: HTTP}]")));
    assert!(report.ok() && snapshot.listeners.is_empty());
}

#[test]
fn a_gateway_without_its_class_is_refused() {
    one_error(
        &gateway("g", "  listeners: [{name: a, port: 80, protocol: HTTP}]"),
        &["there is no GatewayClass class"],
    );
}

#[test]
fn listeners_that_conflict_are_all_refused_and_the_others_run() {
    let spec = "  listeners:
  - {name: a, port: 80, protocol: HTTP, hostname: x.example.com}
  - {name: b, port: 80, protocol: HTTP, hostname: x.example.com}
  - {name: c, port: 80, protocol: HTTP, hostname: '*.example.com'}
  - {name: d, port: 81, protocol: HTTP}
  - {name: e, port: 81, protocol: HTTPS}";
    let (snapshot, report) = built(&format!("{CLASS}{}", gateway("g", spec)));
    let names: Vec<&str> = snapshot.listeners.iter().map(|listener| &*listener.name).collect();
    assert_eq!(names, ["c"]);
    assert_eq!(listener(&snapshot, "c").hostname, Hostname::Suffix(".example.com".into()));
    let conflicted =
        |name: &str| condition(&report, "Gateway default/g", &format!("listener {name}"), "Conflicted");
    assert_eq!(conflicted("a"), "true HostnameConflict");
    assert_eq!(conflicted("b"), "true HostnameConflict");
    assert_eq!(conflicted("d"), "true ProtocolConflict");
    assert_eq!(conflicted("e"), "true ProtocolConflict");
}

#[test]
fn listeners_of_two_gateways_conflict_only_on_one_address() {
    let one = gateway("g", "  listeners: [{name: a, port: 80, protocol: HTTP}]");
    let same = gateway("h", "  listeners: [{name: a, port: 80, protocol: HTTP}]");
    assert_eq!(errors(&format!("{CLASS}{one}{same}")).len(), 2);
    let spec = "  addresses: [{value: 127.0.0.1}]\n  listeners: [{name: a, port: 80, protocol: HTTP}]";
    let snapshot = good(&format!("{CLASS}{one}{}", gateway("h", spec)));
    let bound: Vec<String> = snapshot.listeners[1].addresses.iter().map(ToString::to_string).collect();
    assert_eq!(bound, ["127.0.0.1:80"]);
}

#[test]
fn protocols_and_selectors_that_are_not_supported_refuse_their_listener_alone() {
    let spec = "  listeners:
  - {name: a, port: 80, protocol: HTTP}
  - {name: tls, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}
  - {name: some, port: 82, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {}}}}";
    let (snapshot, report) = built(&format!("{CLASS}{}", gateway("g", spec)));
    assert_eq!(snapshot.listeners.len(), 1);
    let accepted =
        |name: &str| condition(&report, "Gateway default/g", &format!("listener {name}"), "Accepted");
    assert_eq!(accepted("a"), "true Accepted");
    assert_eq!(accepted("tls"), "false UnsupportedProtocol");
    assert_eq!(accepted("some"), "false UnsupportedValue");
    assert!(!report.ok());
}

#[test]
fn a_gateway_with_wrong_fields_is_refused_with_every_complaint() {
    let spec = "  listeners:
  - {name: a, port: '80', protocol: HTTP}
  - {name: a, port: 70000, protocol: HTTP, hostname: '*'}";
    let errors = errors(&format!("{CLASS}{}", gateway("g", spec)));
    let wanted = [
        "spec.listeners[0].port: must be an integer, not the string \"80\"",
        "spec.listeners[1]: the listener name \"a\" is used twice",
        "spec.listeners[1].hostname: \"*\" is not a host name",
        "spec.listeners[1].port: must be between 1 and 65535, not 70000",
    ];
    assert_eq!(errors.len(), wanted.len(), "{errors:#?}");
    for wanted in wanted {
        assert!(errors.iter().any(|error| error.contains(wanted)), "{wanted}: {errors:#?}");
    }
}

#[test]
fn a_tls_block_does_not_go_with_http() {
    let spec = "  listeners: [{name: a, port: 80, protocol: HTTP, tls: {mode: Terminate}}]";
    one_error(&format!("{CLASS}{}", gateway("g", spec)), &["spec.listeners[0].tls", "protocol HTTP"]);
}

#[test]
fn an_address_may_be_a_name_and_stands_for_what_it_resolves_to() {
    let spec = "  addresses: [{type: Hostname, value: api.example}, {value: 10.96.0.10}]
  listeners: [{name: a, port: 80, protocol: HTTP}]";
    let yaml = format!("{CLASS}{}", gateway("g", spec));
    let mut names = Names::default();
    names.insert("api.example", vec!["10.96.0.10".parse().unwrap(), "fd00::1".parse().unwrap()]);
    let (snapshot, report) = built_with(&yaml, &names);
    assert!(report.ok(), "{report:?}");
    let bound: Vec<String> = listener(&snapshot, "a").addresses.iter().map(ToString::to_string).collect();
    assert_eq!(bound, ["10.96.0.10:80", "[fd00::1]:80"]);
    assert_eq!(parse(&texts(&[("test.yaml", &yaml)])).hostnames(), ["api.example".into()]);
}

#[test]
fn a_name_without_an_address_listens_nowhere_and_not_everywhere() {
    let spec = "  addresses: [{type: Hostname, value: api.example}]
  listeners: [{name: a, port: 80, protocol: HTTP}]";
    let yaml = format!("{CLASS}{}", gateway("g", spec));
    let (snapshot, report) = built(&yaml);
    assert!(report.ok() && listener(&snapshot, "a").addresses.is_empty());
    assert!(warnings(&yaml)[0].contains("api.example is not resolved yet"));
}

#[test]
fn an_address_that_is_neither_an_ip_nor_a_name_is_refused() {
    for (address, says) in [
        ("{type: Hostname, value: '*.example'}", "wildcard"),
        ("{type: Hostname, value: 10.0.0.1}", "is an address"),
        ("{type: NamedAddress, value: a}", "use IPAddress or Hostname"),
    ] {
        let spec = format!("  addresses: [{address}]\n  listeners: [{{name: a, port: 80, protocol: HTTP}}]");
        one_error(&format!("{CLASS}{}", gateway("g", &spec)), &["spec.addresses[0].value", says]);
    }
}
