//! What the load asks of an engine, said to the engine in one header: which body it will get, and how to answer. So the
//! engine can compare each byte of a body with what was sent, and the load each answer with what was asked for.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// The header that carries an [`Ask`].
pub(crate) const HEADER: &str = "x-bench";
/// The header that names the pool, for the peer that does not read bodies.
pub(crate) const POOL_HEADER: &str = "x-pool";

/// One model, served by one engine: an answer from the other pool is a wrong route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Pool {
    A,
    B,
}

impl Pool {
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    pub(crate) fn model(self) -> &'static str {
        match self {
            Self::A => "model-a",
            Self::B => "model-b",
        }
    }
}

/// Where the `model` key stands in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Place {
    First,
    Last,
}

/// How an engine answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// One JSON object, this long after the body's end.
    Json { after_us: u32 },
    /// Server-sent events, one each interval, until the client leaves.
    Events { every_us: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) pool: Pool,
    /// Of the body.
    pub(crate) bytes: usize,
    pub(crate) place: Place,
    pub(crate) reply: Reply,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.place {
            Place::First => "first",
            Place::Last => "last",
        };
        write!(f, "{} {} {place} ", self.pool.name(), self.bytes)?;
        match self.reply {
            Reply::Json { after_us } => write!(f, "json {after_us}"),
            Reply::Events { every_us } => write!(f, "events {every_us}"),
        }
    }
}

impl FromStr for Ask {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split(' ');
        let mut word = || words.next().with_context(|| format!("too few words in {HEADER}: {text:?}"));
        let pool = match word()? {
            "a" => Pool::A,
            "b" => Pool::B,
            other => bail!("no pool {other:?}"),
        };
        let bytes = word()?.parse().context("the size of the body")?;
        let place = match word()? {
            "first" => Place::First,
            "last" => Place::Last,
            other => bail!("no place {other:?}"),
        };
        let reply = match (word()?, word()?.parse().context("the microseconds")?) {
            ("json", after_us) => Reply::Json { after_us },
            ("events", every_us) => Reply::Events { every_us },
            (other, _) => bail!("no reply {other:?}"),
        };
        Ok(Self { pool, bytes, place, reply })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ask_survives_its_header() {
        for reply in [Reply::Json { after_us: 7 }, Reply::Events { every_us: 40_000 }] {
            for place in [Place::First, Place::Last] {
                let ask = Ask { pool: Pool::B, bytes: 8 << 20, place, reply };
                assert_eq!(ask.to_string().parse::<Ask>().unwrap(), ask);
            }
        }
    }
}
