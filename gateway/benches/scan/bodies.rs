//! The bodies that the scanner is measured on, made anew in each run from nothing but this file.

use std::fmt::Write;

/// What a body is called, and what makes it; each names the same model.
pub(crate) struct Body {
    pub(crate) name: &'static str,
    pub(crate) make: fn() -> String,
}

pub(crate) const MODEL: &str = "Qwen/Qwen3-8B";

pub(crate) const ALL: [Body; 8] = [
    Body { name: "chat, 86 B", make: small },
    Body { name: "chat, 63 KB", make: || chat(24, 2600, 420) },
    Body { name: "chat of code, 64 KB", make: || chat(24, 2600, 34) },
    Body { name: "chat, 63 KB, 240 turns", make: || chat(240, 220, 420) },
    Body { name: "tool schemas, 15 KB", make: tools },
    Body { name: "tool schemas, 15 KB, indented", make: indented },
    Body { name: "image, 8 MiB base64", make: image },
    Body { name: "token ids, 371 KB", make: tokens },
];

fn small() -> String {
    format!(r#"{{"messages":[{{"role":"user","content":"Hello there"}}],"stream":true,"model":"{MODEL}"}}"#)
}

/// Turns of prose with an escape every `gap` bytes or so; the model last.
fn chat(turns: usize, length: usize, gap: usize) -> String {
    let mut dice = Dice(7);
    let mut text = String::from(r#"{"messages":["#);
    for turn in 0..turns {
        let role = ["user", "assistant"][turn % 2];
        let comma = if turn == 0 { "" } else { "," };
        _ = write!(text, r#"{comma}{{"role":"{role}","content":""#);
        let end = text.len() + length;
        let mut next = text.len() + dice.below(2 * gap);
        while text.len() < end {
            text.push_str(WORDS[dice.below(WORDS.len())]);
            if text.len() >= next {
                text.push_str(["\\n", "\\n\\n", "\\\"", "\\n    "][dice.below(4)]);
                next = text.len() + dice.below(2 * gap);
            } else {
                text.push(' ');
            }
        }
        text.push_str("\"}");
    }
    _ = write!(text, r#"],"temperature":0.7,"max_tokens":1024,"stream":true,"model":"{MODEL}"}}"#);
    text
}

fn tools() -> String {
    let tools: Vec<String> = (0..42).map(tool).collect();
    let tools = tools.join(",");
    format!(
        r#"{{"messages":[{{"role":"user","content":"What is the weather in Paris?"}}],"tools":[{tools}],"tool_choice":"auto","model":"{MODEL}"}}"#
    )
}

fn tool(n: usize) -> String {
    let name = ["get_weather", "search_documents", "send_email", "create_event"][n % 4];
    format!(
        r#"{{"type":"function","function":{{"name":"{name}_{n}","description":"Looks up one record and returns it, or an error","parameters":{{"type":"object","properties":{{"location":{{"type":"string","description":"City and state, e.g. Paris, France"}},"unit":{{"type":"string","enum":["celsius","fahrenheit"]}},"days":{{"type":"integer","minimum":1}}}},"required":["location"]}}}}}}"#
    )
}

fn indented() -> String {
    let tools: serde_json::Value = serde_json::from_str(&tools()).unwrap_or_default();
    let mut text = serde_json::to_string_pretty(&tools).unwrap_or_default();
    // Cut to the length of the other one, whole tools only.
    if let Some(end) = text[..15_000].rfind("\n    },\n") {
        let tail = text.rfind("\n  ],").unwrap_or(text.len());
        text = text[..end].to_owned() + "\n    }" + &text[tail..];
    }
    text
}

fn image() -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut dice = Dice(11);
    let base64: String = (0..8 << 20).map(|_| char::from(ALPHABET[dice.below(64)])).collect();
    format!(
        r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{base64}"}}}}]}}],"model":"{MODEL}"}}"#
    )
}

fn tokens() -> String {
    let mut dice = Dice(13);
    let ids: Vec<String> = (0..65_000).map(|_| dice.below(128_000).to_string()).collect();
    let ids = ids.join(",");
    format!(r#"{{"prompt":[{ids}],"max_tokens":16,"model":"{MODEL}"}}"#)
}

/// Steele and Vigna's splitmix64: the same bodies on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) as usize % limit
    }
}

const WORDS: [&str; 24] = [
    "the", "gateway", "reads", "a", "request", "once", "and", "sends", "it", "to", "an", "engine", "that",
    "has", "room", "for", "it;", "tokens", "come", "back", "as", "they", "are", "made.",
];
