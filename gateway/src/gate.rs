//! The gate: reads before hyper does, and lets only bytes through that have exactly one reading.
//!
//! hyper is kind where an engine is strict, and the other way round; what the two read differently is a way
//! around the gateway. So heads are checked by stricter rules than hyper's ([`head`], [`answer`]), bodies are
//! followed with the framing machine that the kernel half uses, and [`io`], the type that hyper reads from, hands
//! on one whole message at a time. It also keeps the deadlines that hyper lacks.

#![forbid(unsafe_code)]

pub mod answer;
pub mod fields;
pub mod head;
pub mod hyper;
pub mod io;

/// Bytes of a head, of a request or an answer, with its empty line; of an HTTP/2 header block on the wire too.
pub const MAX_HEAD_BYTES: usize = 64 << 10;
/// Field lines of an HTTP/1.1 head: what hyper and httparse are given room for.
pub const MAX_FIELDS: usize = 100;
/// Field lines of an HTTP/2 request; each crumb of a cookie is one.
pub const MAX_H2_FIELDS: usize = 1000;
