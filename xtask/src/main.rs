//! The only developer tool: `cargo xtask` lists what it does.

mod arrows;
mod bench;
mod check;
mod child;
mod counts;
mod ebpf;
mod fuzz;
mod licences;
mod real;
mod run;
mod shell;
mod test;
mod train;
mod tune;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, run, test and check Penstock.
#[derive(Parser)]
#[command(name = "cargo xtask", arg_required_else_help = true, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start Penstock on port 8080 with examples/ack in front of four fake engines; with `-- -f PATH` on your manifests
    Run(run::Arguments),
    /// Run every test; hermetic, as root or not
    Test(test::Arguments),
    /// Format, clippy, docs, import rules, licences, the committed kernel half
    Check,
    /// Build the kernel half; with --check only compare what is committed with what its sources say
    Ebpf {
        #[arg(long)]
        check: bool,
    },
    /// Measure Penstock beside its peers, on this machine
    Bench(bench::Arguments),
    /// Find Penstock's settings for this machine and your traffic
    Tune(tune::Arguments),
    /// Count how Penstock runs under the bench's load, for the compiler to lay out releases by; eight minutes
    Train,
    /// Count the scanner's instructions for each body of its bench and compare them with what is committed
    Counts(counts::Arguments),
    /// Fuzz one target of gateway/fuzz
    Fuzz(fuzz::Arguments),
    /// The bench's engine
    #[command(hide = true)]
    BenchEngine(bench::engine::Arguments),
    /// The bench's load
    #[command(hide = true)]
    BenchLoad,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Test(arguments) => test::test(&arguments),
        Command::Check => check::check(),
        Command::Ebpf { check } => ebpf::run(check),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Tune(arguments) => tune::run(&arguments),
        Command::Train => train::train(),
        Command::Counts(arguments) => counts::counts(&arguments),
        Command::Fuzz(arguments) => fuzz::fuzz(&arguments),
        Command::BenchEngine(arguments) => bench::engine::run(&arguments),
        Command::BenchLoad => bench::load::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace that RUST_BACKTRACE would add: what failed is a command, and it is named.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
