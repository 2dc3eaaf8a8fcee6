//! What must hold for every body and every way to cut it: called by the tests and by the fuzz targets. Each
//! function panics where it does not hold.

use http::HeaderValue;

use super::simd::Level;
use super::{Facts, JsonScanner, ModelValue, MultipartScanner, ScanError, Scanner, twin};

/// The scanner agrees with its twin, however the body is cut and with whatever instructions it is scanned, and with
/// serde_json as far as the one-sided rule goes.
pub fn json(body: &[u8], cuts: &[usize]) {
    let mut levels = Level::all().map(|level| scan(|| Scanner::Json(JsonScanner::at(level)), body, cuts));
    let Some(whole) = levels.next() else { return };
    for other in levels {
        assert_eq!(other, whole, "levels differ: {}", show(body));
    }
    agree(&whole, twin::json(body), body);
    let Ok((model, facts)) = whole else { return };
    let Ok(serde_json::Value::Object(value)) = serde_json::from_slice(body) else { return };
    match &model {
        Some(model) => assert_eq!(value.get("model"), Some(&(*model.name).into()), "{}", show(body)),
        None => assert!(!value.keys().any(|key| key.eq_ignore_ascii_case("model")), "{}", show(body)),
    }
    assert_eq!(facts.stream, value.get("stream").and_then(serde_json::Value::as_bool), "{}", show(body));
    if let Some(model) = model {
        spliced(body, &model);
    }
}

/// The scanner agrees with its twin on a form, however it is cut.
pub fn form(boundary: &str, body: &[u8], cuts: &[usize]) {
    let Ok(content_type) = HeaderValue::from_str(&format!("multipart/form-data; boundary=\"{boundary}\""))
    else {
        return;
    };
    if MultipartScanner::new(&content_type).is_err() {
        return;
    }
    let fresh = || match MultipartScanner::new(&content_type) {
        Ok(scanner) => Scanner::Multipart(Box::new(scanner)),
        Err(error) => panic!("{error}"),
    };
    let whole = scan(fresh, body, cuts);
    agree(&whole, twin::form(boundary.as_bytes(), body), body);
}

/// A whole scan's end: the model and the facts, or the error with its offset.
type End = Result<(Option<ModelValue>, Facts), ScanError>;

/// Up to this length a body is cut at every place.
const SHORT: usize = if cfg!(fuzzing) { 64 } else { 200 };

/// Scans the body whole, byte by byte, cut at `cuts`, and cut once at every place: all must end alike.
fn scan(fresh: impl Fn() -> Scanner, body: &[u8], cuts: &[usize]) -> End {
    let whole = run(fresh(), &[body]);
    let single: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(run(fresh(), &single), whole, "byte by byte: {}", show(body));
    for cut in (0..=body.len()).filter(|_| body.len() <= SHORT) {
        let (head, tail) = body.split_at(cut);
        assert_eq!(run(fresh(), &[head, tail]), whole, "cut at {cut}: {}", show(body));
    }
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for &place in places.iter().chain([&body.len()]) {
        pieces.push(&body[from..place]);
        from = place;
    }
    assert_eq!(run(fresh(), &pieces), whole, "cut at {places:?}: {}", show(body));
    whole
}

fn run(mut scanner: Scanner, pieces: &[&[u8]]) -> End {
    for piece in pieces {
        if let Err(error) = scanner.push(piece) {
            assert_eq!(scanner.push(b"x"), Err(error), "an error lasts");
            assert_eq!(scanner.finish(), Err(error), "an error lasts");
            return Err(error);
        }
    }
    scanner.finish()?;
    Ok((scanner.model().cloned(), scanner.facts().clone()))
}

fn agree(whole: &End, twin: twin::Verdict, body: &[u8]) {
    let ours = match whole {
        Ok((model, _)) => Ok(model.as_ref().map(|m| (m.name.to_string(), m.span.clone()))),
        Err(error) => {
            assert!(error.offset <= body.len() as u64, "{error:?}: {}", show(body));
            Err(error.kind)
        }
    };
    assert_eq!(ours, twin, "scanner, twin: {}", show(body));
}

/// A splice changes what the body asks for and nothing else.
fn spliced(body: &[u8], model: &ModelValue) {
    let name = "other \"model\" \\ é";
    let span = model.span.start as usize..model.span.end as usize;
    let bytes = super::splice(super::Format::Json, name);
    let body = [&body[..span.start], &bytes, &body[span.end..]].concat();
    let model =
        run(Scanner::Json(JsonScanner::new()), &[&body]).map(|(model, _)| model.map(|m| m.name.to_string()));
    assert_eq!(model, Ok(Some(name.into())), "{}", show(&body));
}

fn show(body: &[u8]) -> String {
    body.escape_ascii().to_string()
}
