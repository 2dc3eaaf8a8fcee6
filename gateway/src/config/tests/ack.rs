use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::snapshot::{Criticality, ModelTarget, ValueMatch};

fn examples() -> Loaded {
    load(&[PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/ack"))]).unwrap()
}

#[test]
fn the_ack_manifests_route_two_models_to_two_pools() {
    let config = parse(&examples());
    let mut meters = Vec::new();
    let mut meter = |pool: &str, model: &str| {
        meters.push(format!("{pool} {model}"));
        Arc::new(Meter::default())
    };
    let (snapshot, report) = build(&config, &Names::default(), &mut Registry::default(), &mut meter, 7);
    assert!(report.ok(), "{}", crate::check::render(&report));
    assert_eq!(report.diagnostics.iter().filter(|d| d.severity == Severity::Warning).count(), 0);
    assert_eq!(snapshot.generation, 7);

    let listener = listener(&snapshot, "llm-gw");
    let bound: Vec<String> = listener.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(bound, ["0.0.0.0:8080", "[::]:8080"]);
    assert_eq!(listener.client.buffer_limit, 20 << 20);
    assert_eq!(listener.client.stream_idle_timeout, Duration::from_secs(86_400));

    assert_eq!(listener.matches.len(), 2);
    for (made, model, to) in
        [(&listener.matches[0], "qwen", "qwen-pool"), (&listener.matches[1], "deepseek-r1", "deepseek-pool")]
    {
        let (name, value) = &made.headers[0];
        assert_eq!(name, "x-gateway-model-name");
        assert!(matches!(value, ValueMatch::Exact(value) if **value == *model));
        assert_eq!(targets(made), [to]);
        assert_eq!(made.rule.traffic.request_timeout, Some(Duration::from_secs(86_400)));
        assert_eq!(made.rule.traffic.stream_idle_timeout, Duration::from_secs(86_400));
    }

    let qwen = pool(&snapshot, "qwen-pool");
    assert_eq!(addresses(qwen), ["127.0.0.1:9001", "127.0.0.1:9002"]);
    let model = &qwen.models["qwen"];
    assert_eq!(model.criticality, Criticality::Critical);
    assert_eq!(model.targets, [ModelTarget { name: "qwen".into(), weight: 100 }]);
    assert_eq!(addresses(pool(&snapshot, "deepseek-pool")), ["127.0.0.1:9003", "127.0.0.1:9004"]);
    meters.sort();
    let wanted = [
        " ",
        "default/deepseek-pool deepseek-r1",
        "default/deepseek-pool other",
        "default/qwen-pool other",
        "default/qwen-pool qwen",
    ];
    assert_eq!(meters, wanted);
}

#[test]
fn a_reload_keeps_the_endpoints_that_stay() {
    let config = parse(&examples());
    let mut registry = Registry::default();
    let mut meter = |_: &str, _: &str| Arc::new(Meter::default());
    let (first, _) = build(&config, &Names::default(), &mut registry, &mut meter, 1);
    let (second, _) = build(&config, &Names::default(), &mut registry, &mut meter, 2);
    let one = |snapshot: &Snapshot| pool(snapshot, "qwen-pool").endpoints[0].clone();
    assert!(Arc::ptr_eq(&one(&first), &one(&second)));
}

#[test]
fn without_the_endpoints_file_check_says_what_is_missing() {
    let mut loaded = examples();
    loaded.texts.retain(|text| !text.name.ends_with("endpoints.yaml"));
    let config = parse(&loaded);
    let mut meter = |_: &str, _: &str| Arc::new(Meter::default());
    let (_, report) = build(&config, &Names::default(), &mut Registry::default(), &mut meter, 1);
    let missing = report.diagnostics.iter().filter(|d| d.message.starts_with("no ready endpoint"));
    assert_eq!(missing.count(), 2);
}
