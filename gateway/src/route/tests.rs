use http::Request;
use proptest::prelude::*;
use regex::Regex;

use super::fixtures::*;
use super::*;
use crate::snapshot::{Hostname, PathMatch};

fn chat(host: &str) -> Parts {
    let request = Request::post("/v1/chat/completions?x=1").header("host", host);
    request.body(()).unwrap().into_parts().0
}

fn routed(table: &Table, parts: &Parts, model: Option<&str>) -> Result<String, Reason> {
    let asked = Asked::new(parts, model);
    let routed = table.listener(asked.host).and_then(|routes| routes.route(&asked));
    match routed.map_err(|failure| failure.reason)?.action {
        Action::Forward(forward) => Ok(forward.pool.name.name.to_string()),
        Action::Redirect(_) => Ok("redirect".into()),
    }
}

/// The listener of the reference document.
fn two_models() -> Table {
    let matches =
        vec![to_model("qwen", &pool("qwen-pool", 2)), to_model("deepseek-r1", &pool("deepseek-pool", 2))];
    Table::new(&[listener(Hostname::Any, matches)])
}

#[test]
fn each_model_reaches_its_pool() {
    let (table, parts) = (two_models(), chat("localhost:8080"));
    assert_eq!(routed(&table, &parts, Some("qwen")), Ok("qwen-pool".into()));
    assert_eq!(routed(&table, &parts, Some("deepseek-r1")), Ok("deepseek-pool".into()));
}

#[test]
fn an_unknown_model_and_an_unknown_path_are_told_apart() {
    let (table, parts) = (two_models(), chat("localhost"));
    for unknown in ["Qwen", "qwen ", "qwen2", "", "*"] {
        assert_eq!(routed(&table, &parts, Some(unknown)), Err(Reason::ModelNotFound), "{unknown}");
    }
    assert_eq!(routed(&table, &parts, None), Err(Reason::NoRoute));
}

#[test]
fn a_name_outside_ascii_is_matched_as_the_manifest_spells_it() {
    let table = Table::new(&[listener(Hostname::Any, vec![to_model("千问 50%", &pool("p", 1))])]);
    assert_eq!(routed(&table, &chat("h"), Some("千问 50%")), Ok("p".into()));
    assert_eq!(routed(&table, &chat("h"), Some("%E5%8D%83%E9%97%AE%2050%25")), Err(Reason::ModelNotFound));
}

#[test]
fn the_model_is_never_taken_from_a_header() {
    let mut parts = chat("localhost");
    parts.headers.insert(MODEL_HEADER, http::HeaderValue::from_static("qwen"));
    assert_eq!(routed(&two_models(), &parts, None), Err(Reason::NoRoute));
    assert_eq!(routed(&two_models(), &parts, Some("deepseek-r1")), Ok("deepseek-pool".into()));
}

#[test]
fn the_listener_with_the_most_specific_hostname_answers() {
    let to = |name: &str| vec![any_to(rule(vec![destination(&pool(name, 1), 1)]))];
    let table = Table::new(&[
        listener(Hostname::Suffix(".com".into()), to("com")),
        listener(Hostname::Suffix(".example.com".into()), to("wildcard")),
        listener(Hostname::Exact("api.example.com".into()), to("exact")),
    ]);
    assert_eq!(routed(&table, &chat("API.example.com:80"), None), Ok("exact".into()));
    assert_eq!(routed(&table, &chat("b.example.com"), None), Ok("wildcard".into()));
    assert_eq!(routed(&table, &chat("example.com"), None), Ok("com".into()));
    assert_eq!(routed(&table, &chat("example.org"), Some("m")), Err(Reason::NoRoute));
}

#[test]
fn the_authority_of_an_absolute_target_goes_before_host() {
    let table = Table::new(&[listener(Hostname::Exact("a.org".into()), vec![to_model("m", &pool("p", 1))])]);
    let parts = Request::get("http://A.org:8080/").header("host", "b.org").body(()).unwrap().into_parts().0;
    assert_eq!(routed(&table, &parts, Some("m")), Ok("p".into()));
}

#[test]
fn the_order_given_decides_between_matches_with_and_without_a_model() {
    let (first, named, last) = (pool("first", 1), pool("named", 1), pool("last", 1));
    let on = |path: &str, pool| Match {
        path: PathMatch::Prefix(path.into()),
        ..any_to(rule(vec![destination(pool, 1)]))
    };
    let matches = vec![on("/v1/chat", &first), to_model("m", &named), on("", &last)];
    let table = Table::new(&[listener(Hostname::Any, matches)]);
    assert_eq!(routed(&table, &chat("h"), Some("m")), Ok("first".into()));
    let other = Request::post("/v1/completions").body(()).unwrap().into_parts().0;
    assert_eq!(routed(&table, &other, Some("m")), Ok("named".into()));
    assert_eq!(routed(&table, &other, Some("n")), Ok("last".into()));
}

fn some_match() -> impl Strategy<Value = Match> {
    let header = prop_oneof![
        Just(None),
        "[ab]".prop_map(|model| Some(exact_header("x-gateway-model-name", &model))),
        Just(Some((MODEL_HEADER, ValueMatch::Regex(Regex::new("^(?:a|c)$").unwrap())))),
        Just(Some(exact_header("x-tier", "gold"))),
    ];
    let path = prop_oneof![
        Just(PathMatch::Prefix("".into())),
        "(/[xy]){1,2}".prop_map(|path| PathMatch::Prefix(path.into())),
        "(/[xy]){1,2}".prop_map(|path| PathMatch::Exact(path.into())),
    ];
    let hostname = prop_oneof![
        Just(Hostname::Any),
        Just(Hostname::Exact("a.b".into())),
        Just(Hostname::Suffix(".b".into())),
    ];
    (prop::collection::vec(header, 0..3), path, hostname).prop_map(|(headers, path, hostname)| Match {
        headers: headers.into_iter().flatten().collect(),
        path,
        hostname,
        ..any_to(rule(vec![]))
    })
}

proptest! {
    /// The obvious twin of the index: every match in order.
    #[test]
    fn the_index_finds_what_a_linear_search_finds(
        matches in prop::collection::vec(some_match(), 0..20),
        model in prop::option::of("[abc]"),
        path in "(/[xyz]){1,3}",
        host in prop::sample::select(vec!["a.b", "c.b", "b"]),
    ) {
        let mut parts = Request::get(path).header("host", host).body(()).unwrap().into_parts().0;
        parts.headers.insert("x-tier", http::HeaderValue::from_static("gold"));
        let asked = Asked::new(&parts, model.as_deref());
        let table = Table::new(&[listener(Hostname::Any, matches)]);
        let routes = table.listener(asked.host).unwrap();
        let linear = routes.listener.matches.iter().find(|entry| mismatch(entry, &asked).is_none());
        let found = routes.find(&asked).ok();
        prop_assert_eq!(found.map(std::ptr::from_ref), linear.map(std::ptr::from_ref));
    }
}
