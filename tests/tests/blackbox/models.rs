//! `/v1/models`, answered by the gateway: what would route, and nothing else.

use std::time::{Duration, Instant};

use penstock_tests::client::get;
use penstock_tests::engine::Engine;
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests::{engines, gateway, model, pool, qwen, route, rule};
use serde_json::Value;

fn ids(list: &Value) -> Vec<&str> {
    let mut ids: Vec<&str> =
        list["data"].as_array().into_iter().flatten().filter_map(|model| model["id"].as_str()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn the_models_of_all_pools_are_listed_together() {
    let engine = Engine::start("qwen-a").await;
    let manifests = qwen(&[&engine])
        + &pool("other")
        + &model("deepseek-r1", "other", &[])
        + &model("org/name:tag", "other", &[])
        + &engines("other", &[&engine]);
    let gateway = Gateway::start(manifests).await;
    let answer = get(gateway.address, "/v1/models").await;
    let list = answer.json();
    assert_eq!((answer.status(), &list["object"]), (200, &"list".into()));
    assert_eq!(list["data"][0]["object"], "model");
    assert_eq!(ids(&list), ["deepseek-r1", "org/name:tag", "qwen"]);
    assert_eq!(get(gateway.address, "/v1/models/qwen").await.json()["id"], "qwen");
    assert_eq!(get(gateway.address, "/v1/models/org/name:tag").await.json()["id"], "org/name:tag");
    let unknown = get(gateway.address, "/v1/models/gpt-9").await;
    assert_eq!(unknown.verdict(), (404, Some("model_not_found")));
    assert!(engine.posts().is_empty());
}

#[tokio::test]
async fn a_model_that_no_rule_reaches_is_not_listed() {
    let engine = Engine::start("qwen-a").await;
    let manifests = gateway()
        + &pool("qwen")
        + &model("qwen", "qwen", &[])
        + &model("hidden", "qwen", &[])
        + &engines("qwen", &[&engine])
        + &route("only-qwen", &rule("qwen", &[("qwen", 1)]));
    let gateway = Gateway::start(manifests).await;
    assert_eq!(ids(&get(gateway.address, "/v1/models").await.json()), ["qwen"]);
}

#[tokio::test]
async fn a_rule_that_names_the_path_takes_it() {
    let engine = Engine::start("qwen-a").await;
    let rules = "- matches: [{path: {type: Exact, value: /v1/models}}]
  backendRefs: [{group: inference.networking.x-k8s.io, kind: InferencePool, name: qwen}]";
    let manifests = gateway() + &pool("qwen") + &engines("qwen", &[&engine]) + &route("models", rules);
    let gateway = Gateway::start(manifests).await;
    assert_eq!(get(gateway.address, "/v1/models").await.json()["data"][0]["owned_by"], "qwen-a");
}

#[tokio::test]
async fn fifteen_hundred_models_are_looked_up_at_once() {
    let engine = Engine::start("qwen-a").await;
    let many: String = (0..1500).map(|at| model(&format!("model-{at}"), "qwen", &[])).collect();
    let gateway = Gateway::start(gateway() + &pool("qwen") + &engines("qwen", &[&engine]) + &many).await;
    // The quickest of a few: other tests run beside this one.
    let quickest = async |path: &str| {
        let mut times = Vec::new();
        for _ in 0..3 {
            let since = Instant::now();
            assert_eq!(get(gateway.address, path).await.status(), 200, "{path}");
            times.push(since.elapsed());
        }
        times.into_iter().min().unwrap_or_default()
    };
    assert_eq!(ids(&get(gateway.address, "/v1/models").await.json()).len(), 1500);
    for path in ["/v1/models/model-1499", "/v1/models"] {
        let took = quickest(path).await;
        assert!(took < Duration::from_secs(1), "{path} took {took:?}");
    }
}
