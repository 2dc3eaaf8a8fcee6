//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::kernel::Wanted;

/// The gateway in front of your GPUs: routes OpenAI-style requests to pools of engines by the model in their body.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve requests as the manifests say
    Run(Run),
    /// Say what Kubernetes would write into the manifests' status, and every mistake in them
    Check(Manifests),
    /// Say which rule, pool, rewrite and endpoints a request would get, and why
    Explain(Explain),
    /// Say what this host offers Penstock, and what is missing
    Doctor,
}

#[derive(Debug, Args)]
pub struct Manifests {
    /// Manifests: a file, a directory of *.yaml, *.yml and *.json, or - for standard input; may be repeated
    #[arg(
        short,
        long = "file",
        value_name = "PATH",
        required = true,
        env = "PENSTOCK_FILE",
        value_delimiter = ','
    )]
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Run {
    /// Manifests: a file, a directory of *.yaml, *.yml and *.json, or - for standard input; may be repeated.
    /// Changed files and SIGHUP are read again
    #[arg(
        short,
        long = "file",
        value_name = "PATH",
        env = "PENSTOCK_FILE",
        value_delimiter = ',',
        required_unless_present = "engines"
    )]
    pub files: Vec<PathBuf>,

    /// No manifests: ask this engine which models it serves and route to it by them; may be repeated
    #[arg(
        long = "engine",
        value_name = "HOST:PORT",
        env = "PENSTOCK_ENGINE",
        value_delimiter = ',',
        conflicts_with = "files"
    )]
    pub engines: Vec<String>,

    /// Where to listen with --engine; with manifests the Gateway says it
    #[arg(long, value_name = "ADDR", env = "PENSTOCK_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Where metrics, health and the snapshot are served; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = "PENSTOCK_ADMIN", default_value = "127.0.0.1:9901")]
    pub admin: SocketAddr,

    /// Worker threads; by default min(4, the cores that affinity and cgroup allow)
    #[arg(long, value_name = "N", env = "PENSTOCK_WORKERS", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,

    /// Where a JSON line for each request goes: a file, - for standard output, or off
    #[arg(long, value_name = "PATH", env = "PENSTOCK_ACCESS_LOG", default_value = "-")]
    pub access_log: String,

    /// How long SIGTERM waits for requests in flight, as 90s, 5m or 1h30m; a second signal ends at once
    #[arg(long, value_name = "DURATION", env = "PENSTOCK_DRAIN_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub drain_timeout: Duration,

    /// How much of the kernel half to use
    #[arg(long, value_enum, env = "PENSTOCK_KERNEL", default_value_t)]
    pub kernel: Wanted,
}

#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    pub manifests: Manifests,

    /// The request's model
    #[arg(long, value_name = "NAME", conflicts_with = "request")]
    pub model: Option<String>,

    /// A request body to read the model from
    #[arg(value_name = "BODY")]
    pub request: Option<PathBuf>,

    /// The request's path, with its query
    #[arg(long, default_value = "/v1/chat/completions")]
    pub path: String,

    /// The request's Host
    #[arg(long, default_value = "localhost")]
    pub host: String,

    /// The request's method
    #[arg(long, default_value = "POST")]
    pub method: String,

    /// A header field of the request; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,

    /// The port that the request comes in on; by default every Gateway listener's
    #[arg(long)]
    pub port: Option<u16>,
}

/// Reads `1h30m`, `90s` or `250ms`: the durations of the Gateway API (GEP-2257).
fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let number: u32 = number.parse().map_err(|_| expected_duration(text))?;
        total += match unit {
            "h" => Duration::from_secs(3600) * number,
            "m" => Duration::from_secs(60) * number,
            "s" => Duration::from_secs(1) * number,
            "ms" => Duration::from_millis(1) * number,
            _ => return Err(expected_duration(text)),
        };
        rest = tail;
    }
    if text.is_empty() { Err(expected_duration(text)) } else { Ok(total) }
}

fn expected_duration(text: &str) -> String {
    format!("{text:?} is not a duration such as 90s, 5m or 1h30m")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_read_as_in_the_gateway_api() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for bad in ["", "5", "s", "5d", "-1s", "1.5s", "99999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
