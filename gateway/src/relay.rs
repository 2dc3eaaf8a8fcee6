//! Bytes of answers on their way to the client.

pub mod tap;
