//! The `penstock` binary: reads the command line and hands over.

#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use penstock::cli::{Cli, Command};
use penstock::log::Log;
use penstock::{app, commands, doctor};
use tracing_subscriber::EnvFilter;

/// For the last lines of the log.
const LAST_LINES: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = match Log::start() {
        Ok(log) => log,
        Err(e) => {
            eprintln!("penstock: cannot start the log's thread: {e}");
            return ExitCode::FAILURE;
        }
    };
    let filter = EnvFilter::try_from_env("PENSTOCK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Standard output belongs to what was asked for: reports, and the access log.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log.clone())
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let done = match &cli.command {
        Command::Run(run) => app::run(run),
        Command::Check(manifests) => commands::check(manifests).map(print),
        Command::Explain(explain) => commands::explain(explain).map(print),
        Command::Doctor => Ok(print((doctor::report(), ExitCode::SUCCESS))),
    };
    let is_written = log.shutdown(LAST_LINES);
    done.unwrap_or_else(|e| {
        // Behind the lines that led to it; where standard error is stuck, it would keep us here.
        if is_written {
            eprintln!("penstock: {e:#}");
        }
        ExitCode::FAILURE
    })
}

fn print((report, code): (String, ExitCode)) -> ExitCode {
    // A reader that went away (`| head`) has what it wanted.
    let _ = std::io::stdout().write_all(report.as_bytes());
    code
}
