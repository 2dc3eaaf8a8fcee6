//! Replaces a range of bytes in a row of chunks and leaves every other byte where it was.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

/// Puts `replacement` in the place of `span`, which lies inside `chunks`.
pub(super) fn splice(chunks: &mut VecDeque<Bytes>, span: Range<u64>, replacement: Bytes) {
    let mut spliced = VecDeque::with_capacity(chunks.len() + 2);
    let mut replacement = Some(replacement);
    let mut start = 0;
    for chunk in chunks.drain(..) {
        let end = start + chunk.len() as u64;
        // Each bound of the span, as a position in this chunk.
        let cut = |at: u64| at.clamp(start, end).saturating_sub(start) as usize;
        let (before, after) = (cut(span.start), cut(span.end));
        push(&mut spliced, chunk.slice(..before));
        if span.start < end {
            spliced.extend(replacement.take());
        }
        push(&mut spliced, chunk.slice(after.max(before)..));
        start = end;
    }
    spliced.extend(replacement);
    *chunks = spliced;
}

fn push(chunks: &mut VecDeque<Bytes>, chunk: Bytes) {
    if !chunk.is_empty() {
        chunks.push_back(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_splice_equals_the_same_on_one_piece(
            body in proptest::collection::vec(any::<u8>(), 1..200),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
            bounds in any::<(prop::sample::Index, prop::sample::Index)>(),
            replacement in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let mut chunks: VecDeque<Bytes> =
                cuts.windows(2).map(|cut| Bytes::copy_from_slice(&body[cut[0]..cut[1]])).collect();
            let (a, b) = (bounds.0.index(body.len()), bounds.1.index(body.len() + 1));
            let (start, end) = (a.min(b), a.max(b));

            let mut expected = body[..start].to_vec();
            expected.extend_from_slice(&replacement);
            expected.extend_from_slice(&body[end..]);

            splice(&mut chunks, start as u64..end as u64, replacement.into());
            prop_assert_eq!(chunks.iter().flatten().copied().collect::<Vec<u8>>(), expected);
        }
    }
}
