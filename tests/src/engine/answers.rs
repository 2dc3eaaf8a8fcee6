//! The words of a fake engine, in the shapes of the OpenAI and Anthropic APIs.

use serde_json::{Value, json};

use super::log::Seen;

/// What an answer is about.
pub(super) struct Question {
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) anthropic: bool,
}

pub(super) enum Answer {
    Json(u16, Value),
    /// The events of a stream, ready to send.
    Stream(Vec<String>),
}

/// The answer to a complete request.
pub(super) fn answer(name: &str, model: &str, words: &[String], seen: &Seen) -> Answer {
    let path = seen.path().split('?').next().unwrap_or_default();
    match (seen.method(), path) {
        ("GET" | "HEAD", "/health") => Answer::Json(200, json!({ "status": "ok" })),
        ("GET" | "HEAD", "/v1/models") => Answer::Json(
            200,
            json!({ "object": "list", "data": [{ "id": model, "object": "model", "created": 0, "owned_by": name }] }),
        ),
        ("POST", _) => match question(seen) {
            Some(question) if question.stream => Answer::Stream(events(&question, words)),
            Some(question) => Answer::Json(200, whole(&question, words)),
            None => Answer::Json(400, json!({ "error": { "message": "not JSON", "code": "bad_request" } })),
        },
        _ => Answer::Json(200, json!({ "engine": name, "path": path })),
    }
}

fn question(seen: &Seen) -> Option<Question> {
    let anthropic = seen.path().contains("/messages");
    let form = seen.head.field("content-type").is_some_and(|t| t.starts_with("multipart/"));
    if form {
        return Some(Question { model: "(form)".into(), stream: false, anthropic });
    }
    let body: Value = serde_json::from_slice(&seen.body).ok()?;
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    Some(Question { model, stream: body["stream"] == true, anthropic })
}

fn usage(words: &[String]) -> Value {
    let count = words.len();
    json!({ "prompt_tokens": 7, "completion_tokens": count, "total_tokens": count + 7 })
}

fn whole(question: &Question, words: &[String]) -> Value {
    let text = words.concat();
    if question.anthropic {
        return json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": question.model,
            "content": [{ "type": "text", "text": text }], "stop_reason": "end_turn",
            "usage": { "input_tokens": 7, "output_tokens": words.len() },
        });
    }
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": question.model,
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": text },
        }],
        "usage": usage(words),
    })
}

fn events(question: &Question, words: &[String]) -> Vec<String> {
    if question.anthropic {
        return anthropic_events(question, words);
    }
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": question.model,
            "choices": choices, "usage": usage,
        });
        format!("data: {chunk}\n\n")
    };
    let choice =
        |delta: Value, finish: Value| json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
    let first = chunk(choice(json!({ "role": "assistant", "content": "" }), Value::Null), Value::Null);
    let mut events = vec![first];
    events
        .extend(words.iter().map(|word| chunk(choice(json!({ "content": word }), Value::Null), Value::Null)));
    events.push(chunk(choice(json!({}), json!("stop")), Value::Null));
    events.push(chunk(json!([]), usage(words)));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn anthropic_events(question: &Question, words: &[String]) -> Vec<String> {
    let event = |kind: &str, mut rest: Value| {
        rest["type"] = json!(kind);
        format!("event: {kind}\ndata: {rest}\n\n")
    };
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": question.model, "content": [],
        "usage": { "input_tokens": 7, "output_tokens": 0 },
    });
    let mut events = vec![
        event("message_start", json!({ "message": message })),
        event("content_block_start", json!({ "index": 0, "content_block": { "type": "text", "text": "" } })),
    ];
    events.extend(words.iter().map(|word| {
        event("content_block_delta", json!({ "index": 0, "delta": { "type": "text_delta", "text": word } }))
    }));
    events.push(event("content_block_stop", json!({ "index": 0 })));
    let usage = json!({ "output_tokens": words.len() });
    events.push(event("message_delta", json!({ "delta": { "stop_reason": "end_turn" }, "usage": usage })));
    events.push(event("message_stop", json!({})));
    events
}
