//! Where manifests come from: files, directories and standard input, read whole as named texts.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::kernel::privileges;

/// All texts together; a `kubectl get pods -o yaml` of 10,000 Pods stays below.
const MAX_BYTES: u64 = 256 << 20;

/// What was read, and the fingerprint that the sources had just before.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    pub texts: Vec<Text>,
    pub fingerprint: Fingerprint,
}

#[derive(Clone, Debug)]
pub struct Text {
    /// The path as diagnostics show it; `<stdin>` for standard input.
    pub name: Arc<str>,
    pub text: String,
}

/// A source that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct LoadError {
    pub path: PathBuf,
    pub source: io::Error,
}

impl LoadError {
    fn new(path: &Path, source: io::Error) -> Self {
        Self { path: path.to_owned(), source: privileges::explained(source) }
    }
}

/// Changes when a file is added, removed, replaced or written. Cheap: one `stat` per file, no reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(u64);

/// Reads every source. A directory gives its `*.yaml`, `*.yml` and `*.json`, sorted, without hidden files and
/// without going deeper; `-` is standard input, which can be read once only.
pub fn load(paths: &[PathBuf]) -> Result<Loaded, LoadError> {
    // Taken before reading: a change in between is then seen by the next poll, never missed.
    let fingerprint = fingerprint(paths);
    let mut left = MAX_BYTES;
    let mut texts = Vec::new();
    for path in paths {
        if is_stdin(path) {
            texts.push(text("<stdin>".into(), path, &mut io::stdin().lock(), &mut left)?);
            continue;
        }
        for file in files(path).map_err(|e| LoadError::new(path, e))? {
            let mut open = fs::File::open(&file).map_err(|e| LoadError::new(&file, e))?;
            texts.push(text(file.to_string_lossy().into(), &file, &mut open, &mut left)?);
        }
    }
    Ok(Loaded { texts, fingerprint })
}

/// The state of the sources as a poll sees it. Symbolic links are followed, since mounted ConfigMaps change by
/// swapping one; what cannot be looked at counts as absent.
#[must_use]
pub fn fingerprint(paths: &[PathBuf]) -> Fingerprint {
    let mut hasher = DefaultHasher::new();
    for path in paths.iter().filter(|path| !is_stdin(path)) {
        for file in files(path).unwrap_or_default() {
            file.hash(&mut hasher);
            if let Ok(meta) = fs::metadata(&file) {
                (meta.dev(), meta.ino(), meta.size()).hash(&mut hasher);
                (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()).hash(&mut hasher);
            }
        }
    }
    Fingerprint(hasher.finish())
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The files that a path stands for.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let known = file.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if known && !hidden && fs::metadata(&file).is_ok_and(|meta| meta.is_file()) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn text(name: Arc<str>, path: &Path, from: &mut dyn Read, left: &mut u64) -> Result<Text, LoadError> {
    let mut text = String::new();
    let error = |source| LoadError::new(path, source);
    let read = from.take(*left + 1).read_to_string(&mut text).map_err(error)? as u64;
    match left.checked_sub(read) {
        Some(rest) => *left = rest,
        None => {
            let message = format!("the manifests together exceed {} MiB; leave some out", MAX_BYTES >> 20);
            return Err(error(io::Error::new(io::ErrorKind::FileTooLarge, message)));
        }
    }
    Ok(Text { name, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(loaded: &Loaded) -> Vec<String> {
        let last = |text: &Text| text.name.rsplit('/').next().unwrap_or_default().to_owned();
        loaded.texts.iter().map(last).collect()
    }

    #[test]
    fn a_directory_gives_its_manifests_sorted_without_hidden_ones_and_subdirectories() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "c.json", ".hidden.yaml", "notes.txt"] {
            fs::write(dir.path().join(name), "{}").unwrap();
        }
        fs::create_dir(dir.path().join("deeper.yaml")).unwrap();
        fs::write(dir.path().join("deeper.yaml/d.yaml"), "{}").unwrap();
        let loaded = load(&[dir.path().to_owned(), dir.path().join("notes.txt")]).unwrap();
        assert_eq!(names(&loaded), ["a.yml", "b.yaml", "c.json", "notes.txt"]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(&[PathBuf::from("/nowhere/x.yaml")]).unwrap_err().to_string();
        assert_eq!(error, "cannot read /nowhere/x.yaml");
    }

    #[test]
    fn text_that_is_not_utf_8_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), b"a: \xff").unwrap();
        assert!(load(&[dir.path().to_owned()]).is_err());
    }

    #[test]
    fn the_fingerprint_sees_added_replaced_and_relinked_files() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [dir.path().to_owned()];
        let empty = fingerprint(&paths);
        fs::write(dir.path().join("target-1"), "a: 1").unwrap();
        fs::write(dir.path().join("target-2"), "a: 1").unwrap();
        assert_eq!(fingerprint(&paths), empty, "no manifest yet");
        let link = dir.path().join("a.yaml");
        std::os::unix::fs::symlink(dir.path().join("target-1"), &link).unwrap();
        let first = fingerprint(&paths);
        assert_ne!(first, empty);
        assert_eq!(first, fingerprint(&paths));
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(dir.path().join("target-2"), &link).unwrap();
        assert_ne!(fingerprint(&paths), first);
    }
}
