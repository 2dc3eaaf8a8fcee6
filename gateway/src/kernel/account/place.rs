//! Where the programs are attached and pinned, and who else on this host counts with them.
//!
//! Pins keep the counting alive over a `kill -9`. They lie in `<bpffs>/penstock`, a directory of mode 0700, beside one
//! directory per living gateway that its gateway holds locked. Whoever changes any of it holds the lock of
//! `penstock` itself; the last gateway to leave removes all.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use penstock_common::account::OWNERS;
use rustix::fs::{Access, AtFlags, FlockOperation, flock};

/// The cgroup whose sockets are counted, and the directory of the pins.
#[derive(Clone, Debug)]
pub struct Place {
    pub cgroup: PathBuf,
    pub pins: PathBuf,
}

const BPFFS: &str = "/sys/fs/bpf";

impl Place {
    /// Finds the root of cgroup v2 and a BPF file system; mounts the latter in its usual place if there is none.
    ///
    /// # Errors
    /// When this host lacks one of them.
    pub fn find() -> Result<Self, String> {
        let cgroup = Self::cgroup()?;
        let bpffs = match Self::bpffs()? {
            Some(bpffs) => bpffs,
            None => mount_bpffs()?,
        };
        Ok(Self { cgroup, pins: bpffs.join("penstock") })
    }

    /// The root of cgroup v2, which may be mounted anywhere.
    pub(in crate::kernel) fn cgroup() -> Result<PathBuf, String> {
        let cgroup = mounted(&mounts()?, "cgroup2")
            .ok_or("no cgroup v2 is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup")?;
        whole(cgroup)
    }

    pub(in crate::kernel) fn bpffs() -> Result<Option<PathBuf>, String> {
        Ok(mounted(&mounts()?, "bpf"))
    }

    /// Whether there are pins already. Changes nothing.
    ///
    /// # Errors
    /// When they can be neither used nor made there.
    pub(in crate::kernel) fn has_pins(bpffs: &Path) -> Result<bool, String> {
        let pins = bpffs.join("penstock");
        let told = |e: io::Error| {
            let user = rustix::process::geteuid().as_raw();
            format!(
                "{}: {e}; this process (user {user}) may not make the pins there: start as root, or mount one of its own \
                 (mount -t bpf -o mode=0700,uid={user} none /sys/fs/bpf)",
                bpffs.display()
            )
        };
        match fs::symlink_metadata(&pins) {
            Ok(_) => open_own(&pins).map(|_| true).map_err(|e| format!("{}: {e}", pins.display())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => rustix::fs::accessat(
                rustix::fs::CWD,
                bpffs,
                Access::WRITE_OK | Access::EXEC_OK,
                AtFlags::EACCESS,
            )
            .map(|()| false)
            .map_err(|e| told(e.into())),
            Err(e) => Err(told(e)),
        }
    }

    pub(super) fn pin(&self, name: &str) -> PathBuf {
        self.pins.join(name)
    }

    /// Keeps every other gateway from changing the pins, until the guard is dropped.
    pub(super) fn lock(&self) -> io::Result<Lock> {
        loop {
            make_directory(&self.pins)?;
            let directory = open_own(&self.pins)?;
            flock(&directory, FlockOperation::LockExclusive)?;
            // The last gateway may have removed the directory while we waited for it.
            match fs::symlink_metadata(&self.pins) {
                Ok(there) if there.ino() == directory.metadata()?.ino() => {
                    return Ok(Lock { _held: directory });
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Takes the first number that no living gateway has. Under the lock.
    pub(super) fn join(&self, _: &Lock) -> Result<Membership, String> {
        for number in 1..OWNERS as u8 {
            let path = self.seat(number);
            let held = make_directory(&path)
                .and_then(|()| File::open(&path))
                .map_err(|e| format!("{}: {e}", path.display()))?;
            if flock(held.as_fd(), FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Ok(Membership { number, path, _held: held });
            }
        }
        Err(format!("{} gateways count on this host already, and no more can", OWNERS - 1))
    }

    /// A bit for each living gateway, the one with number `but` apart. Under the lock.
    pub(super) fn living(&self, _: &Lock, but: u8) -> u32 {
        (1..OWNERS as u8)
            .filter(|number| *number != but && is_held(&self.seat(*number)))
            .fold(0, |bits, number| bits | 1 << number)
    }

    /// Removes every pin. Under the lock, and with no other gateway alive.
    pub(super) fn clear(&self, _: &Lock) -> io::Result<()> {
        for entry in fs::read_dir(&self.pins)? {
            let path = entry?.path();
            if !path.is_dir() {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Removes the directory too, with the seats of gateways that are gone.
    pub(super) fn remove(&self, lock: &Lock) -> io::Result<()> {
        self.clear(lock)?;
        for entry in fs::read_dir(&self.pins)? {
            fs::remove_dir(entry?.path())?;
        }
        fs::remove_dir(&self.pins)
    }

    fn seat(&self, number: u8) -> PathBuf {
        self.pins.join(format!("gateway-{number}"))
    }
}

/// Held while pins are changed.
pub(super) struct Lock {
    _held: File,
}

/// This gateway's number among those of the host, its own until it is dropped or dies.
pub(super) struct Membership {
    pub number: u8,
    path: PathBuf,
    _held: File,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

fn is_held(seat: &Path) -> bool {
    File::open(seat).is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// Opens the directory of the pins, if nobody but root and us can have a hand in it: everybody may write to a BPF file
/// system that was mounted without a mode, and a link in our place would have us empty another directory.
fn open_own(path: &Path) -> io::Result<File> {
    let there = fs::symlink_metadata(path)?;
    let us = rustix::process::geteuid().as_raw();
    let is_own = there.is_dir() && [0, us].contains(&there.uid()) && there.mode() & 0o077 == 0;
    if !is_own {
        let what = if there.is_dir() { "directory" } else { "file or link" };
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "this {what} of user {} and mode {:o} is not for the gateway (user {us}) alone; remove it, and mount the \
                 BPF file system with mode=0700",
                there.uid(),
                there.mode() & 0o7777
            ),
        ));
    }
    File::open(path)
}

fn mounts() -> Result<String, String> {
    fs::read_to_string("/proc/self/mountinfo").map_err(|e| format!("/proc/self/mountinfo: {e}"))
}

/// The first mount of a whole file system of this type.
fn mounted(mountinfo: &str, kind: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, fs) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        // mountinfo writes a space as \040.
        (root == "/" && fs.split(' ').next()? == kind).then(|| PathBuf::from(point.replace("\\040", " ")))
    })
}

/// What a container takes for the root of cgroup v2 is the host's only outside of a cgroup namespace. The true root alone
/// has no `cgroup.events`: <https://docs.kernel.org/admin-guide/cgroup-v2.html#core-interface-files>
fn whole(cgroup: PathBuf) -> Result<PathBuf, String> {
    if cgroup.join("cgroup.events").exists() {
        return Err(format!(
            "{} is a container's own cgroup, and connections of others would not be counted; start with the host's \
             (--cgroupns=host)",
            cgroup.display()
        ));
    }
    Ok(cgroup)
}

fn mount_bpffs() -> Result<PathBuf, String> {
    rustix::mount::mount("none", BPFFS, "bpf", rustix::mount::MountFlags::empty(), Some(c"mode=0700"))
        .map_err(|e| format!("no BPF file system is mounted and {BPFFS} cannot be: {e}"))?;
    Ok(BPFFS.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_v2_is_found_wherever_it_is_mounted() {
        let info = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw\n\
                    40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                    41 31 0:38 /part /mnt/part rw - cgroup2 cgroup2 rw\n\
                    42 31 0:38 / /sys/fs/cgroup/uni\\040fied rw shared:5 - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(info, "cgroup2"), Some("/sys/fs/cgroup/uni fied".into()));
        assert_eq!(mounted(info, "bpf"), None);
        assert_eq!(mounted("nonsense - \n - cgroup2", "cgroup2"), None);
    }

    #[test]
    fn the_cgroup_of_a_container_is_not_the_hosts() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(whole(folder.path().into()), Ok(folder.path().into()));
        fs::write(folder.path().join("cgroup.events"), "populated 1\n").unwrap();
        assert!(whole(folder.path().into()).unwrap_err().contains("--cgroupns=host"));
    }

    fn refused(pins: &Path) -> bool {
        let place = Place { cgroup: "/".into(), pins: pins.into() };
        place.lock().is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
    }

    #[test]
    fn pins_that_others_have_a_hand_in_are_refused_and_what_a_link_leads_to_is_left_alone() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (victim, pins) = (folder.path().join("victim"), folder.path().join("penstock"));
        fs::DirBuilder::new().mode(0o700).create(&victim).unwrap();
        symlink(&victim, &pins).unwrap();
        assert!(refused(&pins));

        fs::remove_file(&pins).unwrap();
        assert!(!refused(&pins));
        for mode in [0o777, 0o755] {
            fs::set_permissions(&pins, PermissionsExt::from_mode(mode)).unwrap();
            assert!(refused(&pins), "{mode:o}");
        }
        fs::set_permissions(&pins, PermissionsExt::from_mode(0o700)).unwrap();
        if std::os::unix::fs::chown(&pins, Some(65_534), None).is_ok() {
            assert!(refused(&pins));
        }
    }
}
