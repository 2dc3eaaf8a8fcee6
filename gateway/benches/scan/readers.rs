//! Ways to find the model of a body.

use std::borrow::Cow;

use memchr::memchr2;
use penstock::scan::JsonScanner;
use serde::Deserialize;
use simd_json::prelude::ValueIntoString;
use sonic_rs::JsonValueTrait;

pub(crate) struct Reader {
    pub(crate) name: &'static str,
    /// Whether it finds the model at all: `read` gives the length of its name.
    pub(crate) finds: bool,
    pub(crate) read: fn(&[u8]) -> usize,
}

pub(crate) const READERS: [Reader; 6] = [
    Reader { name: "memchr2 over the bytes", finds: false, read: bytes },
    Reader { name: "memchr2 string skipper", finds: true, read: skipper },
    Reader { name: "sonic-rs get_unchecked", finds: true, read: sonic },
    Reader { name: "simd-json tape", finds: true, read: tape },
    Reader { name: "serde_json struct", finds: true, read: serde },
    Reader { name: "Penstock", finds: true, read: penstock },
];

#[inline(never)]
pub(crate) fn penstock(body: &[u8]) -> usize {
    let mut scanner = JsonScanner::new();
    match scanner.push(body).and_then(|()| scanner.finish()) {
        Ok(()) => scanner.model().map_or(0, |model| (model.span.end - model.span.start) as usize),
        Err(_) => 0,
    }
}

/// The bytes are looked at once, and nothing is found in them.
fn bytes(body: &[u8]) -> usize {
    memchr2(0, 1, body).unwrap_or_default()
}

fn sonic(body: &[u8]) -> usize {
    // SAFETY: the bodies are valid JSON in UTF-8.
    #[allow(unsafe_code, reason = "this is the call to be measured")]
    let value = unsafe { sonic_rs::get_unchecked(body, &["model"]) };
    value.ok().and_then(|value| value.as_str().map(str::len)).unwrap_or_default()
}

/// simd-json writes into what it reads, so the copy counts.
fn tape(body: &[u8]) -> usize {
    let mut copy = body.to_vec();
    let Ok(tape) = simd_json::to_tape(&mut copy) else { return 0 };
    let Some(object) = tape.as_value().as_object() else { return 0 };
    object.get("model").and_then(|model| model.into_string()).map_or(0, <str>::len)
}

fn serde(body: &[u8]) -> usize {
    #[derive(Deserialize)]
    struct Request<'a> {
        #[serde(borrow)]
        model: Cow<'a, str>,
    }
    serde_json::from_slice::<Request<'_>>(body).map_or(0, |request| request.model.len())
}

/// Finds the model with memchr2 over strings and a byte at a time over all else; checks nothing.
fn skipper(body: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_u32);
    let mut is_model = false;
    while let Some(&byte) = body.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let start = at;
                loop {
                    let Some(found) = memchr2(b'"', b'\\', body.get(at..).unwrap_or_default()) else {
                        return 0;
                    };
                    at += found + 1;
                    if body[at - 1] == b'"' {
                        break;
                    }
                    at += 1;
                }
                if is_model {
                    return at - 1 - start;
                }
                is_model = depth == 1 && &body[start..at - 1] == b"model" && body.get(at) == Some(&b':');
            }
            _ => {}
        }
    }
    0
}
