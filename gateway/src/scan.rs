//! The body scanner: finds the one `model` of a request while its bytes flow past, and keeps none of them.
//!
//! It is a state machine over chunks that may be cut anywhere. It reports what a request asks for as spans of
//! body offsets, and refuses every body that two readers could read in two ways: if a scan ends well with model
//! M, every reference reader (Python json, serde_json, Go encoding/json, nlohmann; Starlette, cpp-httplib and Go
//! for forms) that accepts the body reads M. The arguments stand in `nested` (JSON) and `multipart` (forms); the
//! proof is `twin`, an obvious second reading of the same rules, with which the scanner must agree.
//!
//! JSON is read by blocks of 64 bytes (`blocks`), as bit masks that `simd` makes with the best vector instructions
//! of the CPU, chosen at run time; the algorithm is written once. `benches/scan.rs` measures it.

mod blocks;
mod error;
mod json;
mod multipart;
mod name;
mod nested;
mod number;
mod simd;
mod text;

// cargo-fuzz sets `fuzzing`; its targets call what the tests call.
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod proof;
#[cfg(test)]
mod tests;
#[cfg(any(test, fuzzing))]
mod twin;

use std::ops::Range;

pub use error::{ScanError, ScanErrorKind};
pub use json::JsonScanner;
pub use multipart::MultipartScanner;
pub use name::Name;

/// The most bytes that a decoded model name may have.
pub const MODEL_MAX: usize = 256;

/// The model that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelValue {
    /// Decoded: escapes resolved, valid UTF-8, 1 to [`MODEL_MAX`] bytes, no control characters.
    pub name: Name,
    /// Body offsets of its raw bytes: between the quotes in JSON, the part's content in a form.
    pub span: Range<u64>,
}

/// What else a scan learns. These are hints for picking, read as most engines read them (the last of two
/// equal keys counts, another type counts as absent); nothing that decides access may rest on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub stream: Option<bool>,
    /// `max_tokens`, `max_completion_tokens` or `max_output_tokens`.
    pub max_tokens: Option<u64>,
}

/// How a body spells its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Multipart,
}

/// A scan of one body, in either format.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "JSON is the common case and lives in the request's own state")]
pub enum Scanner {
    Json(JsonScanner),
    Multipart(Box<MultipartScanner>),
}

impl Scanner {
    /// Reads the next chunk of the body, all of it. After an error each call returns that error again.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), ScanError> {
        match self {
            Self::Json(scanner) => scanner.push(chunk),
            Self::Multipart(scanner) => scanner.push(chunk),
        }
    }

    /// The model, as soon as its value is complete. Only a [`Scanner::finish`] without error says that no
    /// second one follows.
    #[must_use]
    pub fn model(&self) -> Option<&ModelValue> {
        match self {
            Self::Json(scanner) => scanner.model(),
            Self::Multipart(scanner) => scanner.model(),
        }
    }

    /// The body has ended: checks that it is complete. A whole body without a model is no error here.
    pub fn finish(&mut self) -> Result<(), ScanError> {
        match self {
            Self::Json(scanner) => scanner.finish(),
            Self::Multipart(scanner) => scanner.finish(),
        }
    }

    /// What is known so far beside the model.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        match self {
            Self::Json(scanner) => scanner.facts(),
            Self::Multipart(scanner) => scanner.facts(),
        }
    }

    #[must_use]
    pub fn format(&self) -> Format {
        match self {
            Self::Json(_) => Format::Json,
            Self::Multipart(_) => Format::Multipart,
        }
    }
}

/// The bytes to put in place of [`ModelValue::span`] so that the body asks for `name`.
#[must_use]
pub fn splice(format: Format, name: &str) -> Vec<u8> {
    match format {
        Format::Json => json::escape(name),
        Format::Multipart => name.as_bytes().to_vec(),
    }
}
