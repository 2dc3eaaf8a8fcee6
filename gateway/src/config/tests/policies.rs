use std::time::Duration;

use super::*;

fn policy(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: {kind}
metadata: {{name: {name}}}
spec:
{spec}
---
"
    )
}

fn client(name: &str, spec: &str) -> String {
    policy("ClientTrafficPolicy", name, spec)
}

fn traffic(name: &str, spec: &str) -> String {
    policy("BackendTrafficPolicy", name, spec)
}

const GATEWAY: &str = "  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]";
const LISTENER: &str =
    "  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw, sectionName: web}]";
const ROUTE: &str = "  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}]";
const RULE: &str =
    "  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r, sectionName: one}]";

fn base() -> String {
    with_rules(&format!("  - name: one\n    backendRefs: [{TO_A}]\n  - backendRefs: [{TO_B}]"))
}

fn request_timeouts(yaml: &str) -> Vec<u64> {
    let snapshot = good(&format!("{}{yaml}", base()));
    let seconds = |made: &Match| made.rule.traffic.request_timeout.unwrap_or_default().as_secs();
    listener(&snapshot, "web").matches.iter().map(seconds).collect()
}

fn timed(name: &str, target: &str, timeout: &str) -> String {
    traffic(name, &format!("{target}\n  timeout: {{http: {{requestTimeout: {timeout}}}}}"))
}

#[test]
fn a_nearer_traffic_policy_goes_before_a_farther_one() {
    let mut yaml = String::new();
    assert_eq!(request_timeouts(&yaml), [3600, 3600]);
    for (name, target, timeout, wanted) in [
        ("d", GATEWAY, "1s", [1, 1]),
        ("c", LISTENER, "2s", [2, 2]),
        ("b", ROUTE, "3s", [3, 3]),
        ("a", RULE, "4s", [4, 3]),
    ] {
        yaml.push_str(&timed(name, target, timeout));
        assert_eq!(request_timeouts(&yaml), wanted);
    }
}

#[test]
fn a_policy_with_merge_type_lies_over_the_gateways() {
    let far = traffic(
        "far",
        &format!("{GATEWAY}\n  requestBuffer: {{limit: 1Ki}}\n  timeout: {{http: {{requestTimeout: 9s}}}}"),
    );
    let near = |merge: &str| {
        traffic("near", &format!("{ROUTE}\n  timeout: {{http: {{requestTimeout: 1s}}}}{merge}"))
    };
    let limit = |yaml: String| {
        let snapshot = good(&format!("{}{yaml}", base()));
        let traffic = listener(&snapshot, "web").matches[0].rule.traffic.clone();
        (traffic.request_timeout.unwrap().as_secs(), traffic.body_limit)
    };
    assert_eq!(limit(format!("{far}{}", near(""))), (1, 64 << 20));
    assert_eq!(limit(format!("{far}{}", near("\n  mergeType: StrategicMerge"))), (1, 1024));
}

#[test]
fn of_two_policies_for_one_place_the_first_name_holds_and_the_other_is_conflicted() {
    let yaml = format!("{}{}{}", base(), timed("b", GATEWAY, "1s"), timed("a", GATEWAY, "2s"));
    let (snapshot, report) = built(&yaml);
    assert_eq!(
        listener(&snapshot, "web").matches[0].rule.traffic.request_timeout,
        Some(Duration::from_secs(2))
    );
    let accepted = |name: &str| {
        condition(&report, &format!("BackendTrafficPolicy default/{name}"), "Gateway gw", "Accepted")
    };
    assert_eq!(accepted("a"), "true Accepted");
    assert_eq!(accepted("b"), "false Conflicted");
}

#[test]
fn a_target_that_is_not_there_is_named() {
    for (target, part) in [
        (GATEWAY.replace("name: gw", "name: no"), "there is no Gateway default/no"),
        (LISTENER.replace("web", "no"), "the Gateway default/gw has no section no"),
        (RULE.replace("one", "no"), "the HTTPRoute default/r has no section no"),
    ] {
        one_error(&format!("{}{}", base(), timed("p", &target, "1s")), &["TargetNotFound", part]);
    }
    one_error(&format!("{}{}", base(), client("p", "  connection: {}")), &["targetRefs is missing"]);
    one_error(
        &format!("{}{}", base(), client("p", &GATEWAY.replace("Gateway", "GRPCRoute"))),
        &["GRPCRoute", "is not supported"],
    );
}

#[test]
fn target_selectors_go_by_labels() {
    let selected = |labels: &str| {
        let spec = format!("  targetSelectors: [{{kind: HTTPRoute, matchLabels: {labels}}}]");
        let labelled = base().replace("metadata: {name: r}", "metadata: {name: r, labels: {tier: x}}");
        let snapshot = good(&format!("{labelled}{}", timed("p", &spec, "5s")));
        listener(&snapshot, "web").matches[0].rule.traffic.request_timeout.unwrap().as_secs()
    };
    assert_eq!(selected("{tier: x}"), 5);
    assert_eq!(selected("{tier: y}"), 3600);
}

#[test]
fn every_setting_of_a_client_policy_arrives() {
    let spec = format!(
        "{GATEWAY}
  connection: {{bufferLimit: 1048576, connectionLimit: {{value: 100}}}}
  timeout:
    http: {{requestReceivedTimeout: 1m, requestHeadersReceivedTimeout: 5s, idleTimeout: 10m, streamIdleTimeout: 3m}}"
    );
    let snapshot = good(&format!("{}{}", base(), client("p", &spec)));
    let client = &listener(&snapshot, "web").client;
    assert_eq!(client.buffer_limit, 1 << 20);
    assert_eq!(client.max_connections, Some(100));
    assert_eq!(client.receive_timeout, Some(Duration::from_secs(60)));
    assert_eq!(client.head_timeout, Duration::from_secs(5));
    assert_eq!(client.idle_timeout, Duration::from_secs(600));
    assert_eq!(client.stream_idle_timeout, Duration::from_secs(180));
}

#[test]
fn a_client_policy_of_a_listener_goes_before_that_of_its_gateway() {
    let far = client("a", &format!("{GATEWAY}\n  connection: {{bufferLimit: 1Ki}}"));
    let near = client("b", &format!("{LISTENER}\n  connection: {{bufferLimit: 2Ki}}"));
    let snapshot = good(&format!("{}{far}{near}", base()));
    assert_eq!(listener(&snapshot, "web").client.buffer_limit, 2048);
}

#[test]
fn buffer_limits_follow_their_pattern() {
    for limit in ["0", "'0'", "1.5Mi", "4Gi", "[]", "-1"] {
        let spec = format!("{GATEWAY}\n  connection: {{bufferLimit: {limit}}}");
        one_error(&format!("{}{}", base(), client("p", &spec)), &["spec.connection.bufferLimit"]);
    }
}

#[test]
fn every_setting_of_a_traffic_policy_arrives() {
    let spec = format!(
        "{ROUTE}
  timeout: {{tcp: {{connectTimeout: 3s}}, http: {{requestTimeout: 0s, streamIdleTimeout: 2m}}}}
  requestBuffer: {{limit: 8Mi}}
  circuitBreaker: {{maxParallelRequests: 7}}
  retry:
    numRetries: 4
    retryOn: {{triggers: [reset, gateway-error, retriable-4xx, retriable-status-codes, unavailable], httpStatusCodes: [429]}}
    perRetry: {{timeout: 30s, backOff: {{baseInterval: 50ms, maxInterval: 1s}}}}"
    );
    let snapshot = good(&format!("{}{}", base(), traffic("p", &spec)));
    let traffic = &listener(&snapshot, "web").matches[0].rule.traffic;
    assert_eq!(traffic.connect_timeout, Duration::from_secs(3));
    assert_eq!(traffic.request_timeout, None);
    assert_eq!(traffic.stream_idle_timeout, Duration::from_secs(120));
    assert_eq!(traffic.body_limit, 8 << 20);
    assert_eq!(traffic.max_parallel_requests, Some(7));
    assert_eq!(traffic.attempt_timeout, Some(Duration::from_secs(30)));
    assert_eq!((traffic.retry.attempts, traffic.retry.on_reset), (4, true));
    assert_eq!(traffic.retry.on_status, [409, 429, 502, 503, 504]);
    assert_eq!(traffic.retry.backoff, Duration::from_millis(50));
}

#[test]
fn parallel_requests_are_unbounded_by_default_and_at_zero() {
    for breaker in ["{}", "{maxParallelRequests: 0}"] {
        let spec = format!("{GATEWAY}\n  circuitBreaker: {breaker}");
        let snapshot = good(&format!("{}{}", base(), traffic("p", &spec)));
        assert_eq!(listener(&snapshot, "web").matches[0].rule.traffic.max_parallel_requests, None);
    }
}

#[test]
fn an_unsupported_field_refuses_the_policy_alone() {
    for field in [
        "rateLimit: {type: Local}",
        "faultInjection: {}",
        "healthCheck: {active: {}}",
        "loadBalancer: {type: ConsistentHash}",
        "proxyProtocol: {}",
    ] {
        let yaml = format!("{}{}", base(), traffic("p", &format!("{GATEWAY}\n  {field}")));
        let (snapshot, report) = built(&yaml);
        assert_eq!(
            condition(&report, "BackendTrafficPolicy default/p", "", "Accepted"),
            "false UnsupportedValue",
            "{field}"
        );
        assert_eq!(listener(&snapshot, "web").matches.len(), 2);
    }
    let yaml = format!("{}{}", base(), client("p", &format!("{GATEWAY}\n  tls: {{minVersion: '1.3'}}")));
    one_error(&yaml, &["spec.tls: is not supported yet"]);
}

#[test]
fn fields_without_effect_are_accepted() {
    let yaml = traffic("p", &format!("{GATEWAY}\n  loadBalancer: {{type: RoundRobin}}\n  compression: []"));
    assert!(warnings(&format!("{}{yaml}", base())).is_empty());
}

#[test]
fn statuses_without_their_trigger_are_warned_about() {
    let spec = format!("{GATEWAY}\n  retry: {{retryOn: {{triggers: [reset], httpStatusCodes: [429]}}}}");
    let warnings = warnings(&format!("{}{}", base(), traffic("p", &spec)));
    assert!(warnings.len() == 1 && warnings[0].contains("retriable-status-codes"), "{warnings:?}");
}
