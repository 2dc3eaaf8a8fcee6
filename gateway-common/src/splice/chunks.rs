//! What a write must look like to be redirected: whole chunks, each of it one whole event, and nothing else.
//!
//! Looked at through windows of eight bytes, as the first and the last bytes of a chunk: a step costs the same for
//! every size. Stricter than `framing`: what this takes, that takes the same way, and ends between two chunks.

/// Bytes of a window.
pub const WINDOW: u32 = 8;
/// The shortest chunk that has its windows.
pub const MIN_CHUNK: u32 = 8;
/// Chunks in one write.
pub const CHUNKS_PER_WRITE: u32 = 8;

/// A chunk, by its first window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes of the line with its size.
    pub line: u32,
    /// Bytes of the payload: at least three, so that a blank line can end it.
    pub size: u32,
}

impl Chunk {
    /// All its bytes.
    #[must_use]
    #[inline(always)]
    pub const fn whole(&self) -> u32 {
        self.line + self.size + 2
    }
}

/// What a chunk's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Event,
    /// The `[DONE]` of OpenAI's streams.
    Done,
    /// For the gateway: comments, pings, and what is no event.
    Other,
}

/// The size line at the start of a chunk, of its first eight bytes; `None`: the last chunk, an extension, a size of
/// more than six digits, or nothing of the kind.
///
/// All eight bytes at once and without branches: the verifier follows each branch, for each chunk anew.
#[must_use]
#[inline(always)]
pub fn size_line(window: u64) -> Option<Chunk> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = ONES << 7;
    const fn each(byte: u8) -> u64 {
        ONES * byte as u64
    }
    let window = window.to_le();
    // The top bit of the first byte that is CR. Bits above it may be wrong.
    let other = window ^ each(b'\r');
    let cr = other.wrapping_sub(ONES) & !other & TOPS;
    let cr = cr & cr.wrapping_neg();
    let below = cr.wrapping_sub(1);
    // 0 where CR is first, 7 where it is nowhere.
    let digits = ((below & ONES).wrapping_mul(ONES) >> 56).wrapping_sub(1) & 0xff;
    let shift = (digits * 8) & 63;
    // The digits at the top, zeros before them.
    let text = window << ((64 - shift) & 63) | each(b'0') >> shift;
    let lower = text | each(0x20);
    let at_least = |byte: u8| (lower & !TOPS) + each(0x80 - byte);
    let number = at_least(b'0') & !at_least(b'9' + 1);
    let letter = at_least(b'a') & !at_least(b'f' + 1);
    // Lower case hides some control bytes, and nothing else, among the numbers.
    let printed = (text << 1 | text << 2) & !text;
    let wrong = !((number | letter) & printed) & TOPS;
    let mut size = (lower & each(0xf)) + ((letter & TOPS) >> 7) * 9;
    size = (size << 4 | size >> 8) & 0x00ff_00ff_00ff_00ff;
    size = (size << 8 | size >> 16) & 0x0000_ffff_0000_ffff;
    size = (size << 16 | size >> 32) & 0xffff_ffff;
    let ends = window >> shift & 0xffff ^ u16::from_le_bytes(*b"\r\n") as u64;
    let is_line = (wrong | ends) == 0 && digits.wrapping_sub(1) < 6 && size > 2;
    is_line.then_some(Chunk { line: digits as u32 + 2, size: size as u32 })
}

/// Whether a chunk ends where it should, with its payload's blank line before: of its last eight bytes.
#[must_use]
#[inline(always)]
pub fn ends_event(window: u64) -> bool {
    let window = window.to_le();
    // `x \n \n \r \n` or `\r \n \r \n \r \n`, from the top.
    window >> 32 == 0x0a0d_0a0a || window >> 16 == 0x0a0d_0a0d_0a0d
}

/// What a payload is, by its first eight bytes.
#[must_use]
#[inline(always)]
pub fn kind(window: u64) -> Kind {
    const fn of(bytes: &[u8; 8]) -> u64 {
        u64::from_le_bytes(*bytes)
    }
    const DATA: u64 = 0xff_ffff_ffff;
    const EVENT: u64 = 0xffff_ffff_ffff;
    let window = window.to_le();
    if window == of(b"data: [D") || window << 8 == of(b"\0data:[D") {
        Kind::Done
    } else if window & DATA == of(b"data:\0\0\0") {
        Kind::Event
    } else if window & EVENT == of(b"event:\0\0") && window >> 48 != 0x7020 && window >> 48 & 0xff != 0x70 {
        // `event: p…` and `event:p…` may be a ping.
        Kind::Event
    } else {
        Kind::Other
    }
}

/// What is in a write that may be redirected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    pub events: u32,
    /// Bytes that are no payload.
    pub framing: u32,
}

/// What is in a write of `size` bytes that may be redirected; `None` for every other write. `window` gives the
/// eight bytes at an offset, or nothing where there are no eight.
#[must_use]
#[inline(always)]
pub fn whole(size: u32, window: impl Fn(u32) -> Option<u64>) -> Option<Whole> {
    let mut at = 0;
    let mut whole = Whole::default();
    for _ in 0..CHUNKS_PER_WRITE {
        let chunk = size_line(window(at)?)?;
        let next = at + chunk.whole();
        if next > size || !ends_event(window(next - WINDOW)?) {
            return None;
        }
        match kind(window(at + chunk.line)?) {
            Kind::Event => whole.events += 1,
            Kind::Done => {}
            Kind::Other => return None,
        }
        whole.framing += chunk.line + 2;
        if next == size {
            return Some(whole);
        }
        at = next;
    }
    None
}
