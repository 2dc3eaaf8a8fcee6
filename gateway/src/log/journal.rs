//! Lines as systemd's journal wants them: the level in front, as sd-daemon(3) numbers it, so that `journalctl -p warning`
//! finds them; and no time, which the journal has itself.

use std::env;
use std::{fmt, io};

use rustix::fs::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// In front of an error that is no event.
pub const ERROR: &str = "<3>";

/// Whether standard error goes there.
#[must_use]
pub fn is_stderr() -> bool {
    let Ok(stderr) = fstat(io::stderr()) else { return false };
    env::var("JOURNAL_STREAM").is_ok_and(|stream| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// The format of lines that go there.
#[derive(Debug)]
pub struct Journal(Format<Full, ()>);

impl Default for Journal {
    fn default() -> Self {
        Self(Format::default().without_time())
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        line.write_str(level(*event.metadata().level()))?;
        self.0.format_event(context, line, event)
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => ERROR,
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}
