//! Reads the `usage` object that engines put at the end of an answer, or Anthropic at both ends of a stream.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use memchr::memchr_iter;
use memchr::memmem::{Finder, FinderRev};

use crate::ledger::Usage;

/// Longer numbers are an engine's nonsense, which must not overflow a counter.
const DIGITS: RangeInclusive<usize> = 1..=12;

const KEY: &[u8] = br#""usage""#;

/// Prepared once: that costs more than the search itself in a short answer.
static FORWARD: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(KEY));
static BACKWARD: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(KEY));

/// The usage in an answer of which everything is here.
pub(super) fn find_in_whole(answer: &[u8]) -> Option<Usage> {
    let mut found = FORWARD.find_iter(answer).filter_map(|at| usage_at(answer, at));
    let first = found.next();
    merged(found.last().or(first), first)
}

/// The last usage in the end of an answer; what is missing there, from the first one in its start.
pub(super) fn find(head: &[u8], tail: &[u8]) -> Option<Usage> {
    let last = BACKWARD.rfind_iter(tail).find_map(|at| usage_at(tail, at));
    let first = FORWARD.find_iter(head).find_map(|at| usage_at(head, at));
    merged(last, first)
}

fn merged(last: Option<Usage>, first: Option<Usage>) -> Option<Usage> {
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

/// Names of OpenAI's chat and completions, then those of its responses and of Anthropic; each behind its quote.
const NAMES: [&[u8]; 6] = [
    br#"prompt_tokens""#,
    br#"completion_tokens""#,
    br#"cached_tokens""#,
    br#"input_tokens""#,
    br#"output_tokens""#,
    br#"cache_read_input_tokens""#,
];

/// The numbers behind the names, at whatever depth: the names are distinct enough. The first of each counts.
fn read(object: &[u8]) -> Option<Usage> {
    let mut numbers = [None; NAMES.len()];
    for quote in memchr_iter(b'"', object) {
        let (_, text) = object.split_at(quote + 1);
        if !matches!(text, [b'p' | b'c' | b'i' | b'o', ..]) {
            continue;
        }
        for (found, name) in numbers.iter_mut().zip(NAMES) {
            if found.is_none()
                && let Some(behind) = text.strip_prefix(name)
            {
                *found = value(behind).and_then(number);
            }
        }
    }
    let [prompt, completion, cached, input, output, cache_read] = numbers;
    let usage = Usage {
        input_tokens: prompt.or(input),
        output_tokens: completion.or(output),
        cached_tokens: cached.or(cache_read),
    };
    (usage != Usage::default()).then_some(usage)
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = value.get(..digits).filter(|digits| DIGITS.contains(&digits.len()))?;
    Some(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}
