//! Memory for bodies. A worker reads all of them into pieces, one chunk behind the other, and uses a piece again once
//! nobody holds a chunk of it: new memory costs a page fault for each 4 KiB, and lies in no cache.
//!
//! A client that sends nothing has nothing here, and one that sends a few bytes at a time holds these and no piece.

use std::cell::RefCell;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

const PIECE: usize = 256 << 10;
/// A read that could bring more than what is left of a piece gets at least so much, or another piece: a body of 64 KiB
/// with its head.
const LEAST_ROOM: usize = 80 << 10;
/// Less is copied out: a chunk must not keep a piece from being used that is many times its size…
const FEW: usize = PIECE / 8;
/// …and where all that are kept are held, any that is more than twice its size: who holds a lot is to hold what he sent.
const MUCH: usize = PIECE / 2;
/// Full pieces that a worker keeps or knows of: 16 MiB…
const KEPT: usize = 64;
/// …and how many of them at once are worth the time to have malloc give them back: a MiB.
const WORTH_GIVING: usize = 4;

thread_local! {
    static PIECES: RefCell<Pieces> = RefCell::default();
}

struct Pieces {
    /// What is left of the piece that is read into.
    rest: BytesMut,
    /// Of some of these, chunks are still held; the last one was full last.
    full: Vec<BytesMut>,
    /// Pieces that were begun since the last [`sweep`].
    begun: usize,
}

/// What a read brought.
pub(super) enum Arrived<'a> {
    /// To be copied; nothing at the end of the stream.
    Few(&'a [u8]),
    Many(Bytes),
}

/// Reads up to `at_most` bytes, and passes them to `take`.
pub(super) fn poll_read<S: AsyncRead + Unpin, T>(
    stream: &mut S,
    cx: &mut Context<'_>,
    at_most: u64,
    take: impl FnOnce(Arrived<'_>) -> T,
) -> Poll<io::Result<T>> {
    PIECES.with_borrow_mut(|pieces| {
        if (pieces.rest.capacity() as u64) < at_most.min(LEAST_ROOM as u64) {
            pieces.begin();
        }
        let at_most = at_most.min(pieces.rest.capacity() as u64);
        let n = ready!(pin!(stream.take(at_most).read_buf(&mut pieces.rest)).poll(cx))?;
        if n >= MUCH || n >= FEW && !pieces.are_held() {
            return Poll::Ready(Ok(take(Arrived::Many(pieces.rest.split_to(n).freeze()))));
        }
        let taken = take(Arrived::Few(&pieces.rest));
        pieces.rest.clear();
        Poll::Ready(Ok(taken))
    })
}

/// Lets go of what the time since the last call did not need; whether it is worth to be given back to the system. A piece of
/// which a chunk is held stays known, so that the end of what clients hold for long is noticed.
pub fn sweep() -> bool {
    PIECES.with_borrow_mut(|pieces| {
        let (known, mut needed) = (pieces.full.len(), std::mem::take(&mut pieces.begun));
        pieces.full.retain_mut(|piece| {
            let stays = needed > 0 || !piece.try_reclaim(PIECE);
            needed = needed.saturating_sub(1);
            stays
        });
        known - pieces.full.len() >= WORTH_GIVING
    })
}

impl Default for Pieces {
    fn default() -> Self {
        Self { rest: BytesMut::with_capacity(PIECE), full: Vec::new(), begun: 0 }
    }
}

impl Pieces {
    /// Whether chunks are held of every piece that may be kept.
    fn are_held(&mut self) -> bool {
        self.full.len() == KEPT && !self.full.iter_mut().rev().any(|piece| piece.try_reclaim(PIECE))
    }

    /// Goes on to a piece of which nobody holds anything, the one that was full last and so is warm, or to a new one.
    fn begin(&mut self) {
        let free = self.full.iter_mut().rposition(|piece| piece.try_reclaim(PIECE));
        let next = match free {
            Some(at) => self.full.remove(at),
            None => BytesMut::with_capacity(PIECE),
        };
        let before = std::mem::replace(&mut self.rest, next);
        if self.full.len() < KEPT {
            self.full.push(before);
        }
        self.begun += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn read(bytes: usize) -> Bytes {
        let sent = vec![b'x'; bytes];
        let mut stream = &*sent;
        let copied = |arrived: Arrived<'_>| match arrived {
            Arrived::Few(bytes) => Bytes::copy_from_slice(bytes),
            Arrived::Many(chunk) => chunk,
        };
        let chunk = poll_fn(|cx| poll_read(&mut stream, cx, u64::MAX, copied)).await.unwrap();
        assert_eq!(chunk.len(), bytes.min(PIECE));
        chunk
    }

    fn lent() -> usize {
        PIECES.with_borrow(|pieces| pieces.full.len())
    }

    #[tokio::test]
    async fn a_piece_is_used_again_once_nobody_holds_it() {
        let (first, second) = (read(PIECE).await, read(PIECE).await);
        let at = first.as_ptr();
        assert_ne!(second.as_ptr(), at);
        drop(first);
        assert_eq!(read(PIECE).await.as_ptr(), at);
        assert_eq!(lent(), 1);
    }

    #[tokio::test]
    async fn chunks_share_a_piece_and_a_few_bytes_hold_none() {
        let (first, second) = (read(FEW).await, read(FEW).await);
        assert_eq!(second.as_ptr().addr() - first.as_ptr().addr(), FEW);
        let crumb = read(FEW - 1).await;
        let third = read(FEW).await;
        assert_eq!(third.as_ptr().addr() - second.as_ptr().addr(), FEW);
        assert_eq!(&crumb[..], &third[1..]);
    }

    #[tokio::test]
    async fn however_many_chunks_are_held_their_pieces_are_not_many_times_their_size() {
        let mut held = Vec::new();
        for _ in 0..8 * KEPT {
            held.push(read(FEW).await);
            drop(read(PIECE - FEW).await);
        }
        let of = |chunk: Bytes| chunk.try_into_mut().map_or(PIECE, |memory| memory.capacity());
        let memory: usize = held.into_iter().map(of).sum();
        assert!(memory <= KEPT * PIECE + 8 * KEPT * 2 * FEW, "{memory}");
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_and_goes_when_it_is_not_needed() {
        let mut chunks = Vec::new();
        for _ in 0..2 * KEPT {
            chunks.push(read(PIECE).await);
        }
        assert_eq!(lent(), KEPT);
        assert!(!sweep() && !sweep());
        assert_eq!(lent(), KEPT);
        assert!(chunks.iter().all(|chunk| chunk.iter().all(|byte| *byte == b'x')));
        drop(chunks);
        assert!(sweep());
        assert_eq!(lent(), 0);
    }
}
