//! Prometheus' text format, version 0.0.4: what every scraper reads.
//!
//! Not OpenMetrics: `promtool check metrics` does not read that, and Prometheus gains nothing by it here.

use std::fmt::{Display, Write};

use crate::ledger::HistogramReading;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A label's name and value.
pub(super) type Label<'a> = (&'static str, &'a str);

/// A page of metric families under way.
#[derive(Debug, Default)]
pub(super) struct Page(String);

/// One family of it: all samples of a name stand together, as the format asks.
pub(super) struct Family<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl Page {
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.0.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { page: &mut self.0, name }
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.line("", labels, None, value);
    }

    pub(super) fn histogram(&mut self, labels: &[Label<'_>], reading: &HistogramReading) {
        let bounds = reading.bounds_us.iter().map(|&bound| seconds(bound).to_string());
        let mut total = 0;
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&reading.counts) {
            total += count;
            self.line("_bucket", labels, Some(&bound), total);
        }
        self.line("_sum", labels, None, seconds(reading.sum_us));
        self.line("_count", labels, None, total);
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], bound: Option<&str>, value: impl Display) {
        self.page.push_str(self.name);
        self.page.push_str(suffix);
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            self.page.push(before);
            self.page.push_str(name);
            self.page.push_str("=\"");
            push_escaped(self.page, value);
            self.page.push('"');
            before = ',';
        }
        if before == ',' {
            self.page.push('}');
        }
        // Writing to a String cannot fail.
        let _ = writeln!(self.page, " {value}");
    }
}

pub(super) fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// The three characters that the format escapes in label values.
fn push_escaped(page: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => page.push_str("\\\\"),
            '"' => page.push_str("\\\""),
            '\n' => page.push_str("\\n"),
            other => page.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_as_the_format_says() {
        let mut page = Page::default();
        let mut family = page.family("a_total", Kind::Counter, "Things.");
        family.sample(&[], 1);
        family.sample(&[("x", "a\"b\\c\nd"), ("y", "")], 0.25);
        let reading =
            HistogramReading { bounds_us: &[2_500, 1_000_000], counts: vec![1, 0, 2], sum_us: 7_500_000 };
        page.family("b_seconds", Kind::Histogram, "Times.").histogram(&[("x", "y")], &reading);
        let expected = [
            "# HELP a_total Things.",
            "# TYPE a_total counter",
            "a_total 1",
            r#"a_total{x="a\"b\\c\nd",y=""} 0.25"#,
            "# HELP b_seconds Times.",
            "# TYPE b_seconds histogram",
            r#"b_seconds_bucket{x="y",le="0.0025"} 1"#,
            r#"b_seconds_bucket{x="y",le="1"} 1"#,
            r#"b_seconds_bucket{x="y",le="+Inf"} 3"#,
            r#"b_seconds_sum{x="y"} 7.5"#,
            r#"b_seconds_count{x="y"} 3"#,
        ];
        assert_eq!(page.finish().lines().collect::<Vec<_>>(), expected);
    }
}
