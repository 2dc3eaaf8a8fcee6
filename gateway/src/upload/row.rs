//! A row of chunks that joins crumbs: a chunk of a few bytes costs many times its size to keep and to write.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Chunks below this size are joined with their neighbours…
const CRUMB: usize = 1 << 10;
/// …to pieces of about this one.
const JOINED: usize = 16 << 10;

#[derive(Debug, Default)]
pub struct Row {
    chunks: VecDeque<Bytes>,
    /// Crumbs that come behind the chunks.
    tail: BytesMut,
    bytes: usize,
}

impl Row {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes in the row.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether [`Self::pop`] would take everything.
    #[must_use]
    pub fn is_one_chunk(&self) -> bool {
        self.chunks.len() + usize::from(!self.tail.is_empty()) == 1
    }

    /// Adds a chunk at the end; a first one stays as it is, so that a small body is never copied.
    pub fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        if chunk.len() < CRUMB && !(self.chunks.is_empty() && self.tail.is_empty()) {
            self.tail.extend_from_slice(&chunk);
            if self.tail.len() >= JOINED {
                self.flush();
            }
        } else if !chunk.is_empty() {
            self.flush();
            self.chunks.push_back(chunk);
        }
    }

    /// Takes the first chunk.
    pub fn pop(&mut self) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.flush();
        }
        let chunk = self.chunks.pop_front()?;
        self.bytes -= chunk.len();
        Some(chunk)
    }

    /// Puts everything of `before` in front.
    pub fn prepend(&mut self, mut before: Self) {
        before.flush();
        self.bytes += before.bytes;
        for chunk in before.chunks.into_iter().rev() {
            self.chunks.push_front(chunk);
        }
    }

    /// The chunks themselves, to be changed; [`Self::bytes`] counts them anew.
    pub(super) fn edit(&mut self, edit: impl FnOnce(&mut VecDeque<Bytes>)) {
        self.flush();
        edit(&mut self.chunks);
        self.bytes = self.chunks.iter().map(Bytes::len).sum();
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contents(mut row: Row) -> Vec<u8> {
        std::iter::from_fn(|| row.pop()).flatten().collect()
    }

    #[test]
    fn crumbs_are_joined_and_a_first_chunk_is_not_copied() {
        let mut row = Row::default();
        let first = Bytes::from_static(b"x");
        row.push(first.clone());
        for _ in 0..100_000 {
            row.push(Bytes::from_static(b"y"));
        }
        assert!(row.chunks.len() < 10);
        assert_eq!(row.pop().unwrap().as_ptr(), first.as_ptr());
    }

    proptest! {
        #[test]
        fn a_row_keeps_every_byte_in_order(sizes in proptest::collection::vec(0_usize..3000, 0..40), split in 0_usize..40) {
            let (mut before, mut row) = (Row::default(), Row::default());
            let mut expected = Vec::new();
            for (at, size) in sizes.into_iter().enumerate() {
                let chunk = vec![at as u8; size];
                expected.extend_from_slice(&chunk);
                if at < split { &mut before } else { &mut row }.push(chunk.into());
            }
            row.prepend(before);
            prop_assert_eq!(row.bytes(), expected.len());
            prop_assert_eq!(contents(row), expected);
        }
    }
}
