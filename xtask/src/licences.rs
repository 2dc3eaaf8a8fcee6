//! Licences of all that is linked: cargo-deny where it is installed, else cargo's own metadata against the same list.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::shell::{cargo, has_cargo, must, root};

pub(crate) fn check() -> Result<()> {
    if has_cargo("deny") {
        must(cargo(&["deny", "--offline", "check", "licenses", "bans", "sources"]))?;
    } else {
        check_metadata()?;
    }
    eprintln!(
        "advisories: not checked here, their database is on the network (`cargo deny check advisories`)"
    );
    Ok(())
}

fn check_metadata() -> Result<()> {
    let settings = fs::read_to_string(root().join("deny.toml")).context("deny.toml")?;
    let allowed = allowed(&settings);
    let output = cargo(&["metadata", "--format-version=1", "--locked"]).output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata without packages")?;
    let refused: Vec<String> = packages
        .iter()
        .map(|package| (package["name"].as_str(), package["license"].as_str().unwrap_or("none")))
        .filter(|(_, licence)| !satisfied(licence, &allowed))
        .map(|(name, licence)| format!("{} has {licence}", name.unwrap_or("?")))
        .collect();
    ensure!(refused.is_empty(), "not in the list of deny.toml: {}", refused.join("; "));
    eprintln!("licences of {} packages are in the list of deny.toml", packages.len());
    Ok(())
}

/// The strings of `allow = [...]` under `[licenses]`.
fn allowed(settings: &str) -> BTreeSet<String> {
    let section = settings.split("[licenses]").nth(1).unwrap_or_default();
    let list = section.split("allow = [").nth(1).unwrap_or_default();
    let list = list.split(']').next().unwrap_or_default();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met by the allowed licences. AND binds closer than OR; `/` is the old OR.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    any(&mut words, allowed) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut met = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= all(words, allowed);
    }
    met
}

fn all(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let met = any(words, allowed);
        return words.next() == Some(")") && met;
    }
    let Some(name) = words.next() else { return false };
    if words.next_if_eq(&"WITH").is_some() {
        // An exception only adds permissions.
        words.next();
    }
    allowed.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_spdx_says() {
        let allowed = allowed("[licenses]\nallow = [\n  \"MIT\",\n  \"Apache-2.0\",\n]\n");
        for good in
            ["MIT", "MIT OR GPL-3.0", "GPL-3.0/MIT", "(MIT OR Apache-2.0) AND MIT", "Apache-2.0 WITH X"]
        {
            assert!(satisfied(good, &allowed), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "none", "", "(MIT"] {
            assert!(!satisfied(bad, &allowed), "{bad}");
        }
    }
}
