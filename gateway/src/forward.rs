//! The engine's side of a request: connections, the request as the engine gets it, the first bytes of its answer.
//!
//! A lean HTTP/1.1 codec of our own, on httparse and [`penstock_common::framing`], instead of hyper's client: it
//! shares the strict reading of the gate, sends the client's chunks without copying them, knows to the byte what an
//! engine has received (which decides whether a retry is safe), and can reset a connection in the middle of a body.

mod attempt;
mod connection;
mod connections;
mod fields;
mod send;
mod stream;

pub use attempt::{Attempt, AttemptError, Seen, Terms, attempt};
pub use connection::{Connection, with_scratch};
pub use connections::Connections;
pub use fields::{Owed, TRACEPARENT, TRACEPARENT_BYTES, X_REQUEST_ID, forwarded_for, request_head, via};
pub use send::{SendError, Sending};
