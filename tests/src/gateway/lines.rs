//! What a process prints.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::DEADLINE;

/// The lines that a process prints, as they come.
#[derive(Clone, Debug)]
pub(super) struct Lines(Arc<watch::Sender<Printed>>);

#[derive(Debug, Default)]
struct Printed {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    pub(super) fn of(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self(Arc::new(watch::Sender::default()));
        let printed = lines.0.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                printed.send_modify(|printed| printed.lines.push(line));
            }
            printed.send_modify(|printed| printed.ended = true);
        });
        lines
    }

    /// `None`: the process ended, or the time did, before it was found.
    pub(super) async fn until<T>(&self, what: &str, find: impl Fn(&[String]) -> Option<T>) -> Option<T> {
        let mut changes = self.0.subscribe();
        let search = async {
            loop {
                {
                    let printed = changes.borrow_and_update();
                    if let Some(found) = find(&printed.lines) {
                        return Some(found);
                    }
                    if printed.ended {
                        return None;
                    }
                }
                changes.changed().await.ok()?;
            }
        };
        let found = tokio::time::timeout(DEADLINE + Duration::from_secs(2), search).await;
        found.unwrap_or_else(|_| {
            eprintln!("waited in vain for {what}");
            None
        })
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.0.borrow().lines.clone()
    }

    pub(super) fn text(&self) -> String {
        self.0.borrow().lines.join("\n")
    }

    pub(super) fn last(&self, count: usize) -> String {
        let lines = &self.0.borrow().lines;
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}
