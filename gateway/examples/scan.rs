//! Scans bodies from standard input and prints one JSON line for each: the scanner's side of the oracles in
//! `tests/oracle`. Each body is preceded by its length (u32, little endian). Bodies are JSON, or forms with
//! the boundary that `--form BOUNDARY` names.

use std::io::{self, BufWriter, ErrorKind, Read, Write};

use anyhow::{Context, bail};
use http::HeaderValue;
use penstock::scan::{JsonScanner, MultipartScanner, ScanError, Scanner};
use serde_json::json;

fn main() -> anyhow::Result<()> {
    let boundary = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => None,
        [flag, boundary] if flag == "--form" => Some(boundary.clone()),
        _ => bail!("usage: scan [--form BOUNDARY] < bodies"),
    };
    let mut input = io::stdin().lock();
    let mut output = BufWriter::new(io::stdout().lock());
    let mut length = [0; 4];
    loop {
        match input.read_exact(&mut length) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        let mut body = Vec::new();
        let wanted = u64::from(u32::from_le_bytes(length));
        if input.by_ref().take(wanted).read_to_end(&mut body)? as u64 != wanted {
            bail!("the last body is shorter than its length says");
        }
        let mut scanner = scanner(boundary.as_deref())?;
        let line = match scan(&mut scanner, &body) {
            Ok(()) => json!({"ok": true, "model": scanner.model().map(|model| &*model.name)}),
            Err(error) => json!({"ok": false, "kind": format!("{:?}", error.kind), "offset": error.offset}),
        };
        writeln!(output, "{line}")?;
    }
    output.flush().context("standard output was closed")
}

fn scanner(boundary: Option<&str>) -> anyhow::Result<Scanner> {
    let Some(boundary) = boundary else { return Ok(Scanner::Json(JsonScanner::new())) };
    let content_type = HeaderValue::from_str(&format!("multipart/form-data; boundary=\"{boundary}\""))?;
    Ok(Scanner::Multipart(Box::new(MultipartScanner::new(&content_type)?)))
}

/// Scans a body in two chunks, so that every run crosses a seam.
fn scan(scanner: &mut Scanner, body: &[u8]) -> Result<(), ScanError> {
    let (head, tail) = body.split_at(body.len() / 2);
    scanner.push(head)?;
    scanner.push(tail)?;
    scanner.finish()
}
