//! Scalars by the YAML 1.2 core schema: quoted ones are strings, and `yes` is one too.

/// A scalar as written; what it is gets decided where a type is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: Box<str>,
    /// Neither quoted nor a block, so that it may be more than a string.
    pub(crate) plain: bool,
}

impl Scalar {
    pub(crate) fn is_null(&self) -> bool {
        self.plain && matches!(&*self.text, "" | "~" | "null" | "Null" | "NULL")
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match &*self.text {
            "true" | "True" | "TRUE" if self.plain => Some(true),
            "false" | "False" | "FALSE" if self.plain => Some(false),
            _ => None,
        }
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        if !self.plain {
            return None;
        }
        let text = &*self.text;
        if let Some(digits) = text.strip_prefix("0x") {
            return unsigned(digits, 16);
        }
        if let Some(digits) = text.strip_prefix("0o") {
            return unsigned(digits, 8);
        }
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let decimal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if decimal { text.parse().ok() } else { None }
    }

    /// The text, where it is a string and nothing else.
    pub(crate) fn string(&self) -> Option<&str> {
        let other = self.is_null() || self.boolean().is_some() || self.is_number();
        if other { None } else { Some(&self.text) }
    }

    pub(crate) fn describe(&self) -> String {
        let text: String = self.text.chars().take(60).collect();
        match () {
            () if self.is_null() => "nothing".into(),
            () if self.boolean().is_some() => format!("the boolean {text}"),
            () if self.is_number() => format!("the number {text}"),
            () => format!("the string {text:?}"),
        }
    }

    fn is_number(&self) -> bool {
        self.plain && (self.integer().is_some() || is_float(&self.text))
    }
}

fn unsigned(digits: &str, radix: u32) -> Option<i64> {
    if digits.starts_with(['-', '+']) { None } else { i64::from_str_radix(digits, radix).ok() }
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`, the infinities and not-a-number.
fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let starts = unsigned.strip_prefix('.').unwrap_or(unsigned).starts_with(|c: char| c.is_ascii_digit());
    starts && unsigned.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Scalar {
        Scalar { text: text.into(), plain: true }
    }

    #[test]
    fn the_core_schema_decides_what_a_plain_scalar_is() {
        assert_eq!(plain("8080").integer(), Some(8080));
        assert_eq!(plain("0x1F").integer(), Some(31));
        assert_eq!(plain("-7").integer(), Some(-7));
        assert_eq!(plain("0x-1").integer(), None);
        assert_eq!(plain("true").boolean(), Some(true));
        assert!(plain("~").is_null() && plain("").is_null());
        for string in ["20Mi", "yes", "no", "on", "24h", "1.2.3", "infinity", "nan", "+", "-", "1_000", "0o9"]
        {
            assert_eq!(plain(string).string(), Some(string));
        }
        for number in ["1.5", "1e3", ".5", "5.", "-.inf", ".nan", "99999999999999999999999"] {
            assert_eq!(plain(number).string(), None, "{number}");
        }
    }

    #[test]
    fn a_quoted_scalar_is_a_string() {
        for text in ["8080", "true", "", "null"] {
            let quoted = Scalar { text: text.into(), plain: false };
            assert_eq!(quoted.string(), Some(text));
            assert_eq!((quoted.integer(), quoted.boolean(), quoted.is_null()), (None, None, false));
        }
    }
}
