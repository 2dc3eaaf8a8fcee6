//! YAML (and so JSON) as a tree in which every node knows its line and column.
//!
//! Bounded whatever the text holds: depth, the number of nodes, and what aliases expand to. The parser is pulled
//! event by event, so nothing here recurses over the text.

mod scalar;

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

pub(crate) use scalar::Scalar;

const MAX_DEPTH: usize = 64;
/// Nodes of one text with its aliases expanded: about 10,000 Pods as kubectl prints them.
const MAX_NODES: usize = 8_000_000;
/// Nodes that aliases may stand for: a few lines must not become a gigabyte.
const MAX_ALIASED: usize = 100_000;

/// Line and column, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Spot,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Box<str>,
    pub(crate) at: Spot,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.is_null())
    }

    /// The entry of a mapping; `None` for every other node.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|e| &*e.key == key).map(|e| &e.node),
            _ => None,
        }
    }

    /// What it is, in the words of an error message.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Scalar(scalar) => scalar.describe(),
            Value::Sequence(_) => "a list".into(),
            Value::Mapping(_) => "a mapping".into(),
        }
    }
}

/// Why a text has no tree.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TreeError {
    pub(crate) at: Spot,
    pub(crate) message: String,
}

/// The documents of a text; empty ones are left out.
pub(crate) fn documents(text: &str) -> Result<Vec<Node>, TreeError> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(syntax_error)?;
        builder.take(event, span)?;
    }
    Ok(builder.documents)
}

/// A collection that is still open.
struct Open {
    at: Spot,
    anchor: usize,
    items: Items,
}

enum Items {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, key: Option<(Box<str>, Spot)> },
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Anchored>>,
    nodes: usize,
    /// Of them, those that aliases stand for.
    aliased: usize,
}

struct Anchored {
    node: Node,
    nodes: usize,
    height: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), TreeError> {
        let at = spot(span);
        match event {
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = plain(style, tag.as_deref()).map_err(|message| TreeError { at, message })?;
                self.count(1, at)?;
                let scalar = Scalar { text: text.into(), plain };
                self.complete(Node { at, value: Value::Scalar(scalar) }, anchor)?;
            }
            Event::SequenceStart(anchor, _) => self.enter(at, anchor, Items::Sequence(Vec::new()))?,
            Event::MappingStart(anchor, _) => {
                self.enter(at, anchor, Items::Mapping { entries: Vec::new(), key: None })?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(anchor) => self.expand(anchor, at)?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn enter(&mut self, at: Spot, anchor: usize, items: Items) -> Result<(), TreeError> {
        self.count(1, at)?;
        self.open.push(Open { at, anchor, items });
        self.check_depth(0, at)
    }

    fn close(&mut self) -> Result<(), TreeError> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.items {
            Items::Sequence(items) => Value::Sequence(items),
            Items::Mapping { entries, .. } => {
                refuse_duplicates(&entries)?;
                Value::Mapping(entries)
            }
        };
        self.complete(Node { at: open.at, value }, open.anchor)
    }

    /// A node is whole: it goes into the collection around it.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), TreeError> {
        if anchor != 0 {
            let (nodes, height) = extent(&node);
            self.count(nodes, node.at)?;
            self.anchors.insert(anchor, Rc::new(Anchored { node: node.clone(), nodes, height }));
        }
        let at = node.at;
        match self.open.last_mut().map(|open| &mut open.items) {
            None if node.is_null() => {}
            None => self.documents.push(node),
            Some(Items::Sequence(items)) => items.push(node),
            Some(Items::Mapping { entries, key }) => match (key.take(), node.value) {
                (Some((key, at)), value) => {
                    entries.push(Entry { key, at, node: Node { at: node.at, value } })
                }
                (None, Value::Scalar(scalar)) if &*scalar.text == "<<" && scalar.plain => {
                    return Err(error(at, "merge keys (<<) are not supported; write the fields out"));
                }
                (None, Value::Scalar(scalar)) => *key = Some((scalar.text, at)),
                (None, _) => return Err(error(at, "a key must be plain text, not a list or mapping")),
            },
        }
        Ok(())
    }

    fn expand(&mut self, anchor: usize, at: Spot) -> Result<(), TreeError> {
        let Some(anchored) = self.anchors.get(&anchor).cloned() else {
            return Err(error(
                at,
                "the alias names an anchor that is not complete before it in this document",
            ));
        };
        self.aliased += anchored.nodes;
        if self.aliased > MAX_ALIASED {
            return Err(error(
                at,
                &format!("aliases stand for more than {MAX_ALIASED} nodes; write them out"),
            ));
        }
        self.count(anchored.nodes, at)?;
        self.check_depth(anchored.height, at)?;
        self.complete(anchored.node.clone(), 0)
    }

    fn count(&mut self, nodes: usize, at: Spot) -> Result<(), TreeError> {
        self.nodes += nodes;
        match self.nodes <= MAX_NODES {
            true => Ok(()),
            false => Err(error(at, &format!("more than {MAX_NODES} nodes with aliases expanded; split it"))),
        }
    }

    fn check_depth(&self, height: usize, at: Spot) -> Result<(), TreeError> {
        match self.open.len() + height <= MAX_DEPTH {
            true => Ok(()),
            false => Err(error(at, &format!("nested more than {MAX_DEPTH} deep"))),
        }
    }
}

/// Whether a scalar may be more than a string: quoted ones and `!!str` may not.
fn plain(style: ScalarStyle, tag: Option<&Tag>) -> Result<bool, String> {
    match tag {
        None => Ok(style == ScalarStyle::Plain),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() => Ok(true),
        Some(tag) => Err(format!("the tag {tag} is not supported; leave it out")),
    }
}

fn refuse_duplicates(entries: &[Entry]) -> Result<(), TreeError> {
    // Most mappings are small: pairs are then cheaper than a table.
    if entries.len() <= 16 {
        let same = |(i, b): (usize, &Entry)| entries.iter().take(i).any(|a| a.key == b.key);
        if !entries.iter().enumerate().any(same) {
            return Ok(());
        }
    }
    let mut seen: HashMap<&str, Spot> = HashMap::with_capacity(entries.len());
    for entry in entries {
        if let Some(first) = seen.insert(&entry.key, entry.at) {
            let Spot { line, column } = first;
            let message = format!("the key {:?} is here twice, first at {line}:{column}", entry.key);
            return Err(TreeError { at: entry.at, message });
        }
    }
    Ok(())
}

/// Nodes in a subtree and how deep it nests; recursion is bounded by `MAX_DEPTH`.
fn extent(node: &Node) -> (usize, usize) {
    let merge = |(n, h): (usize, usize), (m, g): (usize, usize)| (n + m, h.max(g));
    let (nodes, height) = match &node.value {
        Value::Scalar(_) => return (1, 0),
        Value::Sequence(items) => items.iter().map(extent).fold((1, 0), merge),
        Value::Mapping(entries) => entries.iter().map(|e| extent(&e.node)).fold((1, 0), merge),
    };
    (nodes, height + 1)
}

fn spot(span: Span) -> Spot {
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Spot { line: small(span.start.line()), column: small(span.start.col()).saturating_add(1) }
}

fn error(at: Spot, message: &str) -> TreeError {
    TreeError { at, message: message.to_owned() }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn syntax_error(error: ScanError) -> TreeError {
    let at = spot(Span::empty(*error.marker()));
    TreeError { at, message: format!("not YAML: {}", error.info()) }
}

#[cfg(test)]
mod tests;
