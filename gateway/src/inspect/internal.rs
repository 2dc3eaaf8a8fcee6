//! The header fields that only the gateway may set, and the model's.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::percent;

/// Carries the model that the client asked for to header matches and to the engine.
pub const MODEL_HEADER: HeaderName = HeaderName::from_static("x-gateway-model-name");

/// What the names of internal fields start with, behind their `x`: X-Gateway-Model-Name and -Base-Model-Name, the endpoint
/// hints, objectives, fairness ids and rewrites of the endpoint-picker protocol in both spellings, and our own.
const INTERNAL: [&str; 4] = ["-gateway-", "-llm-d-", "-penstock-", "-slo-"];

/// Whether only the gateway may set this field. `X_Gateway_Model_Name` counts too: servers in the manner of
/// WSGI and CGI fold `-` and `_` into one.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    // Most names are none at their first letter.
    let [b'x' | b'X', name @ ..] = name.as_bytes() else { return false };
    INTERNAL.iter().any(|prefix| {
        name.get(..prefix.len()).is_some_and(|start| {
            start.iter().zip(prefix.bytes()).all(|(&byte, expected)| {
                byte.to_ascii_lowercase() == expected || (byte == b'_' && expected == b'-')
            })
        })
    })
}

/// Removes the client's own copy of every internal field, from a head or from trailers.
pub fn strip_internal(headers: &mut HeaderMap) {
    let found: Vec<HeaderName> = headers.keys().filter(|name| is_internal(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// The value of [`MODEL_HEADER`]: the decoded name, percent-encoded where it is not visible ASCII, and at `%`
/// itself, so that `a%20b` and `a b` stay two names.
#[must_use]
pub fn model_header(model: &str) -> HeaderValue {
    let value = Bytes::from(percent::encoded(model).into_owned());
    // Visible ASCII always is a field value.
    HeaderValue::from_maybe_shared(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_internal_field_goes_in_every_spelling_and_nothing_else() {
        let mut headers = HeaderMap::new();
        let internal = [
            "X-Gateway-Model-Name",
            "X-Gateway-Model-Name",
            "x_gateway_model_name",
            "X-Gateway-Base-Model-Name",
            "x-gateway-destination-endpoint",
            "x-gateway-destination_endpoint-subset",
            "x-gateway-inference-objective",
            "x-gateway-model-name-rewrite",
            "x-llm-d-inference-fairness-id",
            "x-llm_d-slo-ttft-ms",
            "x-slo-ttft-ms",
            "x-penstock-reason",
        ];
        let kept =
            ["x-gateway", "gateway-model-name", "x-request-id", "x-slow", "authorization", "x-api-key"];
        for name in internal.iter().chain(&kept) {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("v"));
        }
        strip_internal(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let mut kept = kept;
        kept.sort_unstable();
        assert_eq!(left, kept);
    }

    #[test]
    fn a_model_name_becomes_one_unambiguous_value() {
        for (model, value) in [
            ("Qwen/Qwen3-8B:latest", "Qwen/Qwen3-8B:latest"),
            ("a b", "a%20b"),
            ("a%20b", "a%2520b"),
            ("千问", "%E5%8D%83%E9%97%AE"),
        ] {
            assert_eq!(model_header(model), value);
        }
    }
}
