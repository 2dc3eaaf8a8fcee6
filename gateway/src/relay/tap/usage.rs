//! Reads the `usage` object that engines put at the end of an answer, or Anthropic at both ends of a stream.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

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

/// The first usage in the start of an answer.
pub(super) fn first(head: &[u8]) -> Option<Usage> {
    FORWARD.find_iter(head).find_map(|at| usage_at(head, at))
}

/// The last usage in the end of an answer; what is missing there, from the first one in its start.
pub(super) fn find(first: Option<Usage>, tail: &[u8]) -> Option<Usage> {
    merged(BACKWARD.rfind_iter(tail).find_map(|at| usage_at(tail, at)), first)
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
    read(value(key.strip_prefix(KEY)?)?)
}

/// What follows the colon behind a key.
fn value(after_key: &[u8]) -> Option<&[u8]> {
    Some(after_key.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start())
}

/// Names of OpenAI's chat and completions, then those of its responses and of Anthropic.
const NAMES: [&[u8]; 6] = [
    b"prompt_tokens",
    b"completion_tokens",
    b"cached_tokens",
    b"input_tokens",
    b"output_tokens",
    b"cache_read_input_tokens",
];

/// The numbers behind the names in the object that starts here, at whatever depth: the names are distinct enough. The
/// first of each counts; none does where the object's end is missing.
fn read(text: &[u8]) -> Option<Usage> {
    if !text.starts_with(b"{") {
        return None;
    }
    let mut numbers = [None; NAMES.len()];
    let (mut rest, mut depth) = (text, 0_usize);
    loop {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        match byte {
            b'"' => {
                let (name, behind) = string(rest)?;
                rest = behind;
                if let Some(at) = NAMES.iter().position(|known| *known == name)
                    && let Some(found @ None) = numbers.get_mut(at)
                {
                    *found = value(behind).and_then(number);
                }
            }
            b'{' => depth += 1,
            b'}' if depth == 1 => break,
            b'}' => depth -= 1,
            _ => {}
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

/// The string that began before `text`, and what is behind its closing quote.
fn string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    loop {
        at += text.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if text.get(at) == Some(&b'"') {
            return Some((text.get(..at)?, text.get(at + 1..)?));
        }
        at += 2;
    }
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = value.get(..digits).filter(|digits| DIGITS.contains(&digits.len()))?;
    Some(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}
