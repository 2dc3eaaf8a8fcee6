//! What reading and resolving manifests found: diagnostics with positions, and per object the conditions that
//! Kubernetes would write into its status.

use std::fmt;
use std::sync::Arc;

/// More diagnostics of one severity are counted, not kept: a hostile file must not fill the memory with
/// complaints, nor crowd out the errors of others.
const MAX_DIAGNOSTICS: usize = 1000;

/// Where in the sources something stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub file: Arc<str>,
    /// From 1; 0: the file as a whole.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// A position and the field that stands there (`spec.rules[0].name`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub position: Position,
    pub path: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
    Info,
}

impl Severity {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub place: Place,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.place.position, self.severity.word())?;
        if !self.place.path.is_empty() {
            write!(f, "{}: ", self.place.path)?;
        }
        f.write_str(&self.message)
    }
}

/// One line of a Kubernetes status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which part of the object: a listener, a parent; empty: the object itself.
    pub about: String,
    /// `Accepted`, `ResolvedRefs`, `Programmed`, `Conflicted`.
    pub kind: &'static str,
    pub status: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Condition {
    pub(crate) fn new(
        about: &str,
        kind: &'static str,
        status: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { about: about.to_owned(), kind, status, reason, message: message.into() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStatus {
    pub kind: &'static str,
    /// `namespace/name`, or the name alone where the kind has no namespace.
    pub name: String,
    pub position: Position,
    pub conditions: Vec<Condition>,
}

/// Everything that was found; diagnostics are in the order of the sources.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub diagnostics: Vec<Diagnostic>,
    pub objects: Vec<ObjectStatus>,
    /// Diagnostics that were counted and not kept.
    pub left_out: usize,
    errors: usize,
    warnings: usize,
    infos: usize,
    fatal: bool,
}

impl Report {
    /// Whether nothing is wrong; warnings do not count.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.errors == 0
    }

    /// How many errors were found, kept or not.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How many warnings were found, kept or not.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// Whether some text could not be read at all (syntax, duplicate keys, bounds), so that what was meant is
    /// unknown: a reload then keeps the old snapshot. Objects refused one by one are not fatal.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.fatal
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        let count = match diagnostic.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
            Severity::Info => &mut self.infos,
        };
        *count += 1;
        if *count <= MAX_DIAGNOSTICS {
            self.diagnostics.push(diagnostic);
        } else {
            self.left_out += 1;
        }
    }

    pub(crate) fn push_fatal(&mut self, position: Position, message: String) {
        self.fatal = true;
        let place = Place { position, path: "".into() };
        self.push(Diagnostic { severity: Severity::Error, place, message });
    }

    pub(crate) fn error(&mut self, place: &Place, message: impl Into<String>) {
        self.push(Diagnostic { severity: Severity::Error, place: place.clone(), message: message.into() });
    }

    pub(crate) fn warning(&mut self, place: &Place, message: impl Into<String>) {
        self.push(Diagnostic { severity: Severity::Warning, place: place.clone(), message: message.into() });
    }

    pub(crate) fn info(&mut self, place: &Place, message: impl Into<String>) {
        self.push(Diagnostic { severity: Severity::Info, place: place.clone(), message: message.into() });
    }

    pub(crate) fn sort(&mut self) {
        self.diagnostics.sort_by(|a, b| (&a.place, a.severity).cmp(&(&b.place, b.severity)));
        self.objects.sort_by(|a, b| a.position.cmp(&b.position));
    }
}
