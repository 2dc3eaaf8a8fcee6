//! Privileges that only loading needs, given back.
//!
//! Capabilities belong to threads: drop them while there is only one, and every later thread is born without. Descriptors
//! and mappings that are open stay usable. The uid stays, so that pins, keys and manifests remain readable.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// The one that stays: a listener on a port below 1024 may come with a reload.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// Drops every capability but CAP_NET_BIND_SERVICE, for good. Call it before the first other thread starts.
///
/// # Errors
/// When another thread runs already, which would keep what it has, or when the kernel refuses.
pub fn drop_all() -> Result<(), String> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(|e| format!("/proc/self/task: {e}"))?.count();
    if threads > 1 {
        return Err(format!("{threads} threads run already and each would keep its capabilities"));
    }
    drop_of_this_thread().map_err(|e| format!("cannot drop capabilities: {e}"))
}

fn drop_of_this_thread() -> rustix::io::Result<()> {
    let had = capabilities(None)?;
    clear_ambient_capability_set()?;
    if had.effective.contains(CapabilitySet::SETPCAP) {
        // Without this, root gets all of them back with the next exec.
        for capability in CapabilitySet::all().difference(KEPT).iter() {
            if capability_is_in_bounding_set(capability).unwrap_or(false) {
                remove_capability_from_bounding_set(capability)?;
            }
        }
    }
    set_no_new_privs(true)?;
    let kept = had.permitted & KEPT;
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )
}
