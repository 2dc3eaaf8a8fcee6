//! One HTTP/1.1 message at a time: which of the received bytes hyper may have.
//!
//! hyper must never see a byte behind the message it works on: with surplus bytes in its buffer it no longer
//! notices that the client left.

use std::sync::LazyLock;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter};
use penstock_common::framing::{Framing, FramingError, Piece, is_token};

use super::body::CameWithHead;
use crate::failure::{Dialect, Failure, Reason};
use crate::gate::MAX_HEAD_BYTES;
use crate::gate::head::{RequestHead, check_request, check_request_line, invalid, too_large};

/// RFC 9110 section 15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Of a head.
const END: &[u8; 4] = b"\r\n\r\n";
static FIND_END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(END));

/// Whose turn it is on a connection: the next head's, or the message's that hyper works on.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Bytes at the front of the held ones that hyper may have.
    pub(super) released: usize,
    pub(super) phase: Phase,
    /// What came behind the held bytes in a large read, while it is not known what it is.
    pub(super) behind: Bytes,
    /// The body of the message, where it is [kept from hyper](super::body), until the service takes it.
    pub(super) body: Option<CameWithHead>,
    /// How many messages there were.
    pub(super) messages: u64,
    /// No byte of a head has come for a while: hyper waits, and holds nothing that counts.
    pub(super) quiet: bool,
}

#[derive(Debug)]
pub(super) enum Phase {
    Head(Wait),
    Message(Message),
}

/// For the end of a head.
#[derive(Debug, Default)]
pub(super) struct Wait {
    /// Bytes that are known not to hold the end.
    scanned: usize,
    /// One empty line may come before a head (RFC 9112 section 2.2).
    blank_skipped: bool,
    line_checked: bool,
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) framing: Framing,
    /// Bytes to come of a body whose length was declared, which is kept from hyper; 0 for any other.
    pub(super) left: u64,
    /// And that were read of it in this turn of the loop.
    pub(super) turn_bytes: usize,
    /// What a client waits for that declared it: goes out once the body is wanted.
    pub(super) interim: &'static [u8],
    /// The client wants the connection for more.
    pub(super) keep_alive: bool,
    pub(super) answered: bool,
    /// hyper's buffer was empty after the answer: nothing of it is lost when the next head is refused.
    flushed: bool,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Head(Wait::default())
    }
}

impl Turn {
    pub(super) fn answered(&mut self) {
        if let Phase::Message(message) = &mut self.phase {
            message.answered = true;
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        match &self.phase {
            Phase::Head(_) => true,
            Phase::Message(message) => message.is_over(),
        }
    }

    /// hyper's buffer is empty; whether that ends an answer.
    pub(super) fn flushed(&mut self) -> bool {
        match &mut self.phase {
            Phase::Message(message) if message.answered && !message.flushed => {
                message.flushed = true;
                true
            }
            _ => false,
        }
    }

    /// Releases the head at the front of `held`, if it is whole.
    pub(super) fn release_head(&mut self, held: &mut BytesMut) -> Result<bool, (Failure, Dialect)> {
        let Phase::Head(wait) = &mut self.phase else { return Ok(false) };
        let mut end = wait.scan(held);
        if matches!(end, Ok(None)) && !self.behind.is_empty() {
            // A large head.
            held.extend_from_slice(&std::mem::take(&mut self.behind));
            end = wait.scan(held);
        }
        let whole = end.and_then(|end| end.map(|end| check_request(&held[..end])).transpose());
        match whole {
            Ok(Some(head)) => {
                self.begin(&head, held);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(failure) => Err((failure, dialect(held))),
        }
    }

    /// Begins the message of this head, with which `held` begins.
    fn begin(&mut self, head: &RequestHead, held: &mut BytesMut) {
        let left = head.length.unwrap_or(0);
        let mut message = Message { left, keep_alive: head.keep_alive, ..Message::new(head.framing) };
        let mut behind = std::mem::take(&mut self.behind);
        if left == 0 {
            held.extend_from_slice(&std::mem::take(&mut behind));
        }
        // A body that breaks its framing is refused when it is its turn.
        let here = message.walk(&held[head.consumed..]).unwrap_or(0);
        // What is here of a body without a declared length goes with its head, which saves hyper a read.
        self.released = if left > 0 { head.consumed } else { head.consumed + here };
        self.body = (left > 0).then(|| {
            let copied = take_body(held, head, here);
            let ours = message.walk(&behind).unwrap_or(0);
            let came = CameWithHead(copied, behind.split_to(ours));
            held.extend_from_slice(&behind);
            came
        });
        if left > 0 && head.expects_continue && message.left == left {
            message.interim = CONTINUE;
        }
        self.phase = Phase::Message(message);
        self.messages += 1;
    }
}

/// Takes what is here of the body from behind its head, which says from then on that there is none.
fn take_body(held: &mut BytesMut, head: &RequestHead, length: usize) -> Bytes {
    let digits = held[head.length_at..].iter_mut().take_while(|byte| byte.is_ascii_digit());
    digits.for_each(|digit| *digit = b'0');
    let mut behind = held.split_off(head.consumed);
    let body = behind.split_to(length).freeze();
    held.unsplit(behind);
    body
}

impl Wait {
    /// The length of the head that `held` begins with, once it is whole. Refuses early what cannot become one.
    fn scan(&mut self, held: &mut BytesMut) -> Result<Option<usize>, Failure> {
        if !self.blank_skipped && held.first() == Some(&b'\r') {
            match held.get(1) {
                None => return Ok(None),
                Some(b'\n') => held.advance(2),
                Some(_) => {}
            }
            self.blank_skipped = true;
        }
        let Some(&first) = held.first() else { return Ok(None) };
        if !is_token(first) {
            return Err(invalid("the request does not begin with a method"));
        }
        let from = self.scanned.saturating_sub(END.len() - 1);
        if let Some(at) = FIND_END.find(&held[from..]) {
            let end = from + at + END.len();
            return if end <= MAX_HEAD_BYTES { Ok(Some(end)) } else { Err(too_large()) };
        }
        for at in memchr_iter(b'\n', &held[self.scanned..]) {
            if !held[..self.scanned + at].ends_with(b"\r") {
                return Err(invalid("a line of the head does not end in CRLF"));
            }
        }
        // A head that is here whole is checked whole.
        if !self.line_checked
            && let Some(line) = memchr(b'\n', held)
        {
            check_request_line(&held[..=line])?;
            self.line_checked = true;
        }
        self.scanned = held.len();
        if held.len() < MAX_HEAD_BYTES { Ok(None) } else { Err(too_large()) }
    }
}

impl Message {
    fn new(framing: Framing) -> Self {
        let (keep_alive, answered, flushed) = (false, false, false);
        Self { framing, left: 0, turn_bytes: 0, interim: &[], keep_alive, answered, flushed }
    }

    /// How many bytes at the front of `input` belong to this message.
    pub(super) fn walk(&mut self, input: &[u8]) -> Result<usize, Failure> {
        let mut walked = 0;
        while let Some(rest) = input.get(walked..).filter(|rest| !rest.is_empty()) {
            match self.framing.next(rest).map_err(broken)? {
                Piece::Body(n) | Piece::Framing(n) | Piece::Trailer(n) => walked += n,
                Piece::Done => break,
            }
        }
        self.left = self.left.saturating_sub(walked as u64);
        Ok(walked)
    }

    /// The next head may come.
    pub(super) fn is_over(&self) -> bool {
        self.framing.is_done() && self.is_answered()
    }

    /// Nothing of the answer is on its way any more.
    pub(super) fn is_answered(&self) -> bool {
        self.answered && self.flushed
    }
}

pub(super) fn head_slow() -> Failure {
    Failure::new(Reason::HeadSlow, "the request head did not come in time; send it at once")
}

fn broken(error: FramingError) -> Failure {
    Failure::new(Reason::BodyInvalid, format!("the request body is not what its framing says: {error}"))
}

/// The dialect that the path of a refused head asks for, as far as it can be told.
pub(super) fn dialect(head: &[u8]) -> Dialect {
    let line = head.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    let target = line.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    std::str::from_utf8(path).map_or_else(|_| Dialect::default(), Dialect::of_path)
}
