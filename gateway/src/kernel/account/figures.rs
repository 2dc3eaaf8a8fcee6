//! One endpoint's figures, out of the rows, the look and the list of older connections.

use std::net::SocketAddr;

use penstock_common::account::{OWNERS, Row, Side, Sight};

use crate::kernel::diag::{Found, mean};
use crate::kernel::sys::Rows;
use crate::kernel::{Ages, EndpointCounts};

/// What is carried from one read to the next.
pub(super) struct Figures {
    pub address: SocketAddr,
    pub slot: u32,
    passive_seen: bool,
    last: EndpointCounts,
    /// What the rows had more than the look, at the last read.
    ahead: i64,
    ages: Ages,
}

impl Figures {
    pub(super) fn new(address: SocketAddr, slot: u32) -> Self {
        Self {
            address,
            slot,
            passive_seen: false,
            last: EndpointCounts::default(),
            ahead: 0,
            ages: Ages::default(),
        }
    }

    /// The figures now; `number` is this gateway's.
    pub(super) fn take<'a>(
        &mut self,
        rows: &Rows,
        sights: &[Sight],
        older: impl Iterator<Item = &'a Found> + Clone,
        number: u8,
    ) -> EndpointCounts {
        let side = self.side(rows, older.clone());
        let older = older.filter(move |found| found.side == side);
        let sights: Vec<&Sight> =
            sights.iter().filter(|sight| sight.slot == self.slot && sight.side == side as u8).collect();
        let sum = total(rows, self.slot, side);
        let active = total(rows, self.slot, Side::Active);
        let last = self.last;

        let counted = clamp(sum.open);
        let old = older.clone().count() as u32;
        let open = counted + old;
        // The larger: behind an address translation the engine's end of our own connection is not known for ours.
        let own =
            clamp(rows.sum(self.slot, side, number).open.max(rows.sum(self.slot, Side::Active, number).open));
        let foreign_open = open.saturating_sub(own);
        let busy = sights.iter().filter(|sight| sight.owner != number && sight.busy == 1).count()
            + older.clone().filter(|found| found.is_busy()).count();

        let seen = |f: fn(&Sight) -> u64| sights.iter().map(|sight| f(sight)).sum::<u64>();
        let (received, sent) = (seen(|s| s.look.received), seen(|s| s.look.sent));
        let (received, sent) =
            (received.wrapping_add_signed(sum.received), sent.wrapping_add_signed(sum.sent));
        let (request, answer) = if side == Side::Passive { (received, sent) } else { (sent, received) };
        let old_bytes = older.clone().map(Found::bytes).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        let retransmits = seen(|s| u64::from(s.look.retransmits)).wrapping_add_signed(sum.retransmits);

        let opened_total = sum.opened.max(0).cast_unsigned();
        let mut counts = EndpointCounts {
            open,
            foreign_open,
            foreign_busy: u32::try_from(busy).unwrap_or(u32::MAX).min(foreign_open),
            opened_total,
            closed_total: opened_total.saturating_sub(u64::from(counted)),
            failed_total: active.failed.max(0).cast_unsigned(),
            reset_total: sum.reset.max(0).cast_unsigned(),
            srtt_us: mean(sights.iter().map(|s| s.look.srtt_us).chain(older.map(|found| found.info.srtt_us))),
            // A connection that ends between the look and the rows is in both or neither: totals wait, never fall.
            retransmits_total: retransmits.max(last.retransmits_total),
            request_bytes_total: (request + old_bytes.0).max(last.request_bytes_total),
            answer_bytes_total: (answer + old_bytes.1).max(last.answer_bytes_total),
            request_age: None,
            answer_age: None,
            stream_age: None,
            older: old,
            drift: self.drift(i64::from(counted) - sights.len() as i64),
        };
        self.ages.take(&mut counts, &last);
        self.last = counts;
        counts
    }

    /// Whether somebody else has a connection to the endpoint.
    pub(super) fn has_others(&self, rows: &Rows, number: u8) -> bool {
        let others = || (0..OWNERS as u8).filter(|owner| *owner != number);
        let open = |side| others().map(|owner| rows.sum(self.slot, side, owner).open).sum::<i64>();
        open(Side::Passive) > 0 || open(Side::Active) > 0
    }

    /// What stays apart over two reads: the rows and the look are not read at one moment.
    fn drift(&mut self, ahead: i64) -> i32 {
        let before = std::mem::replace(&mut self.ahead, ahead);
        let stays = if before.signum() == ahead.signum() {
            before.abs().min(ahead.abs()) * ahead.signum()
        } else {
            0
        };
        i32::try_from(stays).unwrap_or(i32::MAX)
    }

    /// The engine's own sockets show every client; where the engine is another host's, only ours can be counted.
    fn side<'a>(&mut self, rows: &Rows, mut older: impl Iterator<Item = &'a Found>) -> Side {
        self.passive_seen = self.passive_seen
            || total(rows, self.slot, Side::Passive).opened > 0
            || older.any(|found| found.side == Side::Passive);
        if self.passive_seen { Side::Passive } else { Side::Active }
    }
}

fn total(rows: &Rows, slot: u32, side: Side) -> Row {
    let mut total = Row::default();
    for owner in 0..OWNERS as u8 {
        total += rows.sum(slot, side, owner);
    }
    total
}

fn clamp(open: i64) -> u32 {
    u32::try_from(open.max(0)).unwrap_or(u32::MAX)
}
