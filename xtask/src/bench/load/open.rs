//! The open loop: requests begin at a fixed rate, and one that finds no free connection waits, its clock running.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::super::answer::now_ns;
use super::link::{Link, State};
use super::ticker::Ticker;

const AFTER_ERROR: Duration = Duration::from_millis(20);

pub(super) fn start(state: &Rc<State>, per_second: u32) -> Result<()> {
    let (due, waiting) = unbounded_channel();
    let waiting = Rc::new(Mutex::new(waiting));
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
                _ = due.send(next_ns);
                next_ns += every_ns;
            }
        }
    });
    Ok(())
}

async fn connection(state: &State, number: usize, waiting: &Mutex<UnboundedReceiver<u64>>) {
    let mut link = Link::new(state, number);
    loop {
        let Some(due_ns) = waiting.lock().await.recv().await else { return };
        if let Err(error) = link.ask(due_ns).await {
            state.fail(&error);
            sleep(AFTER_ERROR).await;
        }
    }
}
