//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::config;
use crate::kernel::Wanted;
use crate::kernel::intercept::{self, Scope};

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
#[command(group = ArgGroup::new("source").required(true).multiple(true).args(["files", "engines"]))]
pub struct Run {
    /// Manifests: a file, a directory of *.yaml, *.yml and *.json, or - for standard input; may be repeated.
    /// Changed files and SIGHUP are read again
    #[arg(short, long = "file", value_name = "PATH", env = "PENSTOCK_FILE", value_delimiter = ',')]
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
    #[arg(long, value_name = "DURATION", env = "PENSTOCK_DRAIN_TIMEOUT", default_value = "30s", value_parser = config::duration)]
    pub drain_timeout: Duration,

    /// Take the listening sockets over from the gateway that runs with the same --admin; it finishes what it has and
    /// exits. Without one, start as usual
    #[arg(long, env = "PENSTOCK_TAKEOVER")]
    pub takeover: bool,

    /// How much of the kernel half to use
    #[arg(long, value_enum, env = "PENSTOCK_KERNEL", default_value_t)]
    pub kernel: Wanted,

    /// Serve Gateway addresses that this host has not, as a cluster's Service IP: what its processes connect to there comes
    /// here. Those of all of them, or of a cgroup as /proc/PID/cgroup names it
    #[arg(
        long,
        value_name = "CGROUP",
        env = "PENSTOCK_INTERCEPT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "/",
        value_parser = intercept::cgroup
    )]
    pub intercept: Option<String>,

    /// Cgroups whose processes --intercept leaves alone, as those of engines that dial such an address themselves; may be
    /// repeated
    #[arg(
        long,
        value_name = "CGROUP",
        env = "PENSTOCK_INTERCEPT_EXCEPT",
        value_delimiter = ',',
        requires = "intercept",
        value_parser = intercept::cgroup
    )]
    pub intercept_except: Vec<String>,
}

impl Run {
    /// Whose connects are to be intercepted; `None`: nobody's.
    #[must_use]
    pub fn intercept_scope(&self) -> Option<Scope> {
        let within = self.intercept.clone()?;
        Some(Scope { within: Some(within), except: self.intercept_except.clone() })
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn run(arguments: &[&str]) -> Result<Run, String> {
        let cli = Cli::try_parse_from(["penstock", "run"].iter().chain(arguments));
        match cli.map_err(|e| e.to_string())?.command {
            Command::Run(run) => Ok(run),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn durations_read_as_in_the_gateway_api() {
        let drain = |text: &str| run(&["-f", "x", "--drain-timeout", text]).map(|run| run.drain_timeout);
        assert_eq!(drain("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(drain("5d").unwrap_err().contains("is not a duration"));
    }

    #[test]
    fn manifests_or_engines_must_be_given_and_the_error_names_both() {
        let error = run(&[]).unwrap_err();
        assert!(error.contains("--file <PATH>") && error.contains("--engine <HOST:PORT>"), "{error}");
        assert!(run(&["--engine", "a:1", "--engine", "b:1"]).is_ok() && run(&["-f", "a", "-f", "b"]).is_ok());
        assert!(run(&["--engine", "a:1", "-f", "b"]).is_err());
    }
}
