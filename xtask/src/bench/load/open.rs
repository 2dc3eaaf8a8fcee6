//! The open loop: requests begin at a fixed rate, and one that finds no free connection waits, its clock running. The
//! connection that became free last is asked first, as the pools of clients do.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::super::answer::now_ns;
use super::link::{Link, State};
use super::ticker::Ticker;

const AFTER_ERROR: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Waiting {
    /// When requests that found no connection were due.
    requests: VecDeque<u64>,
    /// Connections without a request; the last became free last.
    connections: Vec<UnboundedSender<u64>>,
}

pub(super) fn start(state: &Rc<State>, per_second: u32) -> Result<()> {
    let waiting = Rc::new(RefCell::new(Waiting::default()));
    for number in 0..state.watches.len() {
        let (state, waiting) = (Rc::clone(state), Rc::clone(&waiting));
        spawn_local(async move { connection(&state, number, &waiting).await });
    }
    let every_ns = 1_000_000_000 * state.shared.plan.threads as u64 / u64::from(per_second);
    let mut ticker = Ticker::new()?;
    spawn_local(async move {
        let mut next_ns = now_ns() + every_ns;
        while ticker.until(next_ns).await.is_ok() {
            // What is overdue begins now, but its clock runs since it was due.
            while next_ns <= now_ns() {
                waiting.borrow_mut().begin(next_ns);
                next_ns += every_ns;
            }
        }
    });
    Ok(())
}

impl Waiting {
    fn begin(&mut self, due_ns: u64) {
        match self.connections.pop() {
            Some(connection) => _ = connection.send(due_ns),
            None => self.requests.push_back(due_ns),
        }
    }
}

async fn connection(state: &State, number: usize, waiting: &RefCell<Waiting>) {
    let mut link = Link::new(state, number);
    let (sender, mut due) = unbounded_channel();
    while let Some(due_ns) = next(waiting, &sender, &mut due).await {
        if let Err(error) = link.ask(due_ns).await {
            state.fail(&error);
            sleep(AFTER_ERROR).await;
        }
    }
}

/// When the request is due that this connection gets: now, or once there is one.
async fn next(
    waiting: &RefCell<Waiting>,
    sender: &UnboundedSender<u64>,
    due: &mut UnboundedReceiver<u64>,
) -> Option<u64> {
    let overdue = waiting.borrow_mut().requests.pop_front();
    if overdue.is_some() {
        return overdue;
    }
    waiting.borrow_mut().connections.push(sender.clone());
    due.recv().await
}
