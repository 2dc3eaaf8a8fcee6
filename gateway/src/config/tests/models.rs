use super::*;
use crate::snapshot::{Criticality, ValueMatch};

fn model(name: &str, meta: &str, spec: &str) -> String {
    format!(
        "
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {{name: {name}{meta}}}
spec:
  poolRef: {{group: inference.networking.k8s.io, name: a}}
{spec}
---
"
    )
}

#[test]
fn without_any_route_a_model_leads_to_its_pool() {
    let snapshot = good(&with_base(&model("m", "", "  modelName: org/my model")));
    let made = &listener(&snapshot, "web").matches[0];
    assert_eq!(targets(made), ["a"]);
    assert!(matches!(&made.headers[0].1, ValueMatch::Exact(value) if **value == *"org/my model"));
    assert_eq!(&*made.rule.route.name, "m");
    assert!(pool(&snapshot, "a").models.contains_key("org/my model"));
    assert_eq!(snapshot.pools.len(), 1, "b is not reached");
}

#[test]
fn a_refused_route_does_not_open_what_it_meant_to_restrict() {
    let route = route("r", "  - sessionPersistence: {}");
    let (snapshot, _) = built(&with_base(&format!("{}{route}", model("m", "", "  modelName: m"))));
    assert!(listener(&snapshot, "web").matches.is_empty());
}

#[test]
fn of_two_models_with_one_name_in_a_pool_the_oldest_holds() {
    let yaml = with_base(&format!(
        "{}{}{}",
        model("undated", "", "  modelName: m\n  criticality: Sheddable"),
        model("young", ", creationTimestamp: '2025-01-01T00:00:00Z'", "  modelName: m"),
        model(
            "old",
            ", creationTimestamp: '2024-01-01T00:00:00Z'",
            "  modelName: m\n  criticality: Critical"
        ),
    ));
    let (snapshot, report) = built(&yaml);
    assert_eq!(pool(&snapshot, "a").models["m"].criticality, Criticality::Critical);
    let accepted = |name: &str| condition(&report, &format!("InferenceModel default/{name}"), "", "Accepted");
    assert_eq!(accepted("old"), "true Accepted");
    assert_eq!(accepted("young"), "false ModelNameInUse");
    assert_eq!(accepted("undated"), "false ModelNameInUse");
}

#[test]
fn one_name_may_be_served_by_two_pools() {
    let in_b = model("mb", "", "  modelName: m").replace("name: a}", "name: b}");
    good(&with_base(&format!("{}{in_b}", model("ma", "", "  modelName: m"))));
}

#[test]
fn names_that_a_rule_spells_out_are_models_of_its_pool() {
    let rules = format!(
        "  - matches: [{{headers: [{{name: x-gateway-model-name, value: spelled}}]}}]\n    backendRefs: [{TO_A}]"
    );
    let snapshot = good(&format!("{}{}", model("m", "", "  modelName: declared"), with_rules(&rules)));
    let names: Vec<&str> = pool(&snapshot, "a").models.keys().map(|name| &**name).collect();
    assert_eq!(names, ["declared", "spelled"]);
    assert!(pool(&snapshot, "a").models["spelled"].targets.is_empty());
}

#[test]
fn targets_are_weighted_all_or_none() {
    let targets = |text: &str| with_base(&model("m", "", &format!("  modelName: m\n  targetModels: {text}")));
    let weights = |text: &str| -> Vec<u32> {
        let snapshot = good(&targets(text));
        pool(&snapshot, "a").models["m"].targets.iter().map(|target| target.weight).collect()
    };
    assert_eq!(weights("[{name: x}, {name: y}]"), [1, 1]);
    assert_eq!(weights("[{name: x, weight: 10}, {name: y, weight: 90}]"), [10, 90]);
    assert_eq!(weights("[{name: x, weight: 0}]"), [0]);
    one_error(
        &targets("[{name: x, weight: 1}, {name: y}]"),
        &["spec.targetModels", "every target or to none"],
    );
    one_error(&targets("[{name: x, weight: 1}, {name: y, weight: 0}]"), &["a weight of 0"]);
    one_error(&targets("[{name: x, weight: 1000001}]"), &["targetModels[0].weight", "between 0 and 1000000"]);
    one_error(&targets(&format!("[{}]", ["{name: x}"; 11].join(", "))), &["at most 10"]);
}

#[test]
fn a_model_that_no_scanner_would_yield_is_refused() {
    for name in ["' x'", "''", "\"a\\nb\"", &"x".repeat(257)] {
        one_error(&with_base(&model("m", "", &format!("  modelName: {name}"))), &["spec.modelName"]);
    }
    one_error(
        &with_base(&model("m", "", "  modelName: m\n  criticality: High")),
        &["spec.criticality: must be Critical or Standard or Sheddable, not \"High\""],
    );
}

#[test]
fn a_model_of_a_missing_pool_is_told_so() {
    let yaml = model("m", "", "  modelName: m").replace("group: inference.networking.k8s.io, ", "");
    one_error(
        &with_base(&yaml),
        &[
            "spec.poolRef",
            "there is no InferencePool default/a of this group",
            "inference.networking.k8s.io/v1",
        ],
    );
}

#[test]
fn who_asks_for_shedding_is_told_that_there_is_none() {
    let (_, report) = built(&with_base(&model("m", "", "  modelName: m\n  criticality: Sheddable")));
    let infos: Vec<_> = report.diagnostics.iter().map(ToString::to_string).collect();
    assert!(infos.iter().any(|info| info.contains("info: spec.criticality: has no effect yet")), "{infos:?}");
    assert!(report.ok());
}
