//! A field value with parameters, `form-data; name="model"`, read so strictly that no two readers split it
//! differently.

/// `value *( OWS ";" OWS name "=" ( token / quoted-string ) )`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parameters<'a> {
    pub(super) value: &'a [u8],
    list: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Parameters<'a> {
    /// Reads a field value. None: it breaks the grammar, repeats a parameter, spells one in capitals (names are
    /// case-insensitive for some readers only), or holds `;` or `\"` inside quotes (some split there).
    pub(super) fn read(field: &'a [u8]) -> Option<Self> {
        let (value, mut rest) = field.split_at(count(field, |b| is_token(b) || b == b'/'));
        let mut list: Vec<(&[u8], &[u8])> = Vec::new();
        loop {
            rest = rest.trim_ascii_start();
            if rest.is_empty() {
                return (!value.is_empty()).then_some(Self { value, list });
            }
            rest = rest.strip_prefix(b";")?.trim_ascii_start();
            let (name, after) = rest.split_at(count(rest, is_token));
            if name.is_empty()
                || name.iter().any(u8::is_ascii_uppercase)
                || list.iter().any(|(n, _)| *n == name)
            {
                return None;
            }
            let after = after.strip_prefix(b"=")?;
            let content;
            (content, rest) = match after.strip_prefix(b"\"") {
                Some(quoted) => {
                    let content = &quoted[..count(quoted, |b| b != b'"')];
                    if content.ends_with(b"\\") || content.contains(&b';') {
                        return None;
                    }
                    (content, quoted.get(content.len() + 1..)?)
                }
                None => after.split_at(count(after, is_token)),
            };
            if content.is_empty() && after == rest {
                return None;
            }
            list.push((name, content));
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.list.iter().find(|(n, _)| *n == name.as_bytes()).map(|(_, content)| *content)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'a [u8]> {
        self.list.iter().map(|(name, _)| *name)
    }
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn count(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|b| wanted(**b)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_quoted_strings_are_read() {
        let read = Parameters::read(b"form-data; name=model;\tfilename=\"a b\\c.wav\" ;x=\"\"").unwrap();
        assert_eq!(read.value, b"form-data");
        assert_eq!(read.get("name"), Some(&b"model"[..]));
        assert_eq!(read.get("filename"), Some(&b"a b\\c.wav"[..]));
        assert_eq!(read.get("x"), Some(&b""[..]));
        assert_eq!(read.names().count(), 3);
    }

    #[test]
    fn what_readers_split_differently_is_refused() {
        for bad in [
            "",
            "; name=model",
            "form-data;",
            "form-data; name",
            "form-data; name=",
            "form-data; name =model",
            "form-data; name= model",
            "form-data; NAME=model",
            "form-data; name=a; name=b",
            "form-data; name=\"model",
            "form-data; name=\"a\"b",
            "form-data; name=<model>",
            "form-data; filename=\"a\\\"; name=\\\"model\"",
            "form-data; filename=\"x; name=model; y\"",
            "form-data name=model",
            "form-data, form-data; name=model",
        ] {
            assert_eq!(Parameters::read(bad.as_bytes()), None, "{bad}");
        }
    }
}
