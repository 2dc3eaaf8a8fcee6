//! A word that is given once to every task of a worker.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Local to one thread: nothing is shared between workers, and waiting costs no reference count. Each connection waits
/// for a few of them beside all it does, so that a look takes a handful of instructions and no lock.
#[derive(Debug, Default)]
pub(super) struct Flag {
    is_set: Cell<bool>,
    waiting: RefCell<Waiting>,
}

/// Whom to wake, each at its own place.
#[derive(Debug, Default)]
struct Waiting {
    places: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// Ready when the flag is set.
#[derive(Debug)]
pub(super) struct Wait<'f> {
    flag: &'f Flag,
    place: Option<usize>,
}

impl Flag {
    pub(super) fn set(&self) {
        self.is_set.set(true);
        // Places stay taken until those who wait are dropped. Waking runs code that is not ours: behind the borrow.
        let waiting: Vec<Waker> =
            self.waiting.borrow_mut().places.iter_mut().filter_map(Option::take).collect();
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(super) fn is_set(&self) -> bool {
        self.is_set.get()
    }

    /// Ready when it is set.
    pub(super) fn wait(&self) -> Wait<'_> {
        Wait { flag: self, place: None }
    }
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let flag = self.flag;
        if flag.is_set() {
            return Poll::Ready(());
        }
        let mut waiting = flag.waiting.borrow_mut();
        let place = *self.place.get_or_insert_with(|| waiting.take_place());
        if let Some(waker) = waiting.places.get_mut(place)
            && !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let waker = self.flag.waiting.borrow_mut().leave(place);
            drop(waker);
        }
    }
}

impl Waiting {
    fn take_place(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        })
    }

    fn leave(&mut self, place: usize) -> Option<Waker> {
        self.free.push(place);
        self.places.get_mut(place)?.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_reaches_those_who_wait_and_those_who_come_late() {
        let flag = Flag::default();
        tokio::join!(flag.wait(), flag.wait(), async { flag.set() });
        flag.wait().await;
    }

    #[tokio::test]
    async fn who_no_longer_waits_leaves_a_place_for_the_next() {
        let flag = Flag::default();
        for _ in 0..3 {
            tokio::select! {
                biased;
                () = flag.wait() => panic!("not set"),
                () = flag.wait() => panic!("not set"),
                () = std::future::ready(()) => {}
            }
        }
        assert_eq!(flag.waiting.borrow().places.len(), 2);
        assert_eq!(flag.waiting.borrow().free.len(), 2);
    }
}
