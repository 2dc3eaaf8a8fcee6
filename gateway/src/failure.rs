//! Every refusal, with whose fault it is; the only place that builds error responses.

mod body;

use std::borrow::Cow;

use http::StatusCode;

pub use body::{Dialect, respond, respond_raw};

/// A request that Penstock answers itself instead of an engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", reason.word())]
pub struct Failure {
    pub reason: Reason,
    /// Says what, where and how to mend it. Shown to the client: never holds a body's content or an address.
    pub message: Cow<'static, str>,
}

impl Failure {
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// The refusal of a request whose time is over, wherever it is found.
#[must_use]
pub fn request_timeout() -> Failure {
    Failure::new(Reason::RequestTimeout, "the request took longer than its timeout allows (timeouts.request)")
}

/// Who has to mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    Client,
    Engine,
    Gateway,
}

impl Blame {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Engine => "engine",
            Self::Gateway => "gateway",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $status:literal, $blame:ident;)*) => {
        /// Why a request was refused: the words of `x-penstock-reason`, of metrics and of the access log.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, in the order of the variants.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            #[must_use]
            pub fn status(self) -> StatusCode {
                // The literals below are all valid codes; `const` proves it when this compiles.
                match self { $(Self::$variant => const { match StatusCode::from_u16($status) {
                    Ok(status) => status,
                    Err(_) => panic!("status out of range"),
                } },)* }
            }

            #[must_use]
            pub fn blame(self) -> Blame {
                match self { $(Self::$variant => Blame::$blame,)* }
            }
        }
    };
}

reasons! {
    /// The head breaks RFC 9112 or 9110, or could be read in two ways.
    HeadInvalid = "head_invalid", 400, Client;
    /// The body is not what its framing or content type says.
    BodyInvalid = "body_invalid", 400, Client;
    /// No usable `model` on an inference path.
    ModelMissing = "model_missing", 400, Client;
    /// More than one reading of `model`.
    ModelAmbiguous = "model_ambiguous", 400, Client;
    NoRoute = "no_route", 404, Client;
    ModelNotFound = "model_not_found", 404, Client;
    HeadSlow = "head_slow", 408, Client;
    BodySlow = "body_slow", 408, Client;
    BodyTooLarge = "body_too_large", 413, Client;
    /// `model` did not come within `bufferLimit`.
    ModelTooLate = "model_too_late", 413, Client;
    EncodingUnsupported = "encoding_unsupported", 415, Client;
    Misdirected = "misdirected", 421, Client;
    Saturated = "saturated", 429, Gateway;
    RateLimited = "rate_limited", 429, Gateway;
    HeadTooLarge = "head_too_large", 431, Client;
    RouteInvalid = "route_invalid", 500, Gateway;
    /// The kernel did not deliver what was spliced: the answer is cut.
    SpliceBroken = "splice_broken", 500, Gateway;
    EngineRefused = "engine_refused", 502, Engine;
    EngineReset = "engine_reset", 502, Engine;
    EngineInvalid = "engine_invalid", 502, Engine;
    NoEndpoint = "no_endpoint", 503, Gateway;
    Draining = "draining", 503, Gateway;
    EngineSlow = "engine_slow", 504, Engine;
    RequestTimeout = "request_timeout", 504, Engine;
    /// The client went away; 499 is written to the log alone, nobody is left to read it.
    ClientGone = "client_gone", 499, Client;
}
