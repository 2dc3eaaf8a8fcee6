//! From the model in the body to an engine, and what the engine is sent.

use penstock_tests::client::{CHAT, ask, chat, get, post, post_with};
use penstock_tests::engine::Engine;
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests::{engines, gateway, model, pool, qwen, route, rule};

use crate::one_engine;

/// What engines are told of the model.
const MODEL_FIELD: &str = "x-gateway-model-name";

#[tokio::test]
async fn a_rewrite_changes_the_bytes_of_the_model_alone() {
    let engine = Engine::start("qwen-a").await;
    let targets = [("qwen-2.5-instruct-a-much-longer-name", 1)];
    let manifests =
        gateway() + &pool("qwen") + &model("chat", "qwen", &targets) + &engines("qwen", &[&engine]);
    let gateway = Gateway::start(manifests).await;
    let bodies = [
        r#"{"model":"chat"}"#,
        // Seeds of more than 64 bits, numbers with odd spellings, order and white space are the client's.
        "{ \"seed\" : 123456789012345678901234567890, \"t\":1.0e0,\r\n\t\"model\" :  \"chat\" ,\"z\":[\"model\"]}\n",
        // Spelled with escapes, key and value.
        r#"{"a":{"model":"x"},"m\u006fdel":"c\u0068at","b":"\"model\":\"chat\""}"#,
    ];
    for (at, body) in bodies.into_iter().enumerate() {
        let answer = ask(gateway.address, post(CHAT, body)).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let seen = engine.post(at).await;
        let target = format!("\"{}\"", targets[0].0);
        let spelled = if body.contains(r#""c\u0068at""#) { r#""c\u0068at""# } else { "\"chat\"" };
        // The last body holds the name in a string too, later: only the first place is the model's.
        let expected = body.replacen(spelled, &target, 1);
        assert_eq!(String::from_utf8_lossy(&seen.body), expected);
        assert_eq!(seen.head.field("content-length"), Some(expected.len().to_string().as_str()));
        assert_eq!(seen.head.all(MODEL_FIELD), ["chat"], "the client's name, never the target");
    }
}

#[tokio::test]
async fn without_a_rewrite_every_byte_is_kept() {
    let (engine, gateway) = one_engine().await;
    let bodies = [
        "{ \"model\"\t:\n\"qwen\", \"x\": [1e300, -0.0, \"\\ud83d\\ude00\", {\"\": null}] }\n".to_owned(),
        r#"{"m\u006Fdel":"qw\u0065n","stop":["\u0000"]}"#.to_owned(),
        format!(r#"{{"messages":"{}","model":"qwen"}}"#, "é漢🦀 ".repeat(2000)),
    ];
    for (at, body) in bodies.iter().enumerate() {
        let answer = ask(gateway.address, post(CHAT, body)).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(String::from_utf8_lossy(&engine.post(at).await.body), *body);
    }
}

#[tokio::test]
async fn the_model_field_is_penstocks_own() {
    let (engine, gateway) = one_engine().await;
    let forged = "X-Gateway-Model-Name: deepseek\r\nx-gateway-model-name: other\r\n\
                  X-Gateway-Destination-Endpoint: 10.0.0.1:80\r\n";
    assert_eq!(ask(gateway.address, post_with(CHAT, forged, chat("qwen"))).await.status(), 200);
    let seen = engine.post(0).await;
    assert_eq!(seen.head.all(MODEL_FIELD), ["qwen"]);
    assert_eq!(seen.head.field("x-gateway-destination-endpoint"), None);
}

#[tokio::test]
async fn a_model_name_beyond_ascii_is_percent_encoded_in_the_field() {
    let engine = Engine::start("qwen-a").await;
    let manifests = gateway() + &pool("qwen") + &model("qwén 2", "qwen", &[]) + &engines("qwen", &[&engine]);
    let gateway = Gateway::start(manifests).await;
    assert_eq!(ask(gateway.address, post(CHAT, chat("qwén 2"))).await.status(), 200);
    assert_eq!(engine.post(0).await.head.all(MODEL_FIELD), ["qw%C3%A9n%202"]);
}

#[tokio::test]
async fn weights_share_a_rule_among_pools() {
    let [a, b, c] = ["a", "b", "c"].map(Engine::start);
    let (a, b, c) = (a.await, b.await, c.await);
    let manifests = gateway()
        + &pool("heavy")
        + &pool("light")
        + &pool("none")
        + &engines("heavy", &[&a])
        + &engines("light", &[&b])
        + &engines("none", &[&c])
        + &route("weighted", &rule("qwen", &[("heavy", 9), ("light", 1), ("none", 0)]));
    let gateway = Gateway::start(manifests).await;
    for _ in 0..200 {
        assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
    }
    let (heavy, light) = (a.posts().len(), b.posts().len());
    // 20 expected; outside of this lies less than one run in a million.
    assert!((3..=50).contains(&light) && heavy + light == 200, "{heavy} to {light}");
    assert!(c.posts().is_empty());
}

#[tokio::test]
async fn targets_of_a_model_share_by_weight() {
    let engine = Engine::start("qwen-a").await;
    let targets = [("often", 9), ("seldom", 1)];
    let manifests =
        gateway() + &pool("qwen") + &model("chat", "qwen", &targets) + &engines("qwen", &[&engine]);
    let gateway = Gateway::start(manifests).await;
    for _ in 0..200 {
        assert_eq!(ask(gateway.address, post(CHAT, chat("chat"))).await.status(), 200);
    }
    let count = |name: &str| {
        engine.posts().iter().filter(|seen| String::from_utf8_lossy(&seen.body).contains(name)).count()
    };
    let (often, seldom) = (count("\"often\""), count("\"seldom\""));
    assert!((3..=50).contains(&seldom) && often + seldom == 200, "{often} to {seldom}");
}

#[tokio::test]
async fn paths_headers_and_hosts_choose_the_rule() {
    let [a, b, c] = ["by-path", "by-header", "by-model"].map(Engine::start);
    let (a, b, c) = (a.await, b.await, c.await);
    let refs = |name| {
        format!(
            "  backendRefs: [{{group: inference.networking.x-k8s.io, kind: InferencePool, name: {name}}}]\n"
        )
    };
    let rules = rule("qwen", &[("model", 1)])
        + "- matches: [{path: {type: PathPrefix, value: /special}}]\n"
        + &refs("path")
        + "- matches: [{headers: [{name: X-Team, value: red}, {name: X-Gateway-Model-Name, value: qwen}]}]\n"
        + &refs("header");
    let manifests = gateway()
        + &pool("path")
        + &pool("header")
        + &pool("model")
        + &engines("path", &[&a])
        + &engines("header", &[&b])
        + &engines("model", &[&c])
        + &route("mixed", &rules);
    let gateway = Gateway::start(manifests).await;
    let content = async |request: Vec<u8>| ask(gateway.address, request).await.content();
    assert_eq!(content(post("/special/v1/chat/completions", chat("qwen"))).await, "I am by-path");
    assert_eq!(content(post_with(CHAT, "x-team: red\r\n", chat("qwen"))).await, "I am by-header");
    assert_eq!(content(post_with(CHAT, "x-team: blue\r\n", chat("qwen"))).await, "I am by-model");
    let no_prefix = ask(gateway.address, post("/specially/v1/chat/completions", chat("other"))).await;
    assert_eq!(no_prefix.status(), 404);
}

#[tokio::test]
async fn filters_edit_heads_and_paths() {
    let engine = Engine::start("qwen-a").await;
    let rules = "- matches: [{path: {type: PathPrefix, value: /api}}]
  filters:
  - type: RequestHeaderModifier
    requestHeaderModifier: {set: [{name: X-Set, value: new}], add: [{name: X-Add, value: more}], remove: [X-Gone]}
  - type: ResponseHeaderModifier
    responseHeaderModifier: {set: [{name: X-Answer, value: edited}], remove: [X-Engine]}
  - type: URLRewrite
    urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /v1}}
  backendRefs: [{group: inference.networking.x-k8s.io, kind: InferencePool, name: qwen}]
- matches: [{path: {type: Exact, value: /old}}]
  filters:
  - type: RequestRedirect
    requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /new}, statusCode: 301}";
    let manifests = gateway() + &pool("qwen") + &engines("qwen", &[&engine]) + &route("edits", rules);
    let gateway = Gateway::start(manifests).await;
    let fields = "X-Set: old\r\nX-Add: one\r\nX-Gone: gone\r\n";
    let answer = ask(gateway.address, post_with("/api/chat/completions?a=b", fields, chat("qwen"))).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!((answer.head.field("x-answer"), answer.head.field("x-engine")), (Some("edited"), None));
    let seen = engine.post(0).await;
    assert_eq!(seen.path(), "/v1/chat/completions?a=b");
    assert_eq!(seen.head.all("x-set"), ["new"]);
    assert_eq!(seen.head.all("x-add").join(", "), "one, more");
    assert_eq!(seen.head.field("x-gone"), None);
    let moved = get(gateway.address, "/old").await;
    assert_eq!(moved.status(), 301);
    let place = moved.head.field("location").unwrap_or_default();
    assert!(place.ends_with("/new") && place.starts_with("http://penstock.test"), "{place}");
}

#[tokio::test]
async fn an_engine_learns_who_asked_and_by_which_way() {
    let (engine, gateway) = one_engine().await;
    let fields = "X-Forwarded-For: 9.9.9.9\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nAuthorization: Bearer k\r\n\
                  X-Request-Id: mine-1\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    let answer = ask(gateway.address, post_with(CHAT, fields, chat("qwen"))).await;
    assert_eq!(answer.status(), 200);
    let seen = engine.post(0).await;
    let head = &seen.head;
    assert_eq!(head.field("host"), Some("penstock.test"));
    let forwarded = head.all("x-forwarded-for").join(", ");
    assert!(forwarded.ends_with("127.0.0.1"), "{forwarded}");
    assert_eq!(head.field("x-forwarded-proto"), Some("http"));
    assert_eq!(head.field("x-forwarded-host"), Some("penstock.test"));
    assert!(head.field("via").is_some_and(|via| via.contains("1.1")), "{:?}", head.field("via"));
    assert_eq!(head.field("x-hop"), None, "named by Connection");
    assert_eq!(head.field("authorization"), Some("Bearer k"));
    assert_eq!(head.field("x-request-id"), Some("mine-1"));
    assert!(head.field("traceparent").is_some_and(|t| t.contains("0af7651916cd43dd8448eb211c80319c")));
}

#[tokio::test]
async fn a_request_without_an_id_is_given_one() {
    let (engine, gateway) = one_engine().await;
    for _ in 0..2 {
        assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
    }
    let (first, second) = (engine.post(0).await, engine.post(1).await);
    let id = first.head.field("x-request-id");
    assert!(id.is_some_and(|id| id.len() >= 16), "{id:?}");
    assert_ne!(id, second.head.field("x-request-id"));
    assert!(first.head.field("traceparent").is_some_and(|t| t.starts_with("00-") && t.len() == 55));
}

#[tokio::test]
async fn other_paths_are_routed_without_a_model() {
    let engine = Engine::start("qwen-a").await;
    let rules = "- backendRefs: [{group: inference.networking.x-k8s.io, kind: InferencePool, name: qwen}]";
    let gateway =
        Gateway::start(gateway() + &pool("qwen") + &engines("qwen", &[&engine]) + &route("all", rules)).await;
    assert_eq!(get(gateway.address, "/metrics").await.json()["path"], "/metrics");
    let text = "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\n{\"model\":";
    assert_eq!(ask(gateway.address, text).await.status(), 400, "the engine's own 400: not scanned here");
    let seen = engine.post(0).await;
    assert_eq!((seen.body.as_slice(), seen.head.field(MODEL_FIELD)), (&b"{\"model\":"[..], None));
    // An inference path without a rule for its model still has the catch-all.
    let answer = ask(gateway.address, post("/any/prefix/v1/embeddings", r#"{"model":"bge"}"#)).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(engine.post(1).await.head.all(MODEL_FIELD), ["bge"]);
}

#[tokio::test]
async fn an_unknown_model_is_404_in_the_words_of_the_api() {
    let engine = Engine::start("qwen-a").await;
    let gateway = Gateway::start(qwen(&[&engine])).await;
    let answer = ask(gateway.address, post(CHAT, chat("gpt-9"))).await;
    assert_eq!(answer.verdict(), (404, Some("model_not_found")));
    assert_eq!(answer.json()["error"]["code"], "model_not_found");
    assert!(engine.posts().is_empty());
}
