//! Runs of the binary that end by themselves.

use std::path::Path;
use std::process::{Output, Stdio};

use super::binary::penstock;
use crate::within;

/// Runs one of the commands that start nothing: `check`, `explain`, `doctor`.
pub async fn command(arguments: &[&str], input: &str) -> Output {
    output(tokio::process::Command::from(penstock()), arguments, input).await
}

async fn output(mut command: tokio::process::Command, arguments: &[&str], input: &str) -> Output {
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().expect("starting penstock");
    let mut stdin = child.stdin.take().expect("piped");
    within("the end of a command", async {
        _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await.expect("waiting for penstock")
    })
    .await
}

/// [`command`] in a shell that first does `prepare`, such as `ulimit -n 40`.
pub async fn command_after(prepare: &str, arguments: &[&str], input: &str) -> Output {
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", &format!("{prepare}; exec \"$@\""), "sh"]).arg(penstock().get_program());
    output(shell, arguments, input).await
}

/// [`command_after`] of a copy of the binary in this folder, for users who may not enter the one that it was built in.
///
/// # Panics
/// When it cannot be copied.
pub async fn command_copied_after(folder: &Path, prepare: &str, arguments: &[&str]) -> Output {
    let copy = folder.join("penstock");
    std::fs::copy(penstock().get_program(), &copy).expect("a copy");
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", &format!("{prepare}; exec \"$@\""), "sh"]).arg(copy);
    output(shell, arguments, "").await
}
