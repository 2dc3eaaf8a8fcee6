//! `cargo xtask test`: every test, with what it needs built first.

use anyhow::Result;

use crate::real;
use crate::shell::{cargo, has_cargo, must};

/// Most black-box tests wait for sockets: twice the cores of a small machine keep it busy, more would make the
/// tests that measure time starve.
const THREADS: &str = "4";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also against a real llama.cpp server, openai-python and promtool, which are fetched by package name
    #[arg(long)]
    real: bool,
    /// Only tests whose name holds this
    filter: Option<String>,
}

pub(crate) fn test(arguments: &Arguments) -> Result<()> {
    // The black-box tests run the built binary; cargo does not know that they depend on it.
    must(cargo(&["build", "--workspace", "--bins"]))?;
    let filter = arguments.filter.as_slice();
    if has_cargo("nextest") {
        let mut nextest =
            cargo(&["nextest", "run", "--workspace", "--no-fail-fast", "--test-threads", THREADS]);
        nextest.args(filter);
        must(nextest)?;
        if filter.is_empty() {
            // nextest leaves the examples in documentation out.
            must(cargo(&["test", "--workspace", "--doc", "--quiet"]))?;
        }
    } else {
        let mut test = cargo(&["test", "--workspace", "--no-fail-fast"]);
        test.args(filter).env("RUST_TEST_THREADS", THREADS);
        must(test)?;
    }
    if arguments.real { real::test() } else { Ok(()) }
}
