//! What the head of a request says: its API family, and whether its body is scanned for the model.
//!
//! The decision is made on what an engine could take the head for, not on how the client spelled it: where two
//! readings are possible the body is scanned.

#![forbid(unsafe_code)]

mod internal;
mod media;
mod path;
mod percent;

use http::request::Parts;
use http::{HeaderName, Method};

use crate::failure::{Dialect, Failure, Reason};

pub use internal::{MODEL_HEADER, is_internal, model_header, strip_internal};
pub(crate) use percent::decoded;

use media::Media;
use path::Place;

const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// The facts of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// A POST or PUT to a path where engines need a model in the body.
    pub inference: bool,
    pub scan: Scan,
}

/// How the body is read for the model before the request is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// Passes unread and is routed without a model.
    None,
    /// `required`: no usable model is 400. Otherwise a body without one (or no body at all) is routed without.
    Json { required: bool },
    /// `multipart/form-data`; its boundary is in the Content-Type, of which there is one.
    Multipart { required: bool },
}

/// Reads the head.
pub fn inspect(parts: &Parts) -> Result<Facts, Failure> {
    let place = match parts.method {
        // SGLang takes PUT for a few of its calls.
        Method::POST | Method::PUT => path::place(parts.uri.path()),
        _ => Place::Other,
    };
    let inference = matches!(place, Place::Json | Place::Form);
    Ok(Facts { inference, scan: scan(parts, place)? })
}

/// The API family that was called: the shape that refusals take. `/v1/models` is in both, Anthropic's clients say so in a header.
#[must_use]
pub fn dialect(parts: &Parts) -> Dialect {
    let path = parts.uri.path();
    if path.starts_with("/v1/models") && parts.headers.contains_key(ANTHROPIC_VERSION) {
        return Dialect::Anthropic;
    }
    Dialect::of_path(path)
}

fn scan(parts: &Parts, place: Place) -> Result<Scan, Failure> {
    let media = Media::of(&parts.headers)?;
    let unreadable = media::unreadable(&parts.headers, media);
    let required = matches!(place, Place::Json | Place::Form);
    let readable = matches!(media, Media::Json | Media::Multipart);
    Ok(match (place, media, unreadable) {
        // An engine that ignores the label reads what we did not: refused wherever it would be read.
        (Place::Other, _, Some(_)) if !readable => Scan::None,
        (_, _, Some(what)) => return Err(Failure::new(Reason::EncodingUnsupported, what)),
        (_, Media::Multipart, None) => Scan::Multipart { required },
        // `{"x":"&model=b&"}` is JSON and a form at once: where an engine takes forms, it may read the other one.
        (Place::Form, Media::UrlEncoded, None) => {
            return Err(Failure::new(
                Reason::BodyInvalid,
                "this path takes multipart/form-data; send the form as that, not as \
                 application/x-www-form-urlencoded",
            ));
        }
        // Engines read JSON here whatever the Content-Type says: `curl -d` says urlencoded.
        (Place::Json | Place::Form | Place::Optional, _, None) | (Place::Other, Media::Json, None) => {
            Scan::Json { required }
        }
        (Place::Other, _, None) => Scan::None,
    })
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn post(path: &str, headers: &[(&str, &str)]) -> Parts {
        head(Method::POST, path, headers)
    }

    fn head(method: Method, path: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn scan_of(path: &str, headers: &[(&str, &str)]) -> Result<Scan, Reason> {
        inspect(&post(path, headers)).map(|facts| facts.scan).map_err(|failure| failure.reason)
    }

    const CHAT: &str = "/v1/chat/completions";
    const REQUIRED: Result<Scan, Reason> = Ok(Scan::Json { required: true });

    #[test]
    fn an_inference_path_is_scanned_whatever_its_content_type_says_or_omits() {
        assert_eq!(scan_of(CHAT, &[]), REQUIRED);
        for media in
            ["application/json", "text/plain", "application/x-www-form-urlencoded", "", "nonsense", "é"]
        {
            assert_eq!(scan_of(CHAT, &[("content-type", media)]), REQUIRED, "{media}");
        }
        assert_eq!(
            scan_of(CHAT, &[("content-type", "Multipart/Form-Data; boundary=x")]),
            Ok(Scan::Multipart { required: true })
        );
    }

    #[test]
    fn elsewhere_only_json_and_forms_are_scanned_and_need_no_model() {
        for (media, scan) in [
            ("application/json; charset=utf-8", Scan::Json { required: false }),
            ("application/ld+JSON", Scan::Json { required: false }),
            ("multipart/form-data; boundary=x", Scan::Multipart { required: false }),
            ("multipart/mixed; boundary=x", Scan::None),
            ("application/jsonl", Scan::None),
            ("text/plain", Scan::None),
        ] {
            assert_eq!(scan_of("/v1/files", &[("content-type", media)]), Ok(scan), "{media}");
        }
        assert_eq!(scan_of("/v1/files", &[]), Ok(Scan::None));
    }

    #[test]
    fn only_post_and_put_are_inference() {
        let facts = inspect(&head(Method::GET, CHAT, &[])).unwrap();
        assert!(!facts.inference && facts.scan == Scan::None);
        assert!(inspect(&post(CHAT, &[])).unwrap().inference);
    }

    #[test]
    fn an_encoded_body_is_refused_where_it_would_be_read_and_passes_elsewhere() {
        let json = ("content-type", "application/json");
        for encoding in ["gzip", "identity, br", "x"] {
            let encoded = ("content-encoding", encoding);
            assert_eq!(scan_of(CHAT, &[encoded]), Err(Reason::EncodingUnsupported));
            assert_eq!(scan_of("/v1/files", &[json, encoded]), Err(Reason::EncodingUnsupported));
            assert_eq!(scan_of("/v1/files", &[encoded]), Ok(Scan::None));
        }
        for encoding in ["", "identity", " Identity , identity"] {
            assert_eq!(scan_of(CHAT, &[("content-encoding", encoding)]), REQUIRED);
        }
        let second = [("content-encoding", "identity"), ("content-encoding", "gzip")];
        assert_eq!(scan_of(CHAT, &second), Err(Reason::EncodingUnsupported));
    }

    #[test]
    fn json_in_another_charset_is_refused_on_an_inference_path() {
        let charset = |value| scan_of(CHAT, &[("content-type", value)]);
        assert_eq!(charset("application/json; charset=gbk"), Err(Reason::EncodingUnsupported));
        assert_eq!(charset("application/json;x=1; CharSet=\"UTF-16\""), Err(Reason::EncodingUnsupported));
        assert_eq!(charset("application/json; charset=\"UTF-8\""), REQUIRED);
        assert_eq!(charset("application/json; charset"), REQUIRED);
    }

    #[test]
    fn two_content_types_are_refused() {
        let two = [("content-type", "application/json"), ("content-type", "multipart/form-data; boundary=x")];
        assert_eq!(scan_of(CHAT, &two), Err(Reason::HeadInvalid));
        assert_eq!(scan_of("/v1/files", &two), Err(Reason::HeadInvalid));
    }

    #[test]
    fn a_urlencoded_form_is_refused_where_engines_take_forms() {
        let form = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
        assert_eq!(scan_of("/v1/images/edits", &form), Err(Reason::BodyInvalid));
        assert_eq!(scan_of("/v1/audio/transcriptions", &form), Err(Reason::BodyInvalid));
        assert_eq!(scan_of("/v1/images/generations", &form), REQUIRED);
    }

    #[test]
    fn the_dialect_of_the_models_follows_the_header() {
        let version = [("anthropic-version", "2023-06-01")];
        assert_eq!(dialect(&head(Method::GET, "/v1/models", &version)), Dialect::Anthropic);
        assert_eq!(dialect(&head(Method::GET, "/v1/models", &[])), Dialect::OpenAi);
        assert_eq!(dialect(&post("/v1/messages", &[])), Dialect::Anthropic);
    }
}
