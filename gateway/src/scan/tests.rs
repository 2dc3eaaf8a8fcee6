use http::HeaderValue;
use proptest::prelude::*;
use proptest::sample::select;

use super::ScanErrorKind as Kind;
use super::*;

fn scan_json(body: impl AsRef<[u8]>) -> Result<Option<String>, Kind> {
    let body = body.as_ref();
    proof::json(body, &[]);
    let mut scanner = JsonScanner::new();
    scanner.push(body).and_then(|()| scanner.finish()).map_err(|error| error.kind)?;
    Ok(scanner.model().map(|model| model.name.to_string()))
}

fn model(name: &str) -> Result<Option<String>, Kind> {
    Ok(Some(name.into()))
}

#[test]
fn the_model_is_found_wherever_it_stands() {
    assert_eq!(scan_json(r#"{"model":"qwen"}"#), model("qwen"));
    assert_eq!(
        scan_json(" \r\n\t{ \"a\" : [ {\"model\":\"x\"} ] , \"model\" : \"qwen\" , \"b\":-1.5e3}\n "),
        model("qwen")
    );
    assert_eq!(scan_json(r#"{"x":"\"model\":\"a\\","model":"q","y":"}{"}"#), model("q"));
    assert_eq!(scan_json("{}"), Ok(None));
    assert_eq!(scan_json(r#"{"models":"a","mode":1,"":null,"x":{"model":2}}"#), Ok(None));
}

#[test]
fn escapes_are_decoded_in_key_and_value() {
    assert_eq!(scan_json(r#"{"\u006dod\u0065l":"q\/\"\\\u00e9\ud83d\ude00é😀"}"#), model("q/\"\\é😀é😀"));
}

#[test]
fn the_model_is_known_with_its_closing_quote_and_its_span_is_raw() {
    let body = br#"{"a":1,"model":"q\u0077en","messages":[]}"#;
    let mut scanner = JsonScanner::new();
    scanner.push(&body[..25]).unwrap();
    assert_eq!(scanner.model(), None);
    scanner.push(&body[25..26]).unwrap();
    let span = scanner.model().unwrap().span.clone();
    assert_eq!(&body[span.start as usize..span.end as usize], br"q\u0077en");
    assert_eq!(&*scanner.model().unwrap().name, "qwen");
}

#[test]
fn a_second_model_or_a_case_variant_is_refused() {
    assert_eq!(scan_json(r#"{"model":"a","model":"a"}"#), Err(Kind::ModelTwice));
    assert_eq!(scan_json(r#"{"model":"a","x":[],"\u006dodel":null}"#), Err(Kind::ModelTwice));
    assert_eq!(scan_json(r#"{"Model":"a"}"#), Err(Kind::ModelCase));
    assert_eq!(scan_json(r#"{"model":"a","mode\u004c":1}"#), Err(Kind::ModelCase));
}

#[test]
fn an_unusable_model_is_refused_at_once() {
    for bad in ["null", "true", "0", "-1", "[\"a\"]", "{}"] {
        assert_eq!(scan_json(format!("{{\"model\":{bad}}}")), Err(Kind::ModelNotString), "{bad}");
    }
    assert_eq!(scan_json(r#"{"model":""}"#), Err(Kind::ModelEmpty));
    assert_eq!(scan_json(r#"{"model":" a"}"#), Err(Kind::ModelPadded));
    assert_eq!(scan_json("{\"model\":\"a\u{3000}\"}"), Err(Kind::ModelPadded));
    assert_eq!(scan_json(r#"{"model":"a\nb"}"#), Err(Kind::ModelControl));
    assert_eq!(scan_json("{\"model\":\"a\nb\"}"), Err(Kind::Control));
    assert_eq!(scan_json(r#"{"model":"a\u0000b"}"#), Err(Kind::Control));
    assert_eq!(scan_json(format!("{{\"model\":\"{}\"}}", "a".repeat(256))), model(&"a".repeat(256)));
    assert_eq!(scan_json(format!("{{\"model\":\"{}", "a".repeat(257))), Err(Kind::ModelTooLong));
    assert_eq!(scan_json(format!("{{\"model\":\"{}\"}}", "é".repeat(128))), model(&"é".repeat(128)));
    assert_eq!(scan_json(format!("{{\"model\":\"{}a\"}}", "\\u00e9".repeat(128))), Err(Kind::ModelTooLong));
}

#[test]
fn keys_and_model_are_strict_text() {
    for (bad, kind) in [
        (&b"{\"\xff\":1}"[..], Kind::NotUtf8),
        (b"{\"\xed\xa0\x80\":1}", Kind::NotUtf8),
        (b"{\"model\":\"\xc0\xaf\"}", Kind::NotUtf8),
        (b"{\"model\":\"\xe2\x82\"}", Kind::NotUtf8),
        (b"{\"a\x00\":1}", Kind::Control),
        (b"{\"a\\u0000\":1}", Kind::Control),
        (b"{\"\\q\":1}", Kind::Escape),
        (b"{\"\\u00g0\":1}", Kind::Escape),
        (b"{\"\\ud800\":1}", Kind::Surrogate),
        (b"{\"\\udc00\":1}", Kind::Surrogate),
        (b"{\"model\":\"\\ud800\\ud800\"}", Kind::Surrogate),
        (b"{\"model\":\"\\ud800\\n\"}", Kind::Surrogate),
    ] {
        assert_eq!(scan_json(bad), Err(kind), "{}", bad.escape_ascii());
    }
}

#[test]
fn the_top_level_is_strict_json() {
    for (bad, kind) in [
        ("", Kind::NotAnObject),
        ("  ", Kind::NotAnObject),
        ("[]", Kind::NotAnObject),
        ("\"model\"", Kind::NotAnObject),
        ("\u{feff}{}", Kind::NotAnObject),
        ("{\0\"\0", Kind::Syntax),
        ("{}{}", Kind::Trailing),
        ("{}\0", Kind::Trailing),
        ("{", Kind::Truncated),
        ("{\"a\":1", Kind::Truncated),
        ("{\"a\":1,}", Kind::Syntax),
        ("{,\"a\":1}", Kind::Syntax),
        ("{\"a\" 1}", Kind::Syntax),
        ("{\"a\":1 \"b\":2}", Kind::Syntax),
        ("{\"a\":}", Kind::Syntax),
        ("{\"a\":01}", Kind::Syntax),
        ("{\"a\":1.}", Kind::Syntax),
        ("{\"a\":-}", Kind::Syntax),
        ("{\"a\":NaN}", Kind::Syntax),
        ("{\"a\":-Infinity}", Kind::Syntax),
        ("{\"a\":nul}", Kind::Syntax),
        ("{\"a\":truee}", Kind::Syntax),
        ("{a:1}", Kind::Syntax),
        ("{'a':1}", Kind::Syntax),
        ("{/**/}", Kind::Syntax),
        ("{\"model\":'a'}", Kind::Syntax),
    ] {
        assert_eq!(scan_json(bad), Err(kind), "{bad}");
    }
}

#[test]
fn nested_values_are_held_to_their_structure_alone() {
    assert_eq!(
        scan_json(b"{\"a\":[NaN,01,\"\\ud800\\q\xff\x01\",{1 2}],\"b\":\"\\u12\\\"\xe2\",\"model\":\"q\"}"),
        model("q")
    );
    assert_eq!(scan_json("{\"a\":[}"), Err(Kind::Brackets));
    assert_eq!(scan_json("{\"a\":{]"), Err(Kind::Brackets));
    assert_eq!(scan_json("{\"a\":[{]},\"model\":\"q\"}"), Err(Kind::Brackets));
    // No reader takes this one, so it is the engine's to refuse.
    assert_eq!(scan_json("{\"a\":[[},{]],\"model\":\"q\"}"), model("q"));
    for stray in ["/", "'", "#", "\\", "\0", "é", "`", "_"] {
        assert_eq!(scan_json(format!("{{\"a\":[{stray}")), Err(Kind::Syntax), "{stray}");
    }
}

#[test]
fn members_are_read_alike_wherever_a_block_ends() {
    let rests = [
        r#""b":"\\\"","c":[{"d":"]\\","e":"é"}],"model":"q"}"#,
        r#""mod\u0065l":"q","stream":true,"model":"r"}"#,
        r#""b" : [ "x" ,{"model":[]}] , "model" : "q" }"#,
        r#""b":{"c":"\"}"},"model":"q\\","d":[}"#,
    ];
    for padding in (0..70).map(|length| "a".repeat(length)) {
        for rest in rests {
            super::proof::json(format!(r#"{{"{padding}":"x",{rest}"#).as_bytes(), &[]);
            super::proof::json(format!(r#"{{"x":"{padding}",{rest}"#).as_bytes(), &[]);
        }
    }
}

#[test]
fn depth_is_bounded_at_a_thousand_levels() {
    let deep =
        |levels: usize| format!("{{\"a\":{}{},\"model\":\"q\"}}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(scan_json(deep(999)), model("q"));
    assert_eq!(scan_json(deep(1000)), Err(Kind::TooDeep));
    assert_eq!(scan_json(format!("{{\"a\":{}1{}}}", "{\"k\":[".repeat(499), "]}".repeat(499))), Ok(None));
}

#[test]
fn facts_are_those_of_the_last_equal_key() {
    let facts = |body: &str| {
        proof::json(body.as_bytes(), &[]);
        let mut scanner = JsonScanner::new();
        scanner.push(body.as_bytes()).unwrap();
        scanner.facts().clone()
    };
    let expect = |stream, max_tokens| Facts { stream, max_tokens };
    assert_eq!(facts(r#"{"stream":true,"max_tokens":17}"#), expect(Some(true), Some(17)));
    assert_eq!(facts(r#"{"stream":true,"stream":false}"#), expect(Some(false), None));
    assert_eq!(facts(r#"{"stream":true,"stream":null,"max_completion_tokens":5}"#), expect(None, Some(5)));
    assert_eq!(facts(r#"{"max_output_tokens":1.5,"x":{"stream":true}}"#), expect(None, None));
}

#[test]
fn a_spliced_name_is_escaped_as_the_format_asks() {
    assert_eq!(splice(Format::Json, "a\"\\\u{1}é"), "a\\\"\\\\\\u0001é".as_bytes());
    assert_eq!(splice(Format::Multipart, "a\"é"), "a\"é".as_bytes());
}

const FILE: &str = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n\
                    RIFF\r\n\r\r\n-\r\n--X\r\n";

fn scan_form(body: impl AsRef<[u8]>) -> Result<Option<String>, Kind> {
    let body = body.as_ref();
    proof::form("XX", body, &[]);
    let content_type = HeaderValue::from_static("multipart/form-data; boundary=XX");
    let mut scanner = MultipartScanner::new(&content_type).unwrap();
    scanner.push(body).and_then(|()| scanner.finish()).map_err(|error| error.kind)?;
    if let Some(model) = scanner.model() {
        assert_eq!(&body[model.span.start as usize..model.span.end as usize], model.name.as_bytes());
    }
    Ok(scanner.model().map(|model| model.name.to_string()))
}

/// A form of a file and a part with these field lines and content.
fn form_with(fields: &str, content: &str) -> String {
    format!("{FILE}--XX\r\n{fields}\r\n\r\n{content}\r\n--XX--\r\n")
}

#[test]
fn the_model_part_of_a_form_is_found() {
    for fields in [
        "Content-Disposition: form-data; name=\"model\"",
        "content-disposition:form-data;name=model",
        "Content-Length: 7\r\nContent-Disposition: form-data; name=model\r\nContent-Type: text/plain; charset=UTF-8",
        "Content-Disposition: form-data; name=\"model\"\r\nContent-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit",
    ] {
        assert_eq!(scan_form(form_with(fields, "whisper")), model("whisper"), "{fields}");
    }
    assert_eq!(scan_form(format!("{FILE}--XX--")), Ok(None));
    assert_eq!(scan_form("--XX--\r\n"), Ok(None));
}

#[test]
fn a_form_that_names_the_model_twice_or_nearly_is_refused() {
    let one = "Content-Disposition: form-data; name=\"model\"";
    let twice = format!("{FILE}--XX\r\n{one}\r\n\r\na\r\n--XX\r\n{one}\r\n\r\na\r\n--XX--\r\n");
    assert_eq!(scan_form(twice), Err(Kind::ModelTwice));
    for (fields, kind) in [
        ("Content-Disposition: form-data; name=\"Model\"", Kind::ModelCase),
        ("Content-Disposition: form-data; name=\"model[]\"", Kind::ModelDisguised),
        ("Content-Disposition: form-data; name*=utf-8''model", Kind::ModelDisguised),
        ("Content-Disposition: form-data; name*0=mo; name*1=del", Kind::ModelDisguised),
        ("Content-Disposition: form-data; name=\"model\"; filename=\"a\"", Kind::ModelDisguised),
        ("Content-Disposition: form-data; name=_charset_", Kind::ModelDisguised),
        (
            "Content-Disposition: form-data; name=model\r\nContent-Transfer-Encoding: quoted-printable",
            Kind::ModelDisguised,
        ),
        (
            "Content-Disposition: form-data; name=model\r\nContent-Type: text/plain; charset=utf-16",
            Kind::ModelDisguised,
        ),
        (
            "Content-Disposition: form-data; name=model\r\nContent-Type: application/json",
            Kind::ModelDisguised,
        ),
        ("Content-Disposition: form-data; name=\"mod%65l\"", Kind::FormHead),
        ("Content-Disposition: form-data; name=\"=?utf-8?q?model?=\"", Kind::FormHead),
        ("Content-Disposition: attachment; name=\"model\"", Kind::FormHead),
        (
            "Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=model",
            Kind::FormHead,
        ),
        ("Content-Disposition: form-data;\r\n name=model", Kind::FormHead),
        ("Content-Disposition : form-data; name=model", Kind::FormHead),
        ("Content-Disposition: form-data; name=a\nX: b", Kind::FormHead),
        ("Content-Disposition: form-data; name=a\rX: b", Kind::FormHead),
        ("Content-Type: text/plain", Kind::FormHead),
        ("X: --XX\r\nContent-Disposition: form-data; name=a", Kind::FormDelimiter),
    ] {
        assert_eq!(scan_form(form_with(fields, "a")), Err(kind), "{fields}");
    }
}

#[test]
fn the_models_content_obeys_the_rules_of_a_name() {
    let with = |content: &str| scan_form(form_with("Content-Disposition: form-data; name=model", content));
    assert_eq!(with("é"), model("é"));
    assert_eq!(with(""), Err(Kind::ModelEmpty));
    assert_eq!(with("a\r\n"), Err(Kind::ModelControl));
    assert_eq!(with("a "), Err(Kind::ModelPadded));
    assert_eq!(with(&"a".repeat(256)), model(&"a".repeat(256)));
    assert_eq!(with(&"a".repeat(257)), Err(Kind::ModelTooLong));
    let latin = "Content-Disposition: form-data; name=model\r\nContent-Type: text/plain; charset=iso-8859-1";
    assert_eq!(scan_form(form_with(latin, "é")), Err(Kind::ModelDisguised));
}

#[test]
fn a_boundary_is_a_delimiter_for_every_reader_or_refused() {
    let fields = "Content-Disposition: form-data; name=x\r\n\r\n";
    for (body, kind) in [
        (format!("preamble\r\n--XX\r\n{fields}a\r\n--XX--"), Kind::FormPreamble),
        (format!("\r\n--XX\r\n{fields}a\r\n--XX--"), Kind::FormPreamble),
        (format!("--XX\r\n{fields}a\r\n--XX--\r\nepilogue"), Kind::FormEpilogue),
        (format!("--XX\r\n{fields}a\r\n--XX--\r\n\r\n"), Kind::FormEpilogue),
        (format!("--XX\n{fields}a\r\n--XX--"), Kind::FormDelimiter),
        (format!("--XX \r\n{fields}a\r\n--XX--"), Kind::FormDelimiter),
        (format!("--XX\r\n{fields}a\n--XX\r\n{fields}b\r\n--XX--"), Kind::FormDelimiter),
        (format!("--XX\r\n{fields}a\r\n--XXY\r\n--XX--"), Kind::FormDelimiter),
        (format!("--XX\r\n{fields}--XX--"), Kind::FormDelimiter),
        (format!("--XX\r\n{fields}\r--XX--"), Kind::FormDelimiter),
        (format!("--XX\r\n{fields}a\r\n--XX-\r\n"), Kind::FormDelimiter),
        (format!("--XX\r\n{fields}a\r\n"), Kind::Truncated),
        (format!("--XX\r\n{fields}a\r\n--XX"), Kind::Truncated),
        (format!("--XX\r\n{fields}a\r\n--XX--\r"), Kind::Truncated),
        ("--XX\r\n\r\na\r\n--XX--".into(), Kind::FormHead),
        (format!("--XX\r\nX: {}", "a".repeat(8200)), Kind::FormHeadTooLong),
        (format!("{}--XX--", format!("--XX\r\n{fields}\r\n").repeat(1001)), Kind::FormTooManyParts),
    ] {
        assert_eq!(scan_form(&body), Err(kind), "{}", &body[..body.len().min(200)]);
    }
    assert_eq!(scan_form(format!("{}--XX--", format!("--XX\r\n{fields}\r\n").repeat(1000))), Ok(None));
}

#[test]
fn the_content_type_of_a_form_is_strict() {
    let usable = |text: &str| MultipartScanner::new(&HeaderValue::from_str(text).unwrap()).is_ok();
    for good in [
        "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
        "Multipart/Form-Data;boundary=\"a:b=c?\"; charset=UTF-8",
    ] {
        assert!(usable(good), "{good}");
    }
    for bad in [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
        "multipart/form-data; boundary=\"a \"",
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; Boundary=a",
        "multipart/form-data; xboundary=a; boundary=b",
        "multipart/form-data; boundary=a; charset=utf-7",
        "multipart/form-data; boundary=a:b",
        "multipart/mixed; boundary=a",
    ] {
        assert!(!usable(bad), "{bad}");
    }
    assert!(usable(&format!("multipart/form-data; boundary={}", "a".repeat(70))));
    assert!(!usable(&format!("multipart/form-data; boundary={}", "a".repeat(71))));
}

/// Bytes that look like JSON: whole tokens, hostile spellings, and noise between them.
fn jsonish() -> impl Strategy<Value = Vec<u8>> {
    let key = select(vec![
        "\"model\"",
        "\"mod\\u0065l\"",
        "\"\\u006dodel\"",
        "\"Model\"",
        "\"mode\\u004C\"",
        "\"models\"",
        "\"stream\"",
        "\"max_tokens\"",
        "\"a\\\\\"",
        "\"\"",
        "\"\\ud83d\\ude00\"",
        "\"é\"",
    ]);
    let value = || {
        let text = prop_oneof![
            select(vec![
                "\"q\"",
                "\"q\\u0077\"",
                "\"\"",
                "\" q\"",
                "\"\\ud800\"",
                "\"a\\\\\\\"b\"",
                "true",
                "false",
                "null",
                "0",
                "-1.5e3",
                "17",
                "NaN"
            ])
            .prop_map(String::from),
            (0..40_usize).prop_map(|n| format!("\"{}\"", "\\\\".repeat(n))),
            (0..300_usize).prop_map(|n| format!("\"{}\"", "x".repeat(n))),
            (0..1100_usize).prop_map(|n| "[".repeat(n) + &"]".repeat(n)),
            (0..300_usize).prop_map(|n| format!("[{}1]", "1, ".repeat(n))),
            // Whole strides without a quote, which end in escapes or not.
            (100..200_usize, 0..9_usize, 100..200_usize).prop_map(|(n, escapes, m)| format!(
                "[\"{}{}\\n{}\"]",
                "x".repeat(n),
                "\\".repeat(2 * escapes),
                "y".repeat(m)
            )),
            (0..40_usize).prop_map(|n| format!("[{}[[0],[1]]]", "[0],".repeat(n))),
        ];
        text.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4)
                    .prop_map(|values| format!("[{}]", values.join(" , "))),
                prop::collection::vec(inner, 0..4).prop_map(|values| {
                    format!(
                        "{{{}}}",
                        values.iter().map(|v| format!("\"model\":{v}")).collect::<Vec<_>>().join(",")
                    )
                }),
            ]
        })
    };
    let space = || select(vec!["", "", "", " ", "\n\t", "\r"]);
    let member =
        (space(), key, space(), value()).prop_map(|(a, key, b, value)| format!("{a}{key}{b}:{a}{value}{b}"));
    let body = (space(), prop::collection::vec(member, 0..5))
        .prop_map(|(s, members)| format!("{s}{{{}}}{s}", members.join(",")));
    mutated(body.prop_map(String::into_bytes), b"\"\\{}[],:u0 \xff\xe2\x82\x00\n'/1eEtm")
}

/// Bytes that look like a form with boundary `X`.
fn formish() -> impl Strategy<Value = Vec<u8>> {
    let fields = select(vec![
        "Content-Disposition: form-data; name=\"model\"",
        "content-disposition: form-data; name=model",
        "Content-Disposition: form-data; name=x",
        "Content-Disposition: form-data; name=\"f\"; filename=\"x\"",
        "Content-Disposition: form-data; name=Model",
        "Content-Disposition: form-data; name=model\r\nContent-Type: text/plain",
    ]);
    let content = prop_oneof![
        select(vec!["q", "", "--", "\r\n--", "\r\n", "\r\r\n-", "--Y", "--X", "\n--X\r\n", "é", " q"])
            .prop_map(String::from),
        (200..300_usize).prop_map(|n| "x".repeat(n)),
    ];
    let part =
        (fields, content).prop_map(|(fields, content)| format!("--X\r\n{fields}\r\n\r\n{content}\r\n"));
    let end = select(vec!["--X--\r\n", "--X--", "--X", "--X-", "--X--\r", "--X--\r\nx"]);
    let body = (prop::collection::vec(part, 0..4), end).prop_map(|(parts, end)| parts.concat() + end);
    mutated(body.prop_map(String::into_bytes), b"\r\n-X :;=\"\xff\x00")
}

/// Most bodies as they are, some with a few bytes changed, added or left out.
fn mutated(bodies: impl Strategy<Value = Vec<u8>>, with: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let edits = prop_oneof![Just(0), Just(0), 1..4_usize]
        .prop_flat_map(move |n| prop::collection::vec((any::<prop::sample::Index>(), 0..3, select(with)), n));
    (bodies, edits).prop_map(|(mut body, edits)| {
        for (place, edit, byte) in edits {
            let at = place.index(body.len() + 1);
            match edit {
                0 => body.insert(at, byte),
                1 if at < body.len() => body[at] = byte,
                2 if at < body.len() => _ = body.remove(at),
                _ => {}
            }
        }
        body
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn json_like_bodies_have_one_reading(body in jsonish(), cuts in prop::collection::vec(any::<usize>(), 0..8)) {
        proof::json(&body, &cuts);
    }

    #[test]
    fn form_like_bodies_have_one_reading(body in formish(), cuts in prop::collection::vec(any::<usize>(), 0..8)) {
        proof::form("X", &body, &cuts);
    }

    #[test]
    fn any_bytes_have_one_reading(body in prop::collection::vec(any::<u8>(), 0..64), cuts in prop::collection::vec(any::<usize>(), 0..8)) {
        proof::json(&body, &cuts);
        proof::form("X", &[b"--X\r\n", &body[..]].concat(), &cuts);
    }
}
