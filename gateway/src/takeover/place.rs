//! Where a running gateway is found: a socket of mode 0600, named after its admin address, in a folder of its user's.

use std::env;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use tokio::net::UnixListener;

/// Where the gateway with this admin address is found.
pub(super) fn of(admin: SocketAddr) -> io::Result<PathBuf> {
    own_folder().map(|folder| folder.join(format!("{admin}.sock"))).ok_or_else(|| {
        let why = "there is no folder for its socket: set RuntimeDirectory=penstock in the unit, or \
                   RUNTIME_DIRECTORY to a folder that only this user can write";
        io::Error::new(io::ErrorKind::NotFound, why)
    })
}

/// The folder for what ends with the boot, or before; it may still have to be made.
pub fn own_folder() -> Option<PathBuf> {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    folder(variable("RUNTIME_DIRECTORY"), geteuid().is_root(), variable("XDG_RUNTIME_DIR"))
}

/// [`of`], with its folder made where it is missing.
pub(super) fn make(admin: SocketAddr) -> io::Result<PathBuf> {
    let path = of(admin)?;
    if let Some(folder) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", folder.display())))?;
    }
    Ok(path)
}

/// Listens there in place of whoever did: by renaming, so that one of the two is always found.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    let fresh = path.with_extension(std::process::id().to_string());
    // Of a process that had our number and was killed between these lines.
    let _ = fs::remove_file(&fresh);
    let bound = UnixListener::bind(&fresh).and_then(|listener| {
        fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
        fs::rename(&fresh, path)?;
        Ok(listener)
    });
    bound.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

/// What systemd has made for this unit (the first of several), else what the system or the login has for this user.
fn folder(of_unit: Option<String>, is_root: bool, of_login: Option<String>) -> Option<PathBuf> {
    if let Some(folders) = of_unit {
        return folders.split(':').next().map(PathBuf::from);
    }
    if is_root {
        return Some("/run/penstock".into());
    }
    of_login.map(|folder| Path::new(&folder).join("penstock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_says_the_folder_and_without_one_the_user_does() {
        let text = |text: &str| Some(text.to_owned());
        let of = |unit: Option<String>, is_root, login| {
            folder(unit, is_root, login).map(|f| f.display().to_string())
        };
        assert_eq!(of(text("/run/a:/run/b"), true, None), text("/run/a"));
        assert_eq!(of(None, true, text("/run/user/0")), text("/run/penstock"));
        assert_eq!(of(None, false, text("/run/user/7")), text("/run/user/7/penstock"));
        assert_eq!(of(None, false, None), None);
    }
}
