//! Privileges that only loading needs, given back.
//!
//! Capabilities belong to threads: drop them while there is only one, and every later thread is born without. Descriptors
//! and mappings that are open stay usable. The uid stays, so that pins, keys and manifests remain readable.

use std::io;
use std::thread::sleep;
use std::time::Duration;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// The one that stays: a listener on a port below 1024 may come with a reload.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;
/// A thread that was joined is listed for a moment longer.
const LEAVING_MS: u32 = 200;
/// Stays where the kernel (before about 5.19, with unprivileged BPF off) wants it for every call of bpf(2), also for
/// those on descriptors that are open.
const FOR_MAPS: CapabilitySet = CapabilitySet::BPF;

/// Drops every capability but CAP_NET_BIND_SERVICE for good, and CAP_BPF too unless `rehearse`, the calls that are
/// still to come, is refused without it. Call it before the first other thread starts.
///
/// # Errors
/// When there is something to drop and it cannot be: another thread runs already and would keep what it has, or
/// the kernel refuses.
pub fn drop_all(rehearse: impl FnMut() -> io::Result<()>) -> Result<(), String> {
    let had = capabilities(None).map_err(|e| format!("capget: {e}"))?;
    match alone().and_then(|()| drop_but_needed(had, rehearse).map_err(|e| e.to_string())) {
        Err(_) if KEPT.contains(had.permitted) => Ok(()),
        done => done.map_err(|e| format!("cannot give back the capabilities that only loading needs: {e}")),
    }
}

/// As little as `rehearse` works with, of what this thread has. Leaves this thread as it was.
pub(super) fn needed(mut rehearse: impl FnMut() -> io::Result<()>) -> io::Result<CapabilitySet> {
    let had = capabilities(None)?;
    let needed = least(had.permitted, |effective| {
        set_capabilities(None, CapabilitySets { effective, ..had })?;
        rehearse()
    });
    set_capabilities(None, had)?;
    Ok(needed)
}

/// What a refusal of a file has to do with this: root without CAP_DAC_OVERRIDE is one user among others.
#[must_use]
pub fn explained(error: io::Error) -> io::Error {
    let is_refused = error.kind() == io::ErrorKind::PermissionDenied && rustix::process::geteuid().is_root();
    let overrides =
        || capabilities(None).is_ok_and(|have| have.effective.contains(CapabilitySet::DAC_OVERRIDE));
    if !is_refused || overrides() {
        return error;
    }
    let advice = "`penstock run` keeps no capability that lets root pass by owner and mode, so chown it to root, or \
                  let others in (chmod o+r, and o+x on its folders)";
    io::Error::new(error.kind(), format!("{error}; {advice}"))
}

fn alone() -> Result<(), String> {
    let mut threads = 0;
    for _ in 0..LEAVING_MS {
        threads = std::fs::read_dir("/proc/self/task").map_err(|e| format!("/proc/self/task: {e}"))?.count();
        if threads <= 1 {
            return Ok(());
        }
        sleep(Duration::from_millis(1));
    }
    Err(format!("{threads} threads run already, and each would keep its own"))
}

fn drop_but_needed(had: CapabilitySets, rehearse: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let kept = needed(rehearse)?;
    clear_ambient_capability_set()?;
    if had.effective.contains(CapabilitySet::SETPCAP) {
        // Without this, root gets all of them back with the next exec. A kernel may know more than we have names for.
        for capability in (0..u64::BITS).map(|n| CapabilitySet::from_bits_retain(1 << n)) {
            if !kept.contains(capability) && capability_is_in_bounding_set(capability).unwrap_or(false) {
                remove_capability_from_bounding_set(capability)?;
            }
        }
    }
    set_no_new_privs(true)?;
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })?;
    if kept.contains(FOR_MAPS) {
        tracing::info!("CAP_BPF is kept: without it, this kernel refuses the counts of the loaded programs");
    }
    Ok(())
}

/// The first set that is not refused; the smallest where both are: more would not help.
fn least(
    permitted: CapabilitySet,
    mut try_with: impl FnMut(CapabilitySet) -> io::Result<()>,
) -> CapabilitySet {
    let mut is_refused = |with| try_with(with).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
    let (small, large) = (permitted & KEPT, permitted & (KEPT | FOR_MAPS));
    if is_refused(small) && !is_refused(large) { large } else { small }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that refuses everybody who has not all of `wanted`.
    fn refuses_without(wanted: CapabilitySet) -> impl FnMut(CapabilitySet) -> io::Result<()> {
        move |has| if has.contains(wanted) { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    #[test]
    fn cap_bpf_stays_only_where_the_kernel_wants_it_for_open_maps() {
        let root = CapabilitySet::all();
        assert_eq!(least(root, refuses_without(CapabilitySet::empty())), KEPT);
        assert_eq!(least(root, refuses_without(CapabilitySet::BPF)), KEPT | CapabilitySet::BPF);
    }

    #[test]
    fn what_would_not_help_or_was_never_there_is_not_kept() {
        assert_eq!(least(CapabilitySet::all(), refuses_without(CapabilitySet::SYS_ADMIN)), KEPT);
        assert_eq!(least(CapabilitySet::all(), |_| Err(io::ErrorKind::NotFound.into())), KEPT);
        let none = CapabilitySet::empty();
        assert_eq!(least(none, refuses_without(CapabilitySet::BPF)), none);
    }

    #[test]
    fn asking_changes_nothing() {
        let had = capabilities(None).unwrap();
        let mut effective = Vec::new();
        let needed = needed(|| {
            effective.push(capabilities(None)?.effective);
            Ok(())
        });
        assert_eq!(needed.unwrap(), had.permitted & KEPT);
        assert_eq!(effective, [had.permitted & KEPT]);
        assert_eq!(capabilities(None).unwrap(), had);
    }

    #[test]
    fn other_errors_than_refusals_are_left_as_they_are() {
        let error = explained(io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(error.to_string(), io::Error::from(io::ErrorKind::NotFound).to_string());
    }
}
