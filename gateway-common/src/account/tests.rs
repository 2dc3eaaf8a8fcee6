extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;

fn socket(side: Side) -> Socket {
    Socket { side: side as u8, stage: stage::OPEN, ..Socket::default() }
}

/// A gateway's clock starts long after 0, which means never.
const START: u64 = 1_000_000_000_000;
const LOOK: u64 = 100_000_000;

#[test]
fn nothing_has_padding_that_would_carry_kernel_memory_out_or_make_keys_differ() {
    assert_eq!(size_of::<Key>(), 16 + 8 + 2 + 6);
    assert_eq!(size_of::<Own>(), 16 + 4 + 2 + 2);
    assert_eq!(size_of::<Entry>(), 8);
    assert_eq!(size_of::<Row>(), 64);
    assert_eq!(size_of::<Socket>(), 8 + 8 + 4 + 4 + 7 * 8);
    assert_eq!(size_of::<Sight>(), 8 + 4 + 4 + 8 + 8 + 4 + 4);
}

#[test]
fn a_namespace_belongs_to_loopback_keys_only() {
    let lo6 = {
        let mut ip = [0; 16];
        ip[15] = 1;
        ip
    };
    for (ip, netns) in [
        (mapped([127, 0, 0, 1]), 7),
        (mapped([127, 255, 0, 9]), 7),
        (lo6, 7),
        (mapped([10, 0, 0, 1]), 0),
        (mapped([128, 0, 0, 1]), 0),
        ([0; 16], 0),
        ([0x7f; 16], 0),
    ] {
        assert_eq!(Key::new(ip, 80, 7).netns, netns, "{ip:?}");
    }
    assert_eq!(Key::any(80, 7).netns, 7);
}

#[test]
fn no_two_places_share_a_row() {
    let mut seen = std::collections::HashSet::new();
    for cpu in 0..3 {
        for slot in 0..ENDPOINTS as u32 {
            for side in 0..2 {
                for owner in 0..OWNERS as u8 {
                    let row = row(cpu, slot, side, owner);
                    assert!(row < (cpu + 1) * ROWS_PER_CPU as u32 && seen.insert(row));
                }
            }
        }
    }
}

#[test]
fn an_engines_end_waits_from_the_first_request_byte_to_the_first_acknowledged_answer_byte() {
    let mut socket = socket(Side::Passive);
    assert!(!socket.is_waiting());
    socket.look(&Look { received: 100, ..Look::default() }, START);
    assert!(socket.is_waiting() && socket.is_busy(START + 60_000_000_000));
    // The acknowledgement of the answer comes with the next request's 50 bytes.
    socket.acknowledged(150, 2_150, 2_100);
    socket.look(&Look { received: 150, sent: 10, ..Look::default() }, START + 1);
    assert!(socket.is_waiting());
    socket.acknowledged(150, 2_150, 2_150);
    assert!(!socket.is_waiting() && !socket.is_busy(START + 1));
}

/// Which of ten looks find a connection busy that was asked before the first, if an answer's bytes move before `moving`.
fn busy_looks(side: Side, moving: &[u64]) -> Vec<u64> {
    let mut socket = socket(side);
    let (mut request, mut answer) = (100, 0);
    let mut busy = Vec::new();
    for look in 0..10 {
        answer += if moving.contains(&look) { 50 } else { 0 };
        let (received, sent) = if side == Side::Passive { (request, answer) } else { (answer, request) };
        if answer > 0 {
            // What waits is another test's matter.
            socket.acknowledged(if side == Side::Passive { received } else { 0 }, 0, 0);
        }
        socket.look(&Look { received, sent, ..Look::default() }, START + look * LOOK);
        if socket.answers > 0 && socket.is_busy(START + look * LOOK) {
            busy.push(look);
        }
        // The next request of a kept connection, long after.
        request += if look == 8 { 100 } else { 0 };
    }
    busy
}

#[test]
fn a_stream_is_busy_until_it_pauses_longer_than_it_did_and_an_answer_in_one_go_never() {
    for side in [Side::Passive, Side::Active] {
        assert_eq!(busy_looks(side, &[1]), []);
        assert_eq!(busy_looks(side, &[0, 9]), [], "two answers in one go");
        assert_eq!(busy_looks(side, &[1, 2, 3, 4]), [2, 3, 4]);
        assert_eq!(busy_looks(side, &[0, 2, 4]), [2, 3, 4, 5], "slow tokens");
        assert_eq!(busy_looks(side, &[0, 6, 7]), [6, 7, 8], "a long prefill after the head");
    }
}

#[test]
fn a_clients_end_waits_from_the_acknowledged_request_to_the_first_answer_byte() {
    let mut socket = socket(Side::Active);
    socket.look(&Look { sent: 1, ..Look::default() }, START);
    assert!(!socket.is_busy(START), "the SYN is no request");
    // The request is acknowledged by the packet that brings the answer's first five bytes.
    socket.acknowledged(5, 5, 0);
    socket.look(&Look { sent: 101, ..Look::default() }, START);
    assert!(socket.is_waiting());
    socket.look(&Look { sent: 101, received: 5, ..Look::default() }, START);
    assert!(!socket.is_waiting());
}

#[test]
fn only_orderly_closes_are_no_resets() {
    // ESTABLISHED 1, SYN_RECV 3, FIN_WAIT1 4, FIN_WAIT2 5, TIME_WAIT 6, CLOSE_WAIT 8, LAST_ACK 9, CLOSING 11.
    for (state, reset) in
        [(1, true), (3, true), (4, true), (5, false), (6, false), (8, true), (9, false), (11, false)]
    {
        assert_eq!(is_reset(state), reset, "{state}");
    }
}

/// One exchange: bytes of a request, whether it is answered, and whether the acknowledgement rides on what comes next.
type Exchange = (u16, bool);

proptest! {
    /// The obvious twin: a connection waits if and only if its last request has no answer yet.
    #[test]
    fn waiting_is_an_unanswered_last_request(exchanges in proptest::collection::vec(any::<Exchange>(), 0..40)) {
        let mut socket = socket(Side::Passive);
        let (mut received, mut sent, mut next) = (0u64, 0u64, 77u32);
        let mut unacknowledged = None;
        let mut waiting = false;
        for (length, rides) in exchanges {
            let length = u64::from(length) + 1;
            let before = next;
            received += length;
            next = next.wrapping_add(length as u32);
            if unacknowledged.take().is_some() {
                // The next request brings the acknowledgement of the last answer.
                socket.acknowledged(received, next, before);
            }
            socket.look(&Look { received, sent, ..Look::default() }, START);
            prop_assert!(socket.is_waiting());
            waiting = true;
            if length % 7 != 0 {
                sent += 5;
                if rides {
                    unacknowledged = Some(());
                } else {
                    socket.acknowledged(received, next, next);
                    waiting = false;
                }
                socket.look(&Look { received, sent, ..Look::default() }, START);
            }
        }
        if unacknowledged.is_none() {
            prop_assert_eq!(socket.is_waiting(), waiting);
        }
    }
}
