use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const VLLM_STREAM: &str = concat!(
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":",
    "{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n",
    "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\\\"usage\\\":{\\\"prompt_tokens",
    "\\\":666}\"},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
    "data: {\"id\":\"chatcmpl-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":36,\"total_tokens\":68,",
    "\"completion_tokens\":32,\"prompt_tokens_details\":{\"cached_tokens\":16,\"created_cache_tokens\":0}}}\n\n",
    "data: [DONE]\n\n",
);

const LLAMA_STREAM: &str = concat!(
    "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n",
    "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n",
    "data: {\"choices\":[{\"finish_reason\":\"length\",\"index\":0,\"delta\":{}}]}\n\n",
    "data: {\"choices\":[],\"created\":1,\"id\":\"chatcmpl-2\",\"model\":\"tiny\",\"usage\":{\"completion_tokens\":8,",
    "\"prompt_tokens\":17,\"total_tokens\":25,\"prompt_tokens_details\":{\"cached_tokens\":1}},\"timings\":",
    "{\"cache_n\":1,\"prompt_n\":16,\"prompt_ms\":2.5,\"predicted_n\":8,\"predicted_per_second\":812.5}}\n\n",
    "data: [DONE]\n\n",
);

/// Usage in the last choice chunk, no `[DONE]`, white space as Python's json writes it.
const TRANSFORMERS_STREAM: &str = concat!(
    "data: {\"choices\": [{\"delta\": {\"content\": \"a\"}}], \"usage\": null}\n\n",
    "data: {\"choices\": [{\"delta\": {}}], \"usage\": {\"prompt_tokens\": 5, \"completion_tokens\": 6}}\n\n",
);

const ANTHROPIC_STREAM: &str = concat!(
    "event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\"",
    ":25,\"cache_read_input_tokens\":3,\"output_tokens\":1}}}\r\n\r\n",
    "event: ping\r\ndata: {\"type\": \"ping\"}\r\n\r\n",
    ": keep-alive\r\n\r\n",
    "event: content_block_delta\r\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"a\"}}\r\n\r\n",
    "event: message_delta\r\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":15}}\r\n\r\n",
    "event: message_stop\r\ndata: {\"type\":\"message_stop\"}\r\n\r\n",
);

const RESPONSES_STREAM: &str = concat!(
    "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"tools\":[{\"parameters\":",
    "{\"properties\":{\"usage\":{\"type\":\"string\"}}}}],\"usage\":{\"input_tokens\":11,\"input_tokens_details\":",
    "{\"cached_tokens\":4},\"output_tokens\":7,\"total_tokens\":18},\"user\":null,\"metadata\":{\"usage\":\"a\"}}}\n\n",
);

fn usage(input: u64, output: u64, cached: Option<u64>) -> Option<Usage> {
    Some(Usage { input_tokens: Some(input), output_tokens: Some(output), cached_tokens: cached })
}

fn tapped(kind: Kind, body: &[u8], chunk: usize) -> (u64, Option<Usage>) {
    let mut tap = Tap::new(kind);
    let events: u64 = body.chunks(chunk).map(|chunk| tap.pass(chunk)).sum();
    assert_eq!(events, tap.events());
    (events, tap.usage())
}

#[test]
fn the_streams_of_every_engine_are_read_alike_however_they_are_cut() {
    for (stream, events, expected) in [
        (VLLM_STREAM, 3, usage(36, 32, Some(16))),
        (LLAMA_STREAM, 4, usage(17, 8, Some(1))),
        (TRANSFORMERS_STREAM, 2, usage(5, 6, None)),
        (ANTHROPIC_STREAM, 4, usage(25, 15, Some(3))),
        (RESPONSES_STREAM, 1, usage(11, 7, Some(4))),
    ] {
        for chunk in 1..=stream.len() {
            let seen = tapped(Kind::EventStream, stream.as_bytes(), chunk);
            assert_eq!(seen, (events, expected), "cut every {chunk} bytes: {stream}");
        }
    }
}

#[test]
fn both_ends_of_a_stream_are_found_around_a_megabyte() {
    let token = "event: content_block_delta\ndata: {\"delta\":{\"text\":\"a\"}}\n\n";
    let (start, end) = ANTHROPIC_STREAM.split_at(ANTHROPIC_STREAM.find("event: message_delta").unwrap());
    let long = format!("{start}{}{end}", token.repeat(20_000));
    for chunk in [1_460, long.len()] {
        assert_eq!(tapped(Kind::EventStream, long.as_bytes(), chunk), (20_004, usage(25, 15, Some(3))));
    }
}

#[test]
fn a_plain_answer_has_usage_and_no_events() {
    let content = "data: no event\\n\\n".repeat(1_000);
    let body = format!(
        "{{\n\n  \"choices\": [{{\"message\": {{\"content\": \"{content}\"}}}}],\n  \"usage\" : {{\n \"prompt_tokens\" : 1,\
         \"completion_tokens\":2,\"completion_tokens_details\":null,\"prompt_tokens_details\":null}},\n\
         \"prompt_logprobs\":null}}"
    );
    assert_eq!(tapped(Kind::Json, body.as_bytes(), 777), (0, usage(1, 2, None)));
}

#[test]
fn no_usage_is_made_up() {
    for body in [
        "",
        "{}",
        r#"{"usage":null}"#,
        r#"{"usage":{}}"#,
        r#"{"usage":{"prompt_tokens":null,"completion_tokens":"5"}}"#,
        r#"{"usage":{"prompt_tokens":-5}}"#,
        r#"{"usage":{"prompt_tokens":99999999999999999999}}"#,
        r#"{"usage":{"prompt_tokens":12"#,
        r#"{"usage":{"prompt_tokens"#,
        r#"{"usage":"{\"prompt_tokens\":1}"}"#,
        r#"{"usage":[{"prompt_tokens":1}]}"#,
        r#"{"usage"}{"prompt_tokens":1}"#,
        r#"{"usage":}"#,
        r#"{"content":"\"usage\":{\"prompt_tokens\":1}"}"#,
        r#"{"content":"\\\"usage\":{\"prompt_tokens\":1}"}"#,
        r#"{"my_usage":{"prompt_tokens":1}}"#,
        r#"{"usage":{"max_prompt_tokens":1}}"#,
        r#""usage""#,
    ] {
        assert_eq!(tapped(Kind::Json, body.as_bytes(), 1).1, None, "{body}");
    }
}

#[test]
fn braces_in_strings_do_not_end_the_object() {
    let body = r#"{"usage":{"tier":"}\"}","prompt_tokens":3},"completion_tokens":9}"#;
    let expected = Some(Usage { input_tokens: Some(3), ..Usage::default() });
    assert_eq!(tapped(Kind::Json, body.as_bytes(), 5).1, expected);
}

#[test]
fn lines_that_only_look_like_events_are_none() {
    for (stream, events) in [
        ("data: a\n", 0),
        ("data: a\n\n", 1),
        ("data\n\n", 1),
        ("data:\n\n", 1),
        ("data:[DONE]\n\n", 0),
        ("data: [DONE]\r\n\r\n", 0),
        ("data: [DONE] \n\n", 1),
        ("data: [DONE]x\n\n", 1),
        ("database: a\n\n", 0),
        (" data: a\n\n", 0),
        ("id: 1\n\n\n\n", 0),
        ("data: a\ndata: b\n\n\n", 1),
        ("event: x\ndata: b\n\n", 1),
        ("data: {}\nevent: ping\n\n", 0),
        ("event: pings\ndata: {}\n\n", 1),
        (":data: a\n\n", 0),
        ("data: a\n\r\n", 1),
        ("data: a\n\r\r\n", 0),
    ] {
        for chunk in 1..=stream.len() {
            let seen = tapped(Kind::EventStream, stream.as_bytes(), chunk).0;
            assert_eq!(seen, events, "{stream:?} cut every {chunk}");
        }
    }
}

#[test]
fn only_what_can_be_read_is_tapped() {
    let kind = |content_type: &'static str, encoding: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        encoding.map(|encoding| headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding)));
        Kind::of(&headers)
    };
    assert_eq!(kind("text/event-stream; charset=utf-8", None), Some(Kind::EventStream));
    assert_eq!(kind("Application/JSON ;a=b", Some("identity")), Some(Kind::Json));
    assert_eq!(kind("application/json", Some("gzip")), None);
    assert_eq!(kind("audio/mpeg", None), None);
    assert_eq!(Kind::of(&HeaderMap::new()), None);
}

/// The obvious twin of [`Events`].
fn count_events(stream: &[u8]) -> u64 {
    let Some(end) = stream.iter().rposition(|&byte| byte == b'\n') else { return 0 };
    let (mut count, mut data, mut ping) = (0, false, false);
    for line in stream[..end].split(|&byte| byte == b'\n') {
        match line.strip_suffix(b"\r").unwrap_or(line) {
            b"" => {
                count += u64::from(data && !ping);
                (data, ping) = (false, false);
            }
            b"data: [DONE]" | b"data:[DONE]" => {}
            b"event: ping" | b"event:ping" => ping = true,
            line => data |= line == b"data" || line.starts_with(b"data:"),
        }
    }
    count
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let pieces = vec![
        "data",
        ":",
        " ",
        "[DONE]",
        "event",
        "ping",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        ": c",
        "x",
        "\"usage\":",
        "{",
        "}",
        "\\",
        "\"",
        "\"prompt_tokens\":1",
        "\"output_tokens\": 22",
        ",",
        "id: 7",
        "data: [DONE]",
        "data: x\n\n",
        "é",
    ];
    let piece = prop_oneof![
        20 => prop::sample::select(pieces).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..3_000),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_split_sees_what_the_twins_see_in_the_whole(
        body in stream(),
        (kind, kept) in prop::sample::select(vec![(Kind::EventStream, STREAM_TAIL), (Kind::Json, DOCUMENT_TAIL)]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(body.len());
        let mut tap = Tap::new(kind);
        let mut from = 0;
        for cut in cuts {
            tap.pass(&body[from..cut]);
            from = cut;
        }
        prop_assert_eq!(tap.events(), if kind == Kind::EventStream { count_events(&body) } else { 0 });
        let (head, tail) = (&body[..body.len().min(HEAD_BYTES)], &body[body.len().saturating_sub(kept)..]);
        prop_assert_eq!(tap.usage(), usage::find(usage::first(head), tail));
    }
}

#[test]
fn what_goes_past_unseen_leaves_its_end_and_the_count_goes_on_behind_it() {
    for (stream, input) in [(VLLM_STREAM, 36), (LLAMA_STREAM, 17), (ANTHROPIC_STREAM, 25)] {
        let separator = if stream.contains("\r\n") { "\r\n\r\n" } else { "\n\n" };
        let events: Vec<&str> = stream.split_inclusive(separator).collect();
        let [first, unseen @ .., last] = &events[..] else { panic!("a short stream") };
        let mut tap = Tap::new(Kind::EventStream);
        assert_eq!((tap.pass(first.as_bytes()), tap.is_between_events()), (1, true));
        // As the kernel half keeps it: with its framing, and cut.
        let unseen = unseen.concat() + "\r\n";
        tap.skip(&unseen.as_bytes()[unseen.len().saturating_sub(512)..]);
        tap.pass(&last.as_bytes()[..5]);
        assert!(!tap.is_between_events());
        tap.pass(&last.as_bytes()[5..]);
        assert!(tap.is_between_events());
        assert_eq!(tap.usage().and_then(|usage| usage.input_tokens), Some(input), "{stream}");
    }
}

#[test]
fn one_document_is_never_between_events() {
    assert!(!Tap::new(Kind::Json).is_between_events());
}
