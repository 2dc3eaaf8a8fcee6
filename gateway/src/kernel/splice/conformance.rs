//! Whether this very kernel does what splice relies on: tried at start, in a network namespace of its own.
//!
//! Sockmaps have broken in stable kernels, so no version number is trusted. What fails keeps splice off; a pass is
//! remembered until the next boot.

mod checks;
mod line;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Splice;
use crate::kernel::sys;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why splice must stay off.
    pub failed: Option<String>,
    /// What an operator should know although nothing failed.
    pub notes: Vec<String>,
    /// `None`: remembered from an earlier start on this boot.
    pub took: Option<Duration>,
}

const MEMORY: &str = "splice-conformance";

/// Slots that it needs.
pub(super) const SLOTS: u32 = 64;

/// Tries everything, or remembers that it went well. `memory` is a directory that ends with the boot: `/run/penstock`.
///
/// Needs the privileges that loading needs, and a few slots.
#[must_use]
pub fn conformance(splice: &Arc<Splice>, memory: Option<&Path>) -> Outcome {
    let key = key(splice);
    let remembered = key.as_deref().ok().zip(memory);
    if let Some(notes) = remembered.and_then(|(key, memory)| recall(memory, key)) {
        return Outcome { failed: None, notes, took: None };
    }
    let begun = Instant::now();
    let mut notes = Vec::new();
    let tried = apart(|| {
        for (name, check) in checks::ALL {
            splice.beat();
            if let Some(note) = check(splice).map_err(|why| format!("{name}: {why}"))? {
                notes.push(format!("{name}: {note}"));
            }
        }
        Ok(())
    });
    // A failure is tried again at the next start: it may have been the machine's bad minute.
    if tried.is_ok()
        && let Some((key, memory)) = remembered
        && let Err(error) = remember(memory, key, &notes)
    {
        tracing::debug!(directory = %memory.display(), %error, "the splice self-test will run again at the next start");
    }
    Outcome { failed: tried.err(), notes, took: Some(begun.elapsed()) }
}

/// Runs on a thread in a network namespace of its own, with loopback up, where it may make one.
fn apart(tried: impl FnOnce() -> Result<(), String> + Send) -> Result<(), String> {
    let joined = std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("splice-conformance".into()).spawn_scoped(scope, || {
                match sys::own_network() {
                    // Without CAP_SYS_ADMIN, as under systemd, the gateway's own loopback does.
                    Err(e) if e.kind() == io::ErrorKind::PermissionDenied => tried(),
                    Err(e) => Err(format!("cannot make a network namespace: {e}")),
                    Ok(()) => tried(),
                }
            });
        thread.map(std::thread::ScopedJoinHandle::join)
    });
    match joined {
        Ok(Ok(tried)) => tried,
        Ok(Err(_)) => Err("the self-test panicked".into()),
        Err(error) => Err(format!("no thread for the self-test: {error}")),
    }
}

/// What a pass holds for: this boot, this kernel, these programs.
fn key(splice: &Splice) -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    Ok(format!("{} {release} {}", boot.trim(), splice.tags()))
}

fn recall(memory: &Path, key: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(memory.join(MEMORY)).ok()?;
    let mut lines = text.lines();
    (lines.next()? == key).then(|| lines.map(str::to_owned).collect())
}

fn remember(memory: &Path, key: &str, notes: &[String]) -> io::Result<()> {
    // It may be where the takeover's socket will be: nobody else's business.
    DirBuilder::new().recursive(true).mode(0o700).create(memory)?;
    let text: String =
        std::iter::once(key).chain(notes.iter().map(String::as_str)).flat_map(|l| [l, "\n"]).collect();
    // Whole or not at all.
    let fresh = memory.join(format!("{MEMORY}.{}", std::process::id()));
    fs::write(&fresh, text)?;
    fs::rename(fresh, memory.join(MEMORY))
}
