//! Why a scan failed, and where.

use std::fmt;

use crate::failure::Reason;

/// A body that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanError {
    pub kind: ScanErrorKind,
    /// Body offset, from 0, of the byte or of the start of the key, value or part that is at fault.
    pub offset: u64,
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, offset } = self;
        match kind {
            // These are about the whole of a body or of its head; an offset would mislead.
            ScanErrorKind::ModelMissing | ScanErrorKind::FormType => f.write_str(kind.message()),
            _ => write!(f, "{} (at byte {offset} of the body)", kind.message()),
        }
    }
}

impl std::error::Error for ScanError {}

macro_rules! kinds {
    ($($variant:ident = $reason:ident, $message:literal;)*) => {
        /// What is wrong with a body.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ScanErrorKind { $(#[doc = $message] $variant,)* }

        impl ScanErrorKind {
            /// The reason word under which it is refused.
            #[must_use]
            pub fn reason(self) -> Reason {
                match self { $(Self::$variant => Reason::$reason,)* }
            }

            /// Says what is wrong and how to mend it; holds nothing of the body.
            #[must_use]
            pub fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)* }
            }
        }
    };
}

kinds! {
    ModelMissing = ModelMissing, "the body names no model: send a top-level `model`";
    ModelNotString = ModelMissing, "`model` is not a string: send its name in double quotes";
    ModelEmpty = ModelMissing, "`model` is empty: send the name of a model";
    ModelTooLong = ModelMissing, "`model` is longer than 256 bytes: send the name of a model";
    ModelControl = ModelMissing, "`model` holds a control character: send the plain name of a model";
    ModelPadded = ModelMissing, "`model` begins or ends with white space: send it without";

    ModelTwice = ModelAmbiguous, "`model` is given twice, and readers differ in which one counts: send it once";
    ModelCase = ModelAmbiguous, "a key is `model` in other letter case, which some readers take for it: send `model`";
    ModelDisguised = ModelAmbiguous, "a part of the form could be taken for `model` by some readers only: send `model` as a plain \
                      field, without a file name, transfer encoding, type or charset of its own, extended parameters or brackets";

    NotAnObject = BodyInvalid, "the body is not a JSON object: send one in UTF-8 that begins with `{`, without a byte order mark";
    Syntax = BodyInvalid, "the body is not JSON from here on: check quotes, commas, colons and brackets";
    Brackets = BodyInvalid, "a bracket closes one of the other kind: check that `[` and `{` pair up";
    TooDeep = BodyInvalid, "the body nests deeper than 1000 levels: flatten it";
    Control = BodyInvalid, "a top-level key or the model holds a raw control byte or NUL: escape it or leave it out";
    NotUtf8 = BodyInvalid, "a top-level key or the model is not valid UTF-8: send UTF-8";
    Escape = BodyInvalid, "a top-level key or the model holds an escape that JSON does not know: use those of RFC 8259";
    Surrogate = BodyInvalid, "a top-level key or the model holds half a surrogate pair: send both halves";
    Trailing = BodyInvalid, "bytes follow the end of the JSON object: send one object and nothing after it";
    Truncated = BodyInvalid, "the body ends too early: send all of it";

    FormType = BodyInvalid, "the Content-Type of the form is not usable: send `multipart/form-data; boundary=…` with a boundary of 1 to 70 \
                characters and no other parameter but `charset=utf-8`";
    FormPreamble = BodyInvalid, "the form does not begin with its boundary: send no preamble";
    FormDelimiter = BodyInvalid, "the boundary of the form stands where it is no clear delimiter: put it on a line of its own, after \
                     CRLF, and use one that occurs nowhere else";
    FormHead = BodyInvalid, "the head of a part is not usable: send one `Content-Disposition: form-data; name=\"…\"` per part, lines ended \
                by CRLF, no folded lines, no `;` or `\\\"` inside quotes";
    FormHeadTooLong = BodyInvalid, "the head of a part is longer than 8 KiB: shorten it";
    FormTooManyParts = BodyInvalid, "the form has more than 1000 parts: send fewer";
    FormEpilogue = BodyInvalid, "bytes follow the end of the form: send none after its last boundary but CRLF";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_and_where() {
        let error = ScanError { kind: ScanErrorKind::ModelTwice, offset: 17 };
        assert_eq!(
            error.to_string(),
            "`model` is given twice, and readers differ in which one counts: send it once (at byte 17 of the body)"
        );
    }
}
