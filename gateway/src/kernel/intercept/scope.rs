//! Whose connects are meant: cgroups by their paths, and what the kernel calls them now.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use penstock_common::intercept::Cgroup;

/// Cgroups, as `/proc/PID/cgroup` writes them: `/` is the whole host. By default nobody is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub within: Option<String>,
    pub except: Vec<String>,
}

/// A cgroup as a user names it.
///
/// # Errors
/// When it is no path from the root.
pub fn cgroup(text: &str) -> Result<String, String> {
    let is_whole = text.starts_with('/') && !text.split('/').any(|part| matches!(part, "." | ".."));
    if is_whole {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no cgroup; write it as /proc/PID/cgroup does: /clients.slice"))
}

/// The cgroups of a scope in the file system, where they may come and go.
pub(super) struct Cgroups {
    /// Where cgroup v2 is mounted.
    root: PathBuf,
    within: Option<Watched>,
    except: Vec<Watched>,
}

struct Watched {
    path: PathBuf,
    level: u64,
    /// As last seen; 0: it was not there.
    id: u64,
}

impl Cgroups {
    pub(super) fn new(root: PathBuf, scope: Scope) -> Self {
        let watched = |path: &String| Watched::new(&root, path);
        let within = scope.within.as_ref().map(watched);
        let except = scope.except.iter().map(watched).collect();
        Self { root, within, except }
    }

    /// The one that holds every process of the host.
    pub(super) fn whole(&self) -> Cgroup {
        Cgroup { id: id(&self.root), level: 0 }
    }

    pub(super) fn look(&mut self) -> (Cgroup, Vec<Cgroup>) {
        let within = self.within.as_mut().map_or_else(Cgroup::default, Watched::look);
        (within, self.except.iter_mut().map(Watched::look).collect())
    }
}

impl Watched {
    fn new(root: &Path, path: &str) -> Self {
        // Who gives the place in the file system means the same.
        let path = Path::new(path);
        let below = path.strip_prefix(root).or_else(|_| path.strip_prefix("/")).unwrap_or(path);
        // Until it is seen, so that its absence is said once.
        Self { path: root.join(below), level: below.components().count() as u64, id: u64::MAX }
    }

    fn look(&mut self) -> Cgroup {
        let id = id(&self.path);
        if id == 0 && self.id != 0 {
            tracing::warn!(cgroup = %self.path.display(), "there is no such cgroup (--intercept); it is looked for each second");
        }
        self.id = id;
        Cgroup { id, level: self.level }
    }
}

/// The number that programs know a cgroup by; 0 where it is not there.
fn id(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |there| there.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_followed_when_it_comes_goes_and_is_made_anew() {
        let root = tempfile::tempdir().unwrap();
        let scope = Scope { within: Some("/".into()), except: vec!["/a.slice/b.service".into()] };
        let mut cgroups = Cgroups::new(root.path().into(), scope);
        let whole = cgroups.whole();
        assert_ne!(whole.id, 0);
        assert_eq!(cgroups.look(), (whole, vec![Cgroup { id: 0, level: 2 }]));
        let path = root.path().join("a.slice/b.service");
        fs::create_dir_all(&path).unwrap();
        let (_, there) = cgroups.look();
        assert_eq!(there, [Cgroup { id: fs::metadata(&path).unwrap().ino(), level: 2 }]);
        fs::remove_dir(&path).unwrap();
        assert_eq!(cgroups.look().1, [Cgroup { id: 0, level: 2 }]);
    }

    #[test]
    fn a_path_may_also_be_that_of_the_file_system() {
        let root = Path::new("/sys/fs/cgroup");
        for path in ["/clients.slice", "/sys/fs/cgroup/clients.slice", "/clients.slice/"] {
            let watched = Watched::new(root, path);
            assert_eq!((watched.path, watched.level), ("/sys/fs/cgroup/clients.slice".into(), 1), "{path}");
        }
        assert_eq!(Watched::new(root, "/").level, 0);
    }

    #[test]
    fn what_is_no_path_from_the_root_is_refused() {
        assert_eq!(cgroup("/a.slice"), Ok("/a.slice".into()));
        for wrong in ["", "a.slice", "/a/../b"] {
            assert!(cgroup(wrong).unwrap_err().contains("/proc/PID/cgroup"), "{wrong:?}");
        }
    }
}
