//! The gateway's own `/v1/models`: the names that would be routed, no more.
//!
//! Every name that rules, pools or engines know is tried as a chat request of the same client would be; what
//! would end at an endpoint is listed. A cold path: it allocates.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Response};
use serde_json::{Value, json};

use super::{Asked, Routes, choose, exact_model, matches};
use crate::endpoint::Endpoint;
use crate::failure::{Dialect, Failure, Reason};
use crate::inspect::{self, decoded};
use crate::snapshot::Match;

const LIST: &str = "/v1/models";
/// The call that a listed model can be used with.
const PROBE: &str = "/v1/chat/completions";

/// Answers a request for the models; `None` where it is none, or where a rule names its path.
#[must_use]
pub fn answer(routes: &Routes, parts: &Parts) -> Option<Result<Response<Bytes>, Failure>> {
    let wanted = wanted(&parts.method, parts.uri.path())?;
    let dialect = inspect::dialect(parts);
    let asked = Asked::new(parts, None);
    if routes.find(&asked).is_ok_and(|matched| !matches::path_holds(&matched.path, "/")) {
        return None;
    }
    Some(match wanted {
        Wanted::List => Ok(json_response(&list(&models(routes, &asked), dialect))),
        Wanted::One(id) if is_routed(routes, &asked, &id) => Ok(json_response(&card(&id, dialect))),
        Wanted::One(id) => Err(Failure::new(
            Reason::ModelNotFound,
            format!("the model \"{}\" is not served here; GET {LIST} lists what is", shortened(&id)),
        )),
    })
}

/// The models that a client who sends this host and these headers can use, sorted.
#[must_use]
pub fn models(routes: &Routes, asked: &Asked<'_>) -> Vec<Box<str>> {
    let served: Vec<_> = routes.known.endpoints.iter().map(|endpoint| endpoint.served.models()).collect();
    let mut names: BTreeSet<&str> = routes.known.names.iter().map(|name| &**name).collect();
    names.extend(served.iter().flat_map(|models| models.iter()).map(|name| &**name));
    names.into_iter().filter(|name| is_routed(routes, asked, name)).map(Into::into).collect()
}

/// Who knows models behind one listener: the half of the list that changes with the manifests alone.
#[derive(Debug)]
pub(super) struct Known {
    /// Named by rules and by the models of pools.
    names: HashSet<Box<str>>,
    /// Each once; what they serve may change at any time.
    endpoints: Vec<Arc<Endpoint>>,
}

impl Known {
    pub(super) fn new(entries: &[Match]) -> Self {
        let mut names: HashSet<Box<str>> = entries.iter().filter_map(exact_model).map(Into::into).collect();
        let pools: HashMap<_, _> = entries
            .iter()
            .flat_map(|entry| choose::pools(&entry.rule))
            .map(|pool| (Arc::as_ptr(pool), pool))
            .collect();
        let mut endpoints = HashMap::new();
        for pool in pools.values() {
            names.extend(pool.models.keys().cloned());
            endpoints.extend(pool.endpoints.iter().map(|endpoint| (Arc::as_ptr(endpoint), endpoint)));
        }
        Self { names, endpoints: endpoints.into_values().cloned().collect() }
    }
}

enum Wanted<'p> {
    List,
    /// Ids may hold slashes, escaped or not.
    One(Cow<'p, str>),
}

fn wanted<'p>(method: &Method, path: &'p str) -> Option<Wanted<'p>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    match path.strip_prefix(LIST)? {
        "" | "/" => Some(Wanted::List),
        rest => {
            let id = rest.strip_prefix('/')?;
            Some(Wanted::One(match decoded(id) {
                Cow::Borrowed(_) => Cow::Borrowed(id),
                Cow::Owned(id) => Cow::Owned(String::from_utf8(id).ok()?),
            }))
        }
    }
}

/// The dry run: whether a chat request for the model would end at an endpoint. A name that engines alone know must
/// reach a pool of theirs.
fn is_routed(routes: &Routes, asked: &Asked<'_>, model: &str) -> bool {
    let chat = Asked { method: &Method::POST, path: PROBE, query: None, model: Some(model), ..*asked };
    let Ok(matched) = routes.find(&chat) else { return false };
    let named = routes.known.names.contains(model);
    matched.rule.filters.redirect.is_none()
        && choose::pools(&matched.rule).any(|pool| {
            let mut endpoints = pool.endpoints.iter();
            let known_there = match named {
                true => endpoints.next().is_some(),
                false => endpoints.any(|endpoint| endpoint.served.has(model)),
            };
            known_there && choose::serves(pool, model)
        })
}

fn list(models: &[Box<str>], dialect: Dialect) -> Value {
    let cards: Vec<_> = models.iter().map(|id| card(id, dialect)).collect();
    match dialect {
        Dialect::OpenAi => json!({ "object": "list", "data": cards }),
        Dialect::Anthropic => json!({
            "data": cards,
            "has_more": false,
            "first_id": models.first(),
            "last_id": models.last(),
        }),
    }
}

/// Nobody told the gateway when a model was made: the epoch, as Anthropic's reference says for unknown dates.
fn card(id: &str, dialect: Dialect) -> Value {
    match dialect {
        Dialect::OpenAi => json!({ "id": id, "object": "model", "created": 0, "owned_by": "penstock" }),
        Dialect::Anthropic => json!({
            "type": "model",
            "id": id,
            "display_name": id,
            "created_at": "1970-01-01T00:00:00Z",
        }),
    }
}

fn json_response(body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An id from a path is not bounded as a model from a body is.
fn shortened(id: &str) -> &str {
    &id[..id.floor_char_boundary(256)]
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use http::Request;

    use super::*;
    use crate::route::Table;
    use crate::route::fixtures::*;
    use crate::snapshot::{Hostname, PathMatch, Pool};

    fn get(path: &str) -> Parts {
        Request::get(path).header("host", "h").body(()).unwrap().into_parts().0
    }

    fn table(matches: Vec<Match>) -> Table {
        Table::new(&[listener(Hostname::Any, matches)])
    }

    fn ask(table: &Table, path: &str, dialect: Dialect) -> Option<Result<Value, Reason>> {
        let mut parts = get(path);
        if dialect == Dialect::Anthropic {
            parts.headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        }
        let answer = answer(&table.all()[0], &parts)?;
        Some(match answer {
            Ok(response) => Ok(serde_json::from_slice(response.body()).unwrap()),
            Err(failure) => Err(failure.reason),
        })
    }

    fn listed(table: &Table) -> Vec<String> {
        let body = ask(table, "/v1/models", Dialect::OpenAi).unwrap().unwrap();
        body["data"].as_array().unwrap().iter().map(|card| card["id"].as_str().unwrap().to_owned()).collect()
    }

    fn catch_all(pool: &Arc<Pool>) -> Match {
        any_to(rule(vec![destination(pool, 1)]))
    }

    #[test]
    fn only_names_that_would_end_at_an_endpoint_are_listed() {
        let mut pool_ = pool("p", 1);
        let named = Arc::get_mut(&mut pool_).unwrap();
        named.models.insert("named".into(), model("named", &[("target", 1)]));
        named.models.insert("reserved".into(), model("reserved", &[("x", 0)]));
        let weightless = Match {
            headers: vec![exact_header("x-gateway-model-name", "weightless")],
            ..any_to(rule(vec![destination(&pool_, 0)]))
        };
        let on_other_path =
            Match { path: PathMatch::Prefix("/v1/embeddings".into()), ..to_model("embedder", &pool_) };
        let matches = vec![
            on_other_path,
            to_model("qwen", &pool_),
            to_model("empty", &pool("empty", 0)),
            to_model("broken", &pool_).into_broken(),
            weightless,
            to_model("named", &pool_),
        ];
        assert_eq!(listed(&table(matches)), ["named", "qwen"]);
    }

    trait IntoBroken {
        fn into_broken(self) -> Self;
    }

    impl IntoBroken for Match {
        fn into_broken(self) -> Self {
            Match { rule: Arc::new(rule(vec![invalid("no such pool", 1)])), ..self }
        }
    }

    #[test]
    fn what_engines_report_is_listed_where_it_is_routed_to_them() {
        let (a, b) = (pool("a", 2), pool("b", 1));
        a.endpoints[1].served.publish(vec!["lora".into(), "base".into()]);
        b.endpoints[0].served.publish(vec!["elsewhere".into()]);
        let by_path = Match { path: PathMatch::Prefix("/b".into()), ..catch_all(&b) };
        assert_eq!(listed(&table(vec![by_path, catch_all(&a)])), ["base", "lora"]);
        assert!(listed(&table(vec![to_model("x", &pool("c", 0))])).is_empty());
    }

    #[test]
    fn a_model_is_found_by_an_id_with_slashes_escaped_or_not() {
        let table = table(vec![to_model("Qwen/Qwen3 8B", &pool("p", 1))]);
        for path in ["/v1/models/Qwen/Qwen3%208B", "/v1/models/Qwen%2FQwen3%208B"] {
            let card = ask(&table, path, Dialect::OpenAi).unwrap().unwrap();
            assert_eq!(card["id"], "Qwen/Qwen3 8B");
            assert_eq!(card["object"], "model");
        }
        for path in ["/v1/models/qwen", "/v1/models/Qwen"] {
            assert_eq!(ask(&table, path, Dialect::OpenAi), Some(Err(Reason::ModelNotFound)), "{path}");
        }
        let long = format!("/v1/models/x{}", "%C3%A9".repeat(500));
        assert_eq!(ask(&table, &long, Dialect::OpenAi), Some(Err(Reason::ModelNotFound)));
    }

    #[test]
    fn anthropics_clients_get_their_own_shape() {
        let table = table(vec![to_model("a", &pool("p", 1)), to_model("b", &pool("p", 1))]);
        let body = ask(&table, "/v1/models?limit=5", Dialect::Anthropic).unwrap().unwrap();
        assert_eq!((&body["first_id"], &body["last_id"]), (&json!("a"), &json!("b")));
        assert_eq!(body["has_more"], false);
        assert_eq!(body["data"][0]["type"], "model");
        assert_eq!(ask(&table, "/v1/models/b", Dialect::Anthropic).unwrap().unwrap()["display_name"], "b");
    }

    #[test]
    fn a_rule_that_names_the_path_gets_the_request() {
        let pool = pool("p", 1);
        let on = |path| Match { path, ..catch_all(&pool) };
        for (path, ours) in [
            (PathMatch::Prefix("".into()), true),
            (PathMatch::Regex(regex::Regex::new("^(?:.*)$").unwrap()), true),
            (PathMatch::Prefix("/v1".into()), false),
            (PathMatch::Exact("/v1/models".into()), false),
            (PathMatch::Regex(regex::Regex::new("^(?:/v1/.*)$").unwrap()), false),
            (PathMatch::Prefix("/v1/model".into()), true),
        ] {
            let shown = format!("{path:?}");
            let table = table(vec![on(path), to_model("m", &pool)]);
            assert_eq!(ask(&table, "/v1/models", Dialect::OpenAi).is_some(), ours, "{shown}");
        }
        let by_model = Match { path: PathMatch::Prefix("/v1".into()), ..to_model("m", &pool) };
        assert!(ask(&table(vec![by_model]), "/v1/models", Dialect::OpenAi).is_some());
    }

    /// A worker serves nobody else meanwhile: this takes milliseconds, also in a debug build on a busy host, where
    /// anything quadratic takes many seconds.
    #[test]
    fn thousands_of_models_of_a_large_pool_are_listed_at_once() {
        let mut pool_ = pool("p", 64);
        let named = Arc::get_mut(&mut pool_).unwrap();
        let names = |kind: &str| (0..1_500).map(|i| format!("{kind}-{i}").into()).collect::<Vec<Box<str>>>();
        for name in names("named") {
            named.models.insert(name.clone(), model(&name, &[]));
        }
        for endpoint in &named.endpoints[..2] {
            endpoint.served.publish(names("served"));
        }
        let mut matches: Vec<_> = names("rule").iter().map(|name| to_model(name, &pool_)).collect();
        matches.push(catch_all(&pool_));
        let table = table(matches);
        let since = Instant::now();
        assert_eq!(listed(&table).len(), 4_500);
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        let since = Instant::now();
        assert!(ask(&table, "/v1/models/served-1499", Dialect::OpenAi).unwrap().is_ok());
        assert!(ask(&table, "/v1/models/served-1500", Dialect::OpenAi).unwrap().is_err());
        assert!(since.elapsed() < Duration::from_millis(500), "{:?}", since.elapsed());
    }

    #[test]
    fn other_paths_and_methods_are_routed_as_any() {
        let table = table(vec![]);
        for path in ["/v1/modelsx", "/models", "/v2/models", "/", "/v1/models/%ff"] {
            assert!(ask(&table, path, Dialect::OpenAi).is_none(), "{path}");
        }
        let mut post = get("/v1/models");
        post.method = Method::POST;
        assert!(answer(&table.all()[0], &post).is_none());
    }
}
