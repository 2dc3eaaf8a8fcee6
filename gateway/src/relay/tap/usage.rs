//! Reads the `usage` object that engines put at the end of an answer, or Anthropic at both ends of a stream.

use std::ops::RangeInclusive;

use memchr::{memchr_iter, memmem};

use crate::ledger::Usage;

/// Longer numbers are an engine's nonsense, which must not overflow a counter.
const DIGITS: RangeInclusive<usize> = 1..=12;

const KEY: &[u8] = br#""usage""#;

/// The last usage in the end of an answer; what is missing there, from the first one in its start.
pub(super) fn find(head: &[u8], tail: &[u8]) -> Option<Usage> {
    let last = memmem::rfind_iter(tail, KEY).find_map(|at| usage_at(tail, at).map(|usage| (at, usage)));
    // A short answer lies in both windows whole: what was found in one of them is not read again in the other.
    let known = |at| if head.len() == tail.len() { last.filter(|(last, _)| *last == at) } else { None };
    let first = memmem::find_iter(head, KEY)
        .find_map(|at| known(at).map_or_else(|| usage_at(head, at), |(_, usage)| Some(usage)));
    let last = last.map(|(_, usage)| usage);
    let (Some(last), Some(first)) = (last, first) else { return last.or(first) };
    Some(Usage {
        input_tokens: last.input_tokens.or(first.input_tokens),
        output_tokens: last.output_tokens.or(first.output_tokens),
        cached_tokens: last.cached_tokens.or(first.cached_tokens),
    })
}

/// The object behind the key at this position, if it names tokens. Inside generated text the quotes would be
/// escaped, so such text never matches; `null`, and a parameter of a tool that is called `usage`, are passed over.
fn usage_at(window: &[u8], position: usize) -> Option<Usage> {
    let (before, key) = window.split_at(position);
    if before.ends_with(b"\\") {
        return None;
    }
    read(object(value(key.strip_prefix(KEY)?)?)?)
}

/// What follows the colon behind a key.
fn value(after_key: &[u8]) -> Option<&[u8]> {
    Some(after_key.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start())
}

/// The object that starts here, to its closing brace.
fn object(text: &[u8]) -> Option<&[u8]> {
    if !text.starts_with(b"{") {
        return None;
    }
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut bytes = text.iter().enumerate();
    while let Some((index, byte)) = bytes.next() {
        match byte {
            b'\\' if in_string => _ = bytes.next(),
            b'"' => in_string = !in_string,
            b'{' if !in_string => depth += 1,
            b'}' if !in_string && depth == 1 => return text.get(..=index),
            b'}' if !in_string => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Names of OpenAI's chat and completions first, then those of its responses and of Anthropic.
fn read(object: &[u8]) -> Option<Usage> {
    let usage = Usage {
        input_tokens: number(object, br#""prompt_tokens""#).or_else(|| number(object, br#""input_tokens""#)),
        output_tokens: number(object, br#""completion_tokens""#)
            .or_else(|| number(object, br#""output_tokens""#)),
        cached_tokens: number(object, br#""cached_tokens""#)
            .or_else(|| number(object, br#""cache_read_input_tokens""#)),
    };
    (usage != Usage::default()).then_some(usage)
}

/// The number behind a key, at whatever depth: the names are distinct enough.
fn number(object: &[u8], key: &[u8]) -> Option<u64> {
    // An object of this size has a dozen quotes: cheaper to visit than a search is to prepare.
    let value = memchr_iter(b'"', object).find_map(|quote| object.get(quote..)?.strip_prefix(key))?;
    let value = self::value(value)?;
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = value.get(..digits).filter(|digits| DIGITS.contains(&digits.len()))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
