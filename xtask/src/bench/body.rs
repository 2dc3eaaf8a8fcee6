//! The bodies of the bench: chats of a given size, the same bytes on each run and in each process. They repeat one
//! message, so that an engine compares what it gets with a few kilobytes that stay in its nearest cache.

use std::sync::LazyLock;

use anyhow::{Result, ensure};

use super::ask::{Ask, Place, Reply};

/// A prime: bytes that were lost, doubled or moved by any block size do not compare equal.
const MESSAGE_BYTES: usize = 4093;
const MESSAGE_START: &str = r#"{"role":"user","content":""#;
const MESSAGE_END: &str = r#""}"#;

static MESSAGE: LazyLock<Vec<u8>> = LazyLock::new(|| format!("{},", message(MESSAGE_BYTES - 1)).into_bytes());

#[derive(Debug)]
pub(crate) struct Body {
    head: Vec<u8>,
    /// How often [`MESSAGE`] follows.
    times: usize,
    /// The last message, of the length that is left, and the end.
    tail: Vec<u8>,
}

impl Body {
    pub(crate) fn of(ask: &Ask) -> Result<Self> {
        let model = format!(r#""model":"{}""#, ask.pool.model());
        let stream = if matches!(ask.reply, Reply::Events { .. }) { r#""stream":true,"# } else { "" };
        let (head, end) = match ask.place {
            Place::First => (format!(r#"{{{model},{stream}"messages":["#), "]}".to_owned()),
            Place::Last => (format!(r#"{{{stream}"messages":["#), format!("],{model}}}")),
        };
        let least = head.len() + end.len() + MESSAGE_START.len() + MESSAGE_END.len();
        ensure!(ask.bytes >= least, "no body of {} bytes: {least} at least", ask.bytes);
        let times = (ask.bytes - least) / MESSAGE_BYTES;
        let last = ask.bytes - head.len() - end.len() - times * MESSAGE_BYTES;
        let tail = format!("{}{end}", message(last));
        Ok(Self { head: head.into_bytes(), times, tail: tail.into_bytes() })
    }

    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.times * MESSAGE_BYTES + self.tail.len()
    }

    pub(crate) fn render(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        all.extend_from_slice(&self.head);
        for _ in 0..self.times {
            all.extend_from_slice(&MESSAGE);
        }
        all.extend_from_slice(&self.tail);
        all
    }

    /// Whether the body has this piece at this offset.
    pub(crate) fn has(&self, mut at: usize, mut piece: &[u8]) -> bool {
        while !piece.is_empty() {
            let rest = self.from(at);
            let (now, later) = piece.split_at(rest.len().min(piece.len()));
            if rest.get(..now.len()) != Some(now) || now.is_empty() {
                return false;
            }
            at += now.len();
            piece = later;
        }
        true
    }

    /// What is contiguous in memory from an offset on; empty at the end and behind it.
    fn from(&self, at: usize) -> &[u8] {
        let Some(at) = at.checked_sub(self.head.len()) else {
            return self.head.get(at..).unwrap_or_default();
        };
        match at.checked_sub(self.times * MESSAGE_BYTES) {
            None => MESSAGE.get(at % MESSAGE_BYTES..).unwrap_or_default(),
            Some(at) => self.tail.get(at..).unwrap_or_default(),
        }
    }
}

/// A message of exactly this many bytes, at least as many as its frame has.
fn message(bytes: usize) -> String {
    let content = prose(bytes - MESSAGE_START.len() - MESSAGE_END.len());
    format!("{MESSAGE_START}{content}{MESSAGE_END}")
}

/// Text as people paste it into a chat, escapes included.
fn prose(bytes: usize) -> String {
    const WORDS: [&str; 12] = [
        "the",
        "answer",
        "of",
        r#"\"engine\""#,
        "was",
        "late",
        r"\n\n",
        "and",
        "its",
        "tokens",
        "came",
        "slowly.",
    ];
    let mut text = String::with_capacity(bytes);
    let mut state = 1_u32;
    loop {
        // Numerical Recipes' generator: repeatable, and good enough for words.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let word = WORDS[(state >> 16) as usize % WORDS.len()];
        if text.len() + word.len() + 1 > bytes {
            break;
        }
        text.push_str(word);
        text.push(' ');
    }
    text.extend(std::iter::repeat_n('x', bytes - text.len()));
    text
}

#[cfg(test)]
mod tests {
    use super::super::ask::Pool;
    use super::*;

    fn ask(bytes: usize, place: Place) -> Ask {
        Ask { pool: Pool::A, bytes, place, reply: Reply::Json { after_us: 0 } }
    }

    #[test]
    fn a_body_is_json_of_the_size_asked_for() {
        for place in [Place::First, Place::Last] {
            for bytes in [100, 300, 4093, 4200, 65_536, 1 << 20] {
                let rendered = Body::of(&ask(bytes, place)).unwrap().render();
                assert_eq!(rendered.len(), bytes);
                let value: serde_json::Value = serde_json::from_slice(&rendered).unwrap();
                assert_eq!(value["model"], "model-a");
            }
        }
    }

    #[test]
    fn a_body_knows_its_bytes_in_any_pieces() {
        let body = Body::of(&ask(20_000, Place::Last)).unwrap();
        let rendered = body.render();
        for size in [1, 7, 4093, 4096, 20_000] {
            let pieces = rendered.chunks(size).enumerate();
            assert!(pieces.into_iter().all(|(n, piece)| body.has(n * size, piece)), "pieces of {size}");
        }
    }

    #[test]
    fn a_body_sees_a_changed_lost_or_added_byte() {
        let body = Body::of(&ask(20_000, Place::First)).unwrap();
        let mut rendered = body.render();
        assert!(!body.has(1, &rendered));
        rendered.push(b'}');
        assert!(!body.has(0, &rendered));
        rendered.pop();
        for at in [0, 50, 4093, 9000, 19_999] {
            rendered[at] ^= 1;
            assert!(!body.has(0, &rendered), "byte {at}");
            rendered[at] ^= 1;
        }
        assert!(body.has(0, &rendered));
    }
}
