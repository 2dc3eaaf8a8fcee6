//! Counts server-sent events, cut anywhere.
//!
//! WHATWG HTML section 9.2.6, but for a lone CR as the end of a line, which no engine writes.

/// The longest start of a line that decides what it is: `data: [DONE]`.
const DECISIVE: usize = 12;

#[derive(Debug, Default)]
pub(super) struct Events {
    count: u64,
    /// The first bytes of the line that is being read.
    start: [u8; DECISIVE],
    /// Bytes of that line so far, its CR included.
    length: usize,
    /// Whether the last byte so far is CR.
    ends_in_cr: bool,
    block: Block,
}

/// The lines since the last blank one.
#[derive(Debug, Default, PartialEq)]
enum Block {
    #[default]
    Empty,
    Event,
    /// Anthropic's `event: ping`, which has data but no part in the answer.
    Ping,
}

impl Events {
    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Whether the last line was blank, and nothing came since.
    pub(super) fn is_between(&self) -> bool {
        self.length == 0 && self.block == Block::Empty
    }

    /// Returns how many events the chunk completed.
    pub(super) fn pass(&mut self, chunk: &[u8]) -> u64 {
        let before = self.count;
        let mut rest = chunk;
        while let Some((line, behind)) = split_line(rest) {
            self.extend(line);
            self.end_line();
            rest = behind;
        }
        self.extend(rest);
        self.count - before
    }

    fn extend(&mut self, part: &[u8]) {
        if let Some(room) = self.start.get_mut(self.length..) {
            let copied = part.len().min(room.len());
            room[..copied].copy_from_slice(&part[..copied]);
        }
        if let Some(&last) = part.last() {
            self.ends_in_cr = last == b'\r';
            self.length = self.length.saturating_add(part.len());
        }
    }

    fn end_line(&mut self) {
        let length = self.length - usize::from(self.ends_in_cr);
        let start = &self.start[..length.min(DECISIVE)];
        match Line::of(start, length) {
            Line::Blank => {
                let block = std::mem::take(&mut self.block);
                self.count += u64::from(block == Block::Event);
            }
            Line::Data if self.block == Block::Empty => self.block = Block::Event,
            Line::Ping => self.block = Block::Ping,
            Line::Data | Line::Other => {}
        }
        (self.length, self.ends_in_cr) = (0, false);
    }
}

/// The first line without its end, and what is behind it. Half of all lines are blank: they need no search.
fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let newline = if text.first()? == &b'\n' { 0 } else { memchr::memchr(b'\n', text)? };
    Some((text.get(..newline)?, text.get(newline + 1..)?))
}

enum Line {
    Blank,
    Data,
    Ping,
    /// A comment, another field, or the `[DONE]` of OpenAI's streams.
    Other,
}

impl Line {
    /// `start` is the whole line where `length` is no greater than [`DECISIVE`].
    fn of(start: &[u8], length: usize) -> Self {
        match start {
            b"" => Self::Blank,
            b"event: ping" | b"event:ping" => Self::Ping,
            b"data: [DONE]" | b"data:[DONE]" if length == start.len() => Self::Other,
            b"data" | [b'd', b'a', b't', b'a', b':', ..] => Self::Data,
            _ => Self::Other,
        }
    }
}
