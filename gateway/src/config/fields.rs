//! Reading a tree into types: fields are asked for by name, complaints carry position and path, and what nobody
//! asked for is reported as unknown.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::report::{Diagnostic, Place, Position, Severity};
use super::tree::{Entry, Node, Scalar, Spot, Value};
use super::units;

/// The reading of one object: gathers what is wrong with it, so that all of it is reported at once.
pub(crate) struct Reading {
    file: Arc<str>,
    /// Whether unknown fields are worth a warning; kubectl's Pods are full of fields that mean nothing here.
    strict: bool,
    diagnostics: RefCell<Vec<Diagnostic>>,
    failed: Cell<bool>,
    unsupported: RefCell<Option<String>>,
}

impl Reading {
    pub(crate) fn new(file: &Arc<str>, strict: bool) -> Self {
        Self {
            file: file.clone(),
            strict,
            diagnostics: RefCell::default(),
            failed: Cell::new(false),
            unsupported: RefCell::default(),
        }
    }

    /// The outcome: complaints, and why the object cannot be used, if it cannot.
    pub(crate) fn finish(self) -> (Vec<Diagnostic>, Option<Refusal>) {
        let mut diagnostics = self.diagnostics.into_inner();
        diagnostics.sort_by(|a, b| a.place.cmp(&b.place));
        let first = diagnostics.iter().find(|d| d.severity == Severity::Error);
        let refusal = match (self.failed.get(), self.unsupported.into_inner()) {
            (false, None) => None,
            (false, Some(message)) => Some(Refusal { reason: "UnsupportedValue", message }),
            (true, _) => {
                let message = first.map(|d| format!("{}: {}", d.place.path, d.message)).unwrap_or_default();
                Some(Refusal { reason: "Invalid", message })
            }
        };
        (diagnostics, refusal)
    }

    fn say(&self, severity: Severity, at: Spot, path: &str, message: String) {
        let position = Position { file: self.file.clone(), line: at.line, column: at.column };
        let place = Place { position, path: path.into() };
        self.diagnostics.borrow_mut().push(Diagnostic { severity, place, message });
    }
}

/// Why an object is not accepted.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// A mapping whose fields are read by name; those left unread when it goes out of scope are reported.
pub(crate) struct Fields<'t> {
    reading: &'t Reading,
    at: Spot,
    path: String,
    entries: &'t [Entry],
    read: Vec<Cell<bool>>,
}

impl<'t> Fields<'t> {
    /// The fields of the node at the top of an object.
    pub(crate) fn top(reading: &'t Reading, node: &'t Node, path: &str) -> Option<Self> {
        Field { reading, node, path: path.to_owned() }.fields()
    }

    /// A field that is there; null counts as absent, as in Kubernetes.
    pub(crate) fn get(&self, key: &str) -> Option<Field<'t>> {
        let index = self.entries.iter().position(|entry| &*entry.key == key)?;
        if let Some(read) = self.read.get(index) {
            read.set(true);
        }
        let node = &self.entries.get(index)?.node;
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        if node.is_null() { None } else { Some(Field { reading: self.reading, node, path }) }
    }

    pub(crate) fn require(&self, key: &str) -> Option<Field<'t>> {
        let field = self.get(key);
        if field.is_none() {
            self.error(format!("{key} is missing"));
        }
        field
    }

    pub(crate) fn string(&self, key: &str) -> Option<&'t str> {
        self.get(key)?.string()
    }

    /// A string that must be there; empty after the complaint where it is not.
    pub(crate) fn required_string(&self, key: &str) -> &'t str {
        self.require(key).and_then(|field| field.nonempty()).unwrap_or_default()
    }

    pub(crate) fn fields(&self, key: &str) -> Option<Fields<'t>> {
        self.get(key)?.fields()
    }

    pub(crate) fn duration(&self, key: &str) -> Option<Duration> {
        self.get(key)?.duration()
    }

    /// The items of a list; none where it is absent.
    pub(crate) fn items(&self, key: &str, max: usize) -> Vec<Field<'t>> {
        self.get(key).map(|field| field.items(max)).unwrap_or_default()
    }

    /// A field that is known and would change routing or security, but does nothing here yet: the object is
    /// refused rather than half obeyed.
    pub(crate) fn unsupported(&self, keys: &[&str]) {
        for key in keys {
            if let Some(field) = self.get(key) {
                field.unsupported("is not supported yet");
            }
        }
    }

    /// Fields that are known and have no effect here, with the reason.
    pub(crate) fn no_effect(&self, keys: &[&str], why: &str) {
        for key in keys {
            if let Some(field) = self.get(key) {
                field.info(format!("has no effect: {why}"));
            }
        }
    }

    /// Fields that are known and say nothing that a gateway needs.
    pub(crate) fn skip(&self, keys: &[&str]) {
        for key in keys {
            _ = self.get(key);
        }
    }

    /// Whatever else is here is somebody else's.
    pub(crate) fn skip_rest(&self) {
        self.read.iter().for_each(|read| read.set(true));
    }

    pub(crate) fn error(&self, message: impl fmt::Display) {
        self.reading.failed.set(true);
        self.reading.say(Severity::Error, self.at, &self.path, message.to_string());
    }

    pub(crate) fn place(&self) -> Place {
        place(self.reading, self.at, &self.path)
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        if !self.reading.strict {
            return;
        }
        for (entry, _) in self.entries.iter().zip(&self.read).filter(|(_, read)| !read.get()) {
            let dot = if self.path.is_empty() { "" } else { "." };
            let path = format!("{}{dot}{}", self.path, entry.key);
            self.reading.say(Severity::Warning, entry.at, &path, "unknown field, ignored".into());
        }
    }
}

/// One value with its path.
pub(crate) struct Field<'t> {
    reading: &'t Reading,
    node: &'t Node,
    path: String,
}

impl<'t> Field<'t> {
    pub(crate) fn string(&self) -> Option<&'t str> {
        let found = self.scalar().and_then(Scalar::string);
        if found.is_none() {
            let hint = if self.scalar().is_some() { "; put it in quotes" } else { "" };
            self.error(format!("must be a string, not {}{hint}", self.node.describe()));
        }
        found
    }

    pub(crate) fn nonempty(&self) -> Option<&'t str> {
        let found = self.string()?;
        if found.is_empty() {
            self.error("must not be empty");
            return None;
        }
        Some(found)
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        let found = self.scalar().and_then(Scalar::boolean);
        if found.is_none() {
            self.error(format!("must be true or false, not {}", self.node.describe()));
        }
        found
    }

    pub(crate) fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let Some(found) = self.scalar().and_then(Scalar::integer) else {
            self.error(format!("must be an integer, not {}", self.node.describe()));
            return None;
        };
        if !range.contains(&found) {
            self.error(format!("must be between {} and {}, not {found}", range.start(), range.end()));
            return None;
        }
        Some(found)
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.integer(1..=65535).and_then(|port| u16::try_from(port).ok())
    }

    /// An integer, which may be written as one or as a string (`targetPort`).
    pub(crate) fn integer_or_string(&self) -> Option<Result<i64, &'t str>> {
        match self.scalar().and_then(Scalar::integer) {
            Some(number) => Some(Ok(number)),
            None => self.string().map(Err),
        }
    }

    /// Bytes, as an integer or a string like `20Mi`.
    pub(crate) fn quantity(&self, max: u64) -> Option<u64> {
        let found = match self.integer_or_string()? {
            Ok(number) => u64::try_from(number).ok().filter(|n| *n > 0).ok_or("must be positive".into()),
            Err(text) => units::quantity(text),
        };
        let fits = |found| if found <= max { Ok(found) } else { Err(format!("must be at most {max} bytes")) };
        self.ok(found.and_then(fits))
    }

    pub(crate) fn duration(&self) -> Option<Duration> {
        self.ok(units::duration(self.string()?))
    }

    /// In its canonical form: `::ffff:10.0.0.1` is 10.0.0.1, the same socket, and must not be another endpoint.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        let text = self.string()?;
        let ip = text.parse::<IpAddr>().map_err(|error| format!("{text:?}: {error}"));
        self.ok(ip.map(|ip| ip.to_canonical()))
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.string()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.error(format!("must be {}, not {text:?}", known.join(" or ")));
        }
        found
    }

    pub(crate) fn fields(&self) -> Option<Fields<'t>> {
        let Value::Mapping(entries) = &self.node.value else {
            self.error(format!("must be a mapping, not {}", self.node.describe()));
            return None;
        };
        let read = if self.reading.strict { vec![Cell::new(false); entries.len()] } else { Vec::new() };
        Some(Fields { reading: self.reading, at: self.node.at, path: self.path.clone(), entries, read })
    }

    /// The items of a list, at most `max`.
    pub(crate) fn items(&self, max: usize) -> Vec<Field<'t>> {
        let Value::Sequence(items) = &self.node.value else {
            self.error(format!("must be a list, not {}", self.node.describe()));
            return Vec::new();
        };
        if items.len() > max {
            self.error(format!("has {} items, at most {max} are allowed", items.len()));
            return Vec::new();
        }
        let item = |(i, node)| Field { reading: self.reading, node, path: format!("{}[{i}]", self.path) };
        items.iter().enumerate().map(item).collect()
    }

    /// A mapping from strings to strings, as labels are.
    pub(crate) fn pairs(&self) -> Vec<(Box<str>, Box<str>)> {
        let Value::Mapping(entries) = &self.node.value else {
            self.error(format!("must be a mapping, not {}", self.node.describe()));
            return Vec::new();
        };
        let pair = |entry: &'t Entry| {
            let path = format!("{}.{}", self.path, entry.key);
            let value = Field { reading: self.reading, node: &entry.node, path };
            let value = if entry.node.is_null() { "" } else { value.string()? };
            Some((entry.key.clone(), value.into()))
        };
        entries.iter().filter_map(pair).collect()
    }

    /// The value, or its error as a complaint about this field.
    pub(crate) fn ok<T>(&self, result: Result<T, impl fmt::Display>) -> Option<T> {
        result.map_err(|error| self.error(error)).ok()
    }

    pub(crate) fn unsupported(&self, why: impl fmt::Display) {
        let message = why.to_string();
        self.reading.unsupported.borrow_mut().get_or_insert_with(|| format!("{}: {message}", self.path));
        self.reading.say(Severity::Error, self.node.at, &self.path, message);
    }

    pub(crate) fn error(&self, message: impl fmt::Display) {
        self.reading.failed.set(true);
        self.reading.say(Severity::Error, self.node.at, &self.path, message.to_string());
    }

    pub(crate) fn warning(&self, message: impl fmt::Display) {
        self.reading.say(Severity::Warning, self.node.at, &self.path, message.to_string());
    }

    pub(crate) fn info(&self, message: impl fmt::Display) {
        self.reading.say(Severity::Info, self.node.at, &self.path, message.to_string());
    }

    fn scalar(&self) -> Option<&'t Scalar> {
        match &self.node.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }
}

fn place(reading: &Reading, at: Spot, path: &str) -> Place {
    let position = Position { file: reading.file.clone(), line: at.line, column: at.column };
    Place { position, path: path.into() }
}
