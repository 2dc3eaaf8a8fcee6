//! What a usable model name is, in either format.

use super::{MODEL_MAX, ScanErrorKind};

/// A model's name, 1 to [`MODEL_MAX`] bytes. One of common length is kept in place: nothing is allocated for it.
#[derive(Clone)]
pub struct Name {
    long: Option<Box<[u8]>>,
    /// Unless it is `long`.
    short: [u8; SHORT],
    length: u8,
}

/// Makes the whole 64 bytes.
const SHORT: usize = 47;

impl Default for Name {
    #[inline(always)]
    fn default() -> Self {
        Self { long: None, short: [0; SHORT], length: 0 }
    }
}

impl Name {
    /// `name` must be valid UTF-8.
    pub(super) fn new(name: &[u8]) -> Self {
        let mut new = Self::default();
        new.set(name);
        new
    }

    /// Makes an empty name this one, which must be valid UTF-8.
    #[inline(always)]
    pub(super) fn set(&mut self, name: &[u8]) {
        match self.short.get_mut(..name.len()) {
            Some(place) => {
                place.copy_from_slice(name);
                self.length = name.len() as u8;
            }
            None => self.long = Some(name.into()),
        }
    }
}

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        let short = self.short.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(self.long.as_deref().unwrap_or(short)).unwrap_or_default()
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Name {}

/// Checks a decoded name. White space and control characters are Unicode's: an engine that trims, or a log that
/// is read by a terminal, must not see another name than the router did.
pub(super) fn check(decoded: &[u8]) -> Result<Name, ScanErrorKind> {
    let name = std::str::from_utf8(decoded).map_err(|_| ScanErrorKind::NotUtf8)?;
    if name.is_empty() {
        return Err(ScanErrorKind::ModelEmpty);
    }
    if name.len() > MODEL_MAX {
        return Err(ScanErrorKind::ModelTooLong);
    }
    if name.chars().any(char::is_control) {
        return Err(ScanErrorKind::ModelControl);
    }
    if name.trim() != name {
        return Err(ScanErrorKind::ModelPadded);
    }
    Ok(Name::new(decoded))
}

/// [`check`] for printable ASCII that fits.
#[inline(always)]
pub(super) fn is_plain(text: &[u8]) -> bool {
    !matches!(text, [b' ', ..] | [.., b' '] | [])
}

/// Whether some reader takes the key for `model` though it is spelled in other letter case.
///
/// Go's encoding/json folds keys by simple Unicode folding. Two non-ASCII letters fold to ASCII ones, KELVIN SIGN
/// (k) and LONG S (s), and neither k nor s is in `model`; so ASCII folding finds every variant.
pub(super) fn is_case_variant(key: &[u8]) -> bool {
    key.eq_ignore_ascii_case(b"model") && key != b"model"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_letter_folds_to_letters_of_model() {
        for c in (0x80..=u32::from(char::MAX)).filter_map(char::from_u32) {
            let (lower, upper) = (c.to_lowercase(), c.to_uppercase());
            let both = upper.clone().flat_map(char::to_lowercase);
            for folded in [lower.collect::<String>(), upper.collect(), both.collect()] {
                assert!(
                    !folded.chars().all(|f| "modelMODEL".contains(f)),
                    "U+{:04X} folds to {folded}",
                    u32::from(c)
                );
            }
        }
    }

    #[test]
    fn padding_and_control_characters_are_unicodes() {
        assert_eq!(check("a\u{a0}".as_bytes()), Err(ScanErrorKind::ModelPadded));
        assert_eq!(check("a\u{85}b".as_bytes()), Err(ScanErrorKind::ModelControl));
        assert_eq!(check(b"a\x7fb"), Err(ScanErrorKind::ModelControl));
        assert_eq!(check("Qwen/Qwen3 8B é".as_bytes()), Ok(Name::new("Qwen/Qwen3 8B é".as_bytes())));
        assert!(check(&[b'a'; MODEL_MAX]).is_ok());
        assert_eq!(check(&[b'a'; MODEL_MAX + 1]), Err(ScanErrorKind::ModelTooLong));
    }
}
