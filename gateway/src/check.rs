//! What `penstock check` prints: per object the conditions that Kubernetes would show, then what is wrong.

use std::fmt::Write;

use crate::config::{Condition, ObjectStatus, Report, Severity};

/// What manifests lack that are right in every part and yet open no port.
pub const NOTHING_TO_SERVE: &str = "no listener can be served: the manifests need a Gateway with an HTTP listener, \
     and its GatewayClass with the controllerName penstock.dev/gateway-controller (or Envoy Gateway's)";

/// Plain text in the order of the sources; ends with one line that sums up.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    for object in &report.objects {
        render_object(object, &mut text);
    }
    if !report.objects.is_empty() && !report.diagnostics.is_empty() {
        text.push('\n');
    }
    for diagnostic in &report.diagnostics {
        // Writing to a String cannot fail.
        _ = writeln!(text, "{}", one_line(&diagnostic.to_string()));
    }
    if report.left_out > 0 {
        _ = writeln!(text, "and {} more", report.left_out);
    }
    let counted = [plural(report.errors(), "error"), plural(report.warnings(), "warning")].join(", ");
    let verdict = if report.ok() { "ok" } else { "not ok" };
    _ = writeln!(text, "\n{verdict}: {}, {counted}", plural(report.objects.len(), "object"));
    text
}

/// The errors alone, a line each: why manifests cannot be used.
#[must_use]
pub fn problems(report: &Report) -> String {
    let errors = report.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
    errors.fold(String::new(), |problems, error| problems + &one_line(&error.to_string()) + "\n")
}

fn render_object(object: &ObjectStatus, text: &mut String) {
    _ = writeln!(text, "{} {}  ({})", object.kind, object.name, one_line(&object.position.to_string()));
    let mut about = "";
    for condition in &object.conditions {
        if condition.about != about {
            about = &condition.about;
            _ = writeln!(text, "  {}", one_line(about));
        }
        let indent = if about.is_empty() { "  " } else { "    " };
        _ = writeln!(text, "{indent}{}", render_condition(condition));
    }
}

fn render_condition(condition: &Condition) -> String {
    let status = if condition.status { "True" } else { "False" };
    let mut text = format!("{}={status}", condition.kind);
    if condition.reason != condition.kind {
        text = format!("{text} {}", condition.reason);
    }
    if !condition.message.is_empty() {
        text = format!("{text}: {}", one_line(&condition.message));
    }
    text
}

/// Texts out of manifests must not forge lines or move the cursor.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn plural(count: usize, word: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {word}{s}")
}

#[cfg(test)]
mod tests;
