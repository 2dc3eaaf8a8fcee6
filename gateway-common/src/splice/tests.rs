//! The rules over writes against the framing machine, and against obvious twins.

extern crate std;

use std::format;
use std::string::String;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::framing::{Framing, Piece};

fn window_of(write: &[u8]) -> impl Fn(u32) -> Option<u64> + '_ {
    |offset| {
        let at = usize::try_from(offset).unwrap();
        write.get(at..at + 8).map(|eight| u64::from_ne_bytes(eight.try_into().unwrap()))
    }
}

fn whole_of(write: &[u8]) -> Option<Whole> {
    whole(write.len() as u32, window_of(write))
}

fn events_of(write: &[u8]) -> Option<u32> {
    whole_of(write).map(|whole| whole.events)
}

/// The payloads of the chunks in a write, if the framing machine takes it for whole chunks and nothing else.
fn payloads(write: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut framing, mut rest) = (Framing::chunked(), write);
    let mut payloads: Vec<Vec<u8>> = Vec::new();
    while !rest.is_empty() {
        let n = match framing.next(rest).ok()? {
            Piece::Body(n) => {
                payloads.push(rest[..n].into());
                n
            }
            Piece::Framing(n) => n,
            Piece::Trailer(_) | Piece::Done => return None,
        };
        rest = &rest[n..];
    }
    framing.is_between_chunks().then_some(payloads)
}

fn chunk(payload: &str) -> String {
    format!("{:x}\r\n{payload}\r\n", payload.len())
}

/// A size line, the obvious way.
fn twin_size_line(eight: [u8; 8]) -> Option<Chunk> {
    let end = eight.windows(2).position(|two| two == b"\r\n")?;
    let text = core::str::from_utf8(&eight[..end]).ok()?;
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    let size = u32::from_str_radix(text, 16).ok()?;
    (digits && size > 2).then_some(Chunk { line: end as u32 + 2, size })
}

#[test]
fn what_engines_write_is_spliced_and_counted() {
    for (write, count) in [
        (chunk("data: {\"id\":1}\n\n"), 1),
        (chunk("data:{\"id\":1}\n\n"), 1),
        (chunk("data: {}\r\n\r\n"), 1),
        (chunk("event: content_block_delta\ndata: {}\n\n"), 1),
        (chunk("data: [DONE]\n\n"), 0),
        (chunk("data:[DONE]\n\n"), 0),
        (chunk("data: {}\n\n").repeat(8), 8),
        (chunk("data: {}\n\n") + &chunk("data: [DONE]\n\n"), 1),
        (format!("0000{}", chunk("data: {}\n\n")), 1),
        (chunk(&format!("data: {}\n\n", "x".repeat(0x7000))), 1),
    ] {
        assert_eq!(events_of(write.as_bytes()), Some(count), "{write:?}");
    }
}

#[test]
fn everything_else_is_for_the_gateway() {
    let event = chunk("data: {}\n\n");
    for write in [
        String::new(),
        "0\r\n\r\n".into(),
        event.clone() + "0\r\n\r\n",
        event.repeat(9),
        event[1..].into(),
        event[..event.len() - 1].into(),
        event.clone() + "a",
        chunk("data: {}\n"),
        chunk("data: {}"),
        chunk(": ping\n\n"),
        chunk(":\n\n"),
        chunk("event: ping\ndata: {}\n\n"),
        chunk("event:ping\ndata: {}\n\n"),
        chunk("id: 1\ndata: {}\n\n"),
        chunk("\n\n"),
        chunk("\r\n"),
        event.replacen("\r\n", ";a=b\r\n", 1),
        event.replacen("\r\n", " \r\n", 1),
        event.replacen("\r\n", "\n", 1),
        event.replacen("\r\n", "\r\r", 1),
        format!("000000{event}"),
        event.replacen('a', "\u{11}", 1),
        "ffffff\r\ndata: {}\n\n\r\n".into(),
        "b\r\ndata: {}\n\n\r\n".into(),
    ] {
        assert_eq!(events_of(write.as_bytes()), None, "{write:?}");
    }
}

#[test]
fn nothing_is_spliced_beside_bytes_that_the_gateway_has_not_taken() {
    let bound = Bound { want: 5, budget: 100, ..Bound::default() };
    assert_eq!(bound.admits(5, 0, 100, 0), Ok(()));
    assert_eq!(bound.admits(4, 0, 100, 0), Err(Reason::Late));
    assert_eq!(bound.admits(6, 0, 100, 0), Err(Reason::Late));
    assert_eq!(bound.admits(5, 1, 100, 0), Err(Reason::Budget));
    assert_eq!(bound.admits(5, 0, MIN_CHUNK - 1, 0), Err(Reason::Shape));
    assert_eq!(bound.admits(5, 0, 100, STALE_NS + 1), Err(Reason::Stale));
    let endless = Bound { budget: u64::MAX, ..Bound::default() };
    assert_eq!(endless.admits(0, u64::MAX >> 1, MAX_WRITE, 0), Ok(()));
    assert_eq!(endless.admits(0, 0, MAX_WRITE + 1, 0), Err(Reason::Shape));
}

#[test]
fn a_client_gets_no_more_than_its_buffer_surely_takes_and_no_other_author() {
    let bound = Bound { expected: 7, begun: 1, ..Bound::default() };
    let buffer = Buffer { limit: 16_384, queued: 0, next: 7 };
    assert_eq!(bound.fits(buffer, 200), Ok(()));
    assert_eq!(bound.fits(Buffer { queued: 12_000, ..buffer }, 200), Err(Reason::Full));
    assert_eq!(bound.fits(Buffer { next: 8, ..buffer }, 200), Err(Reason::Unequal));
    assert_eq!(Bound { begun: 0, ..bound }.fits(Buffer { next: 8, ..buffer }, 200), Ok(()));
    assert_eq!(bound.fits(Buffer { queued: i32::MAX, ..buffer }, u32::MAX), Err(Reason::Full));
}

#[test]
fn events_of_one_write_share_the_gap_before_them() {
    let mut report = Report::default();
    report.begin(&Wish { arm: 3, since_ns: 1_000_000, ..Wish::default() });
    let whole = |events| Whole { events, framing: 6 };
    report.book(100, whole(1), 5_000_000);
    report.book(20, whole(0), 6_000_000);
    report.book(100, whole(4), 9_000_000);
    assert_eq!((report.passed, report.writes, report.events), (220, 3, 5));
    assert_eq!(report.framing, 18);
    assert_eq!(report.gap_sum_us, 8_000);
    assert_eq!(report.gaps[..4], [4, 0, 1, 0]);
    report.book(100, whole(1), u64::MAX);
    assert_eq!(report.gaps[GAP_BUCKETS - 1], 1);
}

#[test]
fn every_reason_is_found_by_its_number() {
    for word in 0..20 {
        assert!(Reason::of(word).is_none_or(|reason| reason as u32 == word));
    }
    assert_eq!((1..20).filter_map(Reason::of).count(), 7);
}

#[test]
fn only_loopback_pairs_carry_a_namespace() {
    let pair = |ip| Pair::new((ip, 1, 2), (ip, 3, 4), 5);
    assert_eq!(pair(crate::account::mapped([127, 0, 0, 1])).netns, 5);
    assert_eq!(pair(crate::account::mapped([10, 0, 0, 1])).netns, 0);
}

prop_compose! {
    fn payload()(
        start in prop_oneof![
            Just("data: "), Just("data:"), Just("event: x\ndata: "), Just("event: ping\n"), Just(": "), Just("id: 1\n"),
            Just(""), Just("data: [DONE]"), Just("event: p"),
        ],
        text in "[ -~]{0,40}",
        end in prop_oneof![6 => Just("\n\n"), 1 => Just("\r\n\r\n"), 1 => Just("\n"), 1 => Just("")],
    ) -> String {
        format!("{start}{text}{end}")
    }
}

prop_compose! {
    fn write()(
        chunks in prop::collection::vec(
            (payload(), prop_oneof![9 => Just(""), 1 => Just("0"), 1 => Just("0000000")],
             prop_oneof![12 => Just("\r\n"), 1 => Just(";a=b\r\n"), 1 => Just("\n"), 1 => Just(" \r\n")], any::<bool>()),
            0..10,
        ),
        end in prop_oneof![6 => Just(""), 1 => Just("0\r\n\r\n"), 1 => Just("0\r\n"), 1 => Just("\r\n")],
        cut in prop_oneof![8 => Just(0usize), 1 => 0usize..20],
        flip in prop_oneof![4 => Just(None), 1 => any::<(u16, u8)>().prop_map(Some)],
    ) -> Vec<u8> {
        let mut write = String::new();
        for (payload, zeros, line_end, upper) in chunks {
            let size = if upper { format!("{:X}", payload.len()) } else { format!("{:x}", payload.len()) };
            write += &format!("{zeros}{size}{line_end}{payload}\r\n");
        }
        let mut write = (write + end).into_bytes();
        if let Some((at, byte)) = flip && !write.is_empty() {
            let at = usize::from(at) % write.len();
            write[at] = byte;
        }
        write.truncate(write.len().saturating_sub(cut));
        write
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn a_size_line_is_read_as_its_twin_reads_it(
        eight in prop_oneof![
            any::<[u8; 8]>(),
            "[0-9a-fA-F]{0,8}\r\n[ -~]{8}".prop_map(|text| text.as_bytes()[..8].try_into().unwrap()),
            "[0-9a-fA-F:/`@gG\u{11}\u{1}]{1,6}\r\n[ -~\r\n]{8}".prop_map(|text| text.as_bytes()[..8].try_into().unwrap()),
        ],
    ) {
        prop_assert_eq!(size_line(u64::from_ne_bytes(eight)), twin_size_line(eight), "{:?}", eight);
    }

    /// What is spliced is whole chunks of whole events for the framing machine too, and the machine stands as before.
    #[test]
    fn what_is_spliced_the_framing_machine_takes_the_same_way(write in write()) {
        if let Some(Whole { events, framing }) = whole_of(&write) {
            let payloads = payloads(&write);
            prop_assert!(payloads.is_some(), "{:?}", String::from_utf8_lossy(&write));
            let payloads = payloads.unwrap();
            prop_assert_eq!(payloads.iter().map(Vec::len).sum::<usize>() + framing as usize, write.len());
            let ends = |payload: &Vec<u8>| payload.ends_with(b"\n\n") || payload.ends_with(b"\r\n\r\n");
            prop_assert!(payloads.iter().all(ends));
            let counted = payloads.iter().filter(|payload| {
                !payload.starts_with(b"data: [D") && !payload.starts_with(b"data:[D")
            });
            prop_assert_eq!(counted.count() as u32, events);
        }
    }

    /// The other way round: plain chunks of plain events are spliced, or the whole is for nothing.
    #[test]
    fn plain_events_are_spliced(texts in prop::collection::vec("[ -~]{0,300}", 1..=8)) {
        let write: String = texts.iter().map(|text| chunk(&format!("data: {{{text}\n\n"))).collect();
        prop_assert_eq!(events_of(write.as_bytes()), Some(texts.len() as u32));
    }
}
