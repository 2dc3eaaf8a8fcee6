//! Rust source, as far as the rules need to read it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// One file; `path` is relative to the repository.
pub(super) struct Source {
    pub(super) path: PathBuf,
    lines: Vec<String>,
    /// Lines before the test module.
    tested: usize,
}

impl Source {
    pub(super) fn new(path: PathBuf, text: &str) -> Self {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let is_test_module =
            |pair: &[String]| pair[0].trim() == "#[cfg(test)]" && pair[1].trim().starts_with("mod ");
        let tested = lines.windows(2).position(is_test_module).unwrap_or(lines.len());
        Self { path, lines, tested }
    }

    /// The lines of code that is built into programs, without their comments; counted from 1.
    pub(super) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.lines.iter().take(self.tested).enumerate();
        lines.map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
    }

    /// Whether the comment above a line, or the line, says SAFETY. Attributes may stand between. One note may be for all
    /// that follows it, where each line of a file is safe for the same reason.
    pub(super) fn has_safety_note(&self, line: usize) -> bool {
        let above = self.lines.iter().take(line - 1).rev();
        if above.clone().any(|l| l.trim().starts_with("// SAFETY, for all of the following:")) {
            return true;
        }
        let comment = above.take_while(|l| l.trim().starts_with("//") || l.trim().starts_with("#["));
        let own = self.lines.iter().skip(line - 1).take(1);
        comment.chain(own).any(|l| l.contains("SAFETY") || l.contains("# Safety"))
    }
}

/// Every file under a folder but built ones and those that hold only tests.
pub(super) fn read_all(folder: &Path, root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let left_out =
            ["target", "fuzz"].contains(&name) || name == "tests" && folder.starts_with(root.join("gateway"));
        if path.is_dir() && !left_out {
            sources.extend(read_all(&path, root)?);
        } else if path.extension().is_some_and(|e| e == "rs") && name != "tests.rs" {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            sources.push(Source::new(path.strip_prefix(root).unwrap_or(&path).to_owned(), &text));
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

/// The modules that a line names as `crate::x` or `crate::{x, y::z}`.
pub(super) fn imports(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(top_names(group)),
            None => names.push(word(rest).to_owned()),
        }
    }
    names
}

/// The first names of a group, whose own groups are skipped.
fn top_names(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut names) = (0_usize, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && is_word(c) => {
                names.push(word(&group[at..]).to_owned());
                start = false;
            }
            _ => {}
        }
    }
    names
}

/// Whether a line uses a crate, written as `name::`.
pub(super) fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| !line[..at].ends_with(|c: char| is_word(c) || c == ':'))
}

/// Whether a line opens something unsafe; the word alone may be part of a text.
pub(super) fn opens_unsafe(line: &str) -> bool {
    ["{", "fn ", "impl ", "impl<", "extern ", "trait "]
        .iter()
        .any(|what| line.contains(&["unsafe", what].join(" ")))
}

fn word(text: &str) -> &str {
    text.split(|c| !is_word(c)).next().unwrap_or_default()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_read_as_written() {
        assert_eq!(imports("use crate::{a, b::{c, d}, e as f};"), ["a", "b", "e"]);
        assert_eq!(imports("pub(crate) fn f(x: crate::g::H) -> crate::i {"), ["g", "i"]);
    }
}
