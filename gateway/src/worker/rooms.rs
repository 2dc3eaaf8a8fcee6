//! Where requests are answered: one future for each that is in flight, which is kept for a later one.
//!
//! It has a few KiB, and for pieces of that size malloc takes more than a thousand instructions each time.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;

use super::Worker;
use crate::relay::Answer;
use crate::request::{self, Client};

/// Free rooms that are kept: a quarter of a MiB.
const KEPT: usize = 64;

/// The free rooms of a worker.
#[derive(Default)]
pub(super) struct Rooms(RefCell<Vec<Room>>);

/// Answers one request after another.
struct Room {
    desk: Rc<Desk>,
    work: Pin<Box<dyn Future<Output = Infallible>>>,
}

/// Where a request is left for a room, and its answer for who asked.
#[derive(Default)]
struct Desk {
    asked: RefCell<Option<(Rc<Client>, Request<Incoming>)>>,
    answer: RefCell<Option<Response<Answer>>>,
}

/// A request in its room. Where it is dropped before its answer is there, the room goes with it, and so does all that is
/// done in it.
pub(super) struct Answering {
    worker: Rc<Worker>,
    room: Option<Room>,
}

impl Rooms {
    fn enter(&self, client: Rc<Client>, request: Request<Incoming>) -> Room {
        let room = self.0.borrow_mut().pop().unwrap_or_else(Room::new);
        *room.desk.asked.borrow_mut() = Some((client, request));
        room
    }

    fn leave(&self, room: Room) {
        let mut free = self.0.borrow_mut();
        if free.len() < KEPT {
            free.push(room);
        }
    }
}

impl Room {
    fn new() -> Self {
        let desk = Rc::<Desk>::default();
        Self { desk: desk.clone(), work: Box::pin(work(desk)) }
    }
}

async fn work(desk: Rc<Desk>) -> Infallible {
    loop {
        let asked = poll_fn(|_| desk.asked.borrow_mut().take().map_or(Poll::Pending, Poll::Ready));
        let (client, request) = asked.await;
        let answer = request::serve(&client, request).await;
        *desk.answer.borrow_mut() = Some(answer);
    }
}

impl Answering {
    pub(super) fn new(client: &Rc<Client>, request: Request<Incoming>) -> Self {
        let worker = client.worker.clone();
        let room = Some(worker.rooms.enter(client.clone(), request));
        Self { worker, room }
    }
}

impl Future for Answering {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(room) = &mut self.room else { return Poll::Pending };
        let Poll::Pending = room.work.as_mut().poll(cx);
        let Some(answer) = room.desk.answer.borrow_mut().take() else { return Poll::Pending };
        if let Some(room) = self.room.take() {
            self.worker.rooms.leave(room);
        }
        Poll::Ready(Ok(answer))
    }
}
