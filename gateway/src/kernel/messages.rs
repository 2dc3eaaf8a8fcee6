//! What the kernel half logs, as events of tracing.

use std::time::{Duration, Instant};

use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};

/// Carries aya-log's records over.
struct IntoTracing;

impl Log for IntoTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let message = record.args();
        match record.level() {
            Level::Error => tracing::error!(target: "penstock::ebpf", "{message}"),
            Level::Warn => tracing::warn!(target: "penstock::ebpf", "{message}"),
            Level::Info => tracing::info!(target: "penstock::ebpf", "{message}"),
            Level::Debug | Level::Trace => tracing::debug!(target: "penstock::ebpf", "{message}"),
        }
    }

    fn flush(&self) {}
}

/// The ring buffer of the kernel half's messages; read by the one gateway that loaded the programs.
pub(super) struct Messages {
    logger: EbpfLogger<IntoTracing>,
    flushed: Instant,
}

impl Messages {
    /// Attaches to the messages of a loaded program. Needs the privileges that loading needs.
    pub(super) fn of(program: u32) -> Result<Self, String> {
        let logger = EbpfLogger::init_from_id_with_logger(program, IntoTracing).map_err(|e| e.to_string())?;
        Ok(Self { logger, flushed: Instant::now() })
    }

    /// Passes on what has come, at most once a second: a flood is then cut off by the ring's own length.
    pub(super) fn flush(&mut self) {
        if self.flushed.elapsed() >= Duration::from_secs(1) {
            self.flushed = Instant::now();
            self.logger.flush();
        }
    }
}
