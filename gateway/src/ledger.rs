//! Each request closes one entry. (Placeholder until the ledger lands: see the brief.)

/// Counts the requests of one pool and model.
#[derive(Debug, Default)]
pub struct Meter {}
