//! The closed loop: each connection asks again as soon as it has its answer; or asks once and stays.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;

use super::super::answer::now_ns;
use super::Arrival;
use super::link::{Link, State};

/// After an error, so that a peer that is down is not asked in a busy loop.
const AFTER_ERROR: Duration = Duration::from_millis(20);
/// Connections begin spread over a time, some each millisecond: thousands at once would overrun a listener.
const STARTS_PER_MS: usize = 8;

pub(super) fn start(state: &Rc<State>) {
    for number in 0..state.watches.len() {
        let state = Rc::clone(state);
        spawn_local(async move { connection(&state, number).await });
    }
}

async fn connection(state: &State, number: usize) {
    sleep(Duration::from_millis((number / STARTS_PER_MS) as u64)).await;
    let mut link = Link::new(state, number);
    loop {
        let asked = link.ask(now_ns()).await;
        if let Err(error) = &asked {
            state.fail(error);
            sleep(AFTER_ERROR).await;
        } else if state.shared.plan.arrival == Arrival::Once {
            // Held open until the load ends.
            std::future::pending::<()>().await;
        }
    }
}
