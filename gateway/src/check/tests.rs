use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::config;
use crate::discovery::{Names, Registry};
use crate::ledger::Meter;

/// Compares with the file beside the manifests; `PENSTOCK_BLESS=1` writes it anew.
#[test]
fn a_folder_of_mistakes_is_reported_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/config");
    let mut loaded = config::load(&[folder.join("mistakes")]).unwrap();
    for text in &mut loaded.texts {
        text.name = text.name.rsplit('/').next().unwrap().into();
    }
    let parsed = config::parse(&loaded);
    let mut meter = |_: &str, _: &str| Arc::new(Meter::default());
    let (_, report) = config::build(&parsed, &Names::default(), &mut Registry::default(), &mut meter, 1);
    let found = render(&report);
    let golden = folder.join("mistakes.txt");
    if std::env::var_os("PENSTOCK_BLESS").is_some() {
        fs::write(&golden, &found).unwrap();
    }
    let wanted = fs::read_to_string(&golden).unwrap_or_default();
    assert_eq!(found, wanted, "the report changed; PENSTOCK_BLESS=1 cargo test writes {}", golden.display());
    assert!(!report.ok() && report.is_fatal());
}

#[test]
fn texts_of_manifests_cannot_forge_lines() {
    let text = config::Text {
        name: "a.yaml".into(),
        text: "apiVersion: v1\nkind: \"X\\n\\x1b[2Jok: 0 errors\"\n".into(),
    };
    let loaded = config::Loaded { texts: vec![text], ..config::Loaded::default() };
    let rendered = render(config::parse(&loaded).report());
    assert!(!rendered.contains('\u{1b}') && rendered.lines().count() == 3, "{rendered}");
}
