//! The `penstock` binary: reads the command line and hands over.

#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use penstock::cli::{Cli, Command};
use penstock::log::{Log, Writer, journal, journal::Journal};
use penstock::{app, commands, doctor};
use tracing_subscriber::EnvFilter;

/// For the last lines of the log.
const LAST_LINES: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (log, writer) = Log::new();
    let filter = EnvFilter::try_from_env("PENSTOCK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Standard output belongs to what was asked for: reports, and the access log.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log.clone())
        .with_ansi(std::io::stderr().is_terminal());
    let to_journal = journal::is_stderr();
    if to_journal {
        subscriber.event_format(Journal::default()).init();
    } else {
        subscriber.init();
    }
    let done = act(&cli.command, writer);
    let is_written = log.shutdown(LAST_LINES);
    done.unwrap_or_else(|e| {
        // Behind the lines that led to it; where standard error is stuck, it would keep us here.
        if is_written {
            eprintln!("{}penstock: {e:#}", if to_journal { journal::ERROR } else { "" });
        }
        ExitCode::FAILURE
    })
}

fn act(command: &Command, writer: Writer) -> anyhow::Result<ExitCode> {
    let start = || writer.start().context("cannot start the log's thread");
    match command {
        Command::Run(run) => {
            // Capabilities belong to threads: those that only loading needs are gone before the first thread comes.
            let host = app::prepare(run);
            start()?;
            app::run(run, host?)
        }
        Command::Check(manifests) => {
            start()?;
            commands::check(manifests).map(print)
        }
        Command::Explain(explain) => {
            start()?;
            commands::explain(explain).map(print)
        }
        Command::Doctor => {
            start()?;
            Ok(print((doctor::report(), ExitCode::SUCCESS)))
        }
    }
}

fn print((report, code): (String, ExitCode)) -> ExitCode {
    // A reader that went away (`| head`) has what it wanted.
    let _ = std::io::stdout().write_all(report.as_bytes());
    code
}
