//! Whether a path is one where an engine reads a model from the body.
//!
//! Engines decode percent-escapes before they route, and some servers in front of them merge slashes, resolve
//! dots or cut `;parameters`. All of that is done here for this question alone (routes match the raw path), so
//! that no spelling of an inference path passes unscanned.

use super::percent::decoded;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Engines read JSON here.
    Json,
    /// Engines read a form here, some JSON as well.
    Form,
    /// Engines read JSON here and choose a model where it names none: SageMaker's call.
    Optional,
    Other,
}

/// Last segments of inference paths, under any prefix. Not in it: SGLang's `generate`, llama.cpp's `completion`
/// and other native calls whose body has no model; their Content-Type decides.
const CALLS: [&str; 14] = [
    "completions",
    "responses",
    "embeddings",
    "messages",
    "rerank",
    "reranking",
    "score",
    "moderations",
    "tokenize",
    "detokenize",
    "pooling",
    "classify",
    "infill",
    "apply-template",
];

/// Calls below another one that carry its model as well.
const SUB_CALLS: [(&str, &str); 6] = [
    ("messages", "count_tokens"),
    ("responses", "compact"),
    ("responses", "input_tokens"),
    ("completions", "render"),
    ("completions", "batch"),
    ("completions", "input_tokens"),
];

/// SageMaker's name for whatever the engine does best.
const INVOCATIONS: &str = "invocations";
const FAMILIES: [&str; 2] = ["images", "audio"];
const FORMS: [&str; 4] = ["transcriptions", "translations", "edits", "variations"];

pub(super) fn place(path: &str) -> Place {
    let path = decoded(path);
    let mut segments = segments_from_end(&path);
    let Some(last) = segments.next() else { return Place::Other };
    let parent = segments.next().unwrap_or_default();
    let is = |segment: &[u8], name: &str| segment.eq_ignore_ascii_case(name.as_bytes());
    if FAMILIES.iter().any(|name| is(parent, name)) {
        return if FORMS.iter().any(|name| is(last, name)) { Place::Form } else { Place::Json };
    }
    if is(last, INVOCATIONS) {
        return Place::Optional;
    }
    let call = CALLS.iter().any(|name| is(last, name))
        || SUB_CALLS.iter().any(|(above, name)| is(parent, above) && is(last, name));
    if call { Place::Json } else { Place::Other }
}

/// The segments with dots resolved, last first. Walking backwards needs no memory: each `..` skips one.
fn segments_from_end(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut skip = 0_usize;
    path.rsplit(|byte| matches!(byte, b'/' | b'\\')).map(without_parameters).filter(move |segment| {
        match *segment {
            b"" | b"." => false,
            b".." => {
                skip += 1;
                false
            }
            _ if skip > 0 => {
                skip -= 1;
                false
            }
            _ => true,
        }
    })
}

/// Up to the first byte at which some server stops reading a segment.
fn without_parameters(segment: &[u8]) -> &[u8] {
    let end = segment.iter().position(|byte| matches!(byte, 0..=b' ' | b';' | b'?' | b'#'));
    &segment[..end.unwrap_or(segment.len())]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn calls_are_inference_under_any_prefix() {
        for path in [
            "/v1/chat/completions",
            "/completions",
            "/v1/completions",
            "/openai/v1/responses",
            "/openai/deployments/x/embeddings",
            "/api/v1/messages",
            "/v1/messages/count_tokens",
            "/v1/responses/compact",
            "/v1/chat/completions/render",
            "/v2/rerank",
            "/score",
            "/v1/moderations",
            "/tokenize",
            "/detokenize",
            "/pooling",
            "/classify",
            "/infill",
            "/apply-template",
            "/v1/images/generations",
            "/v1/audio/speech",
        ] {
            assert_eq!(place(path), Place::Json, "{path}");
        }
        assert_eq!(place("/v1/audio/transcriptions"), Place::Form);
        assert_eq!(place("/v1/images/edits"), Place::Form);
    }

    #[test]
    fn calls_without_a_model_of_their_own_are_not() {
        for path in [
            "/",
            "*",
            "/v1/models",
            "/generate",
            "/completion",
            "/v1/files",
            "/v1/batches",
            "/v1/messages/batches",
            "/v1/responses/resp_1/cancel",
            "/v1/chat/completions/chatcmpl-1",
            "/v1/chat%252Fcompletions",
            "/v1/chat/completionsx",
            "/v1/xcompletions",
            "/v1/count_tokens",
            "/v1/images",
            "/v1/completions/..",
            "/completions/../../x",
        ] {
            assert_eq!(place(path), Place::Other, "{path}");
        }
    }

    #[test]
    fn no_spelling_of_an_inference_path_passes_unscanned() {
        for path in [
            "/v1/chat%2Fcompletions",
            "/v1/%63hat/completions",
            "/v1/chat/%63%6f%6D%70letions",
            "//v1///chat//completions",
            "/v1/chat/completions/",
            "/v1/chat/completions//",
            "/v1/./chat/./completions/.",
            "/v1/x/../chat/completions",
            "/v1/chat/completions/x/..",
            "/v1/chat/completions/x/y/%2e%2e/..",
            "/v1/chat/completions;jsessionid=1",
            "/v1/chat;x/completions;/",
            "/v1/chat/completions%3Bx",
            "/v1/chat/completions%3Fx=1",
            "/v1/chat/completions%00",
            "/v1/chat/completions%20",
            "/v1\\chat\\completions",
            "/v1/chat%5Ccompletions",
            "/V1/Chat/Completions",
            "/../../v1/embeddings",
        ] {
            assert_eq!(place(path), Place::Json, "{path}");
        }
    }

    /// The obvious way to resolve dots: forward, on a stack.
    fn stacked(path: &str) -> Vec<&[u8]> {
        let mut stack = Vec::new();
        for segment in path.split('/') {
            match segment {
                "" | "." => {}
                ".." => _ = stack.pop(),
                _ => stack.push(segment.as_bytes()),
            }
        }
        stack.reverse();
        stack
    }

    proptest! {
        #[test]
        fn walking_backwards_finds_what_a_stack_finds(path in "(/(a|b|\\.|\\.\\.|)){0,12}") {
            // Above the root `..` means nothing to the stack; walking backwards it may eat nothing either.
            prop_assert_eq!(segments_from_end(path.as_bytes()).collect::<Vec<_>>(), stacked(&path));
        }
    }
}
