//! `cargo +nightly fuzz run scan_json -- -dict=fuzz/json.dict`, in `gateway/`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock::scan::proof;

fuzz_target!(|input: (Vec<usize>, &[u8])| {
    let (cuts, body) = input;
    proof::json(body, &cuts);
    // The same after an opening that is right, so that most inputs get past it.
    proof::json(&[b"{\"model\":\"", body].concat(), &cuts);
    // And inside a value, stretched over blocks of which short inputs fill none.
    proof::json(&[b"{\"a\":[", &stretched(body)[..], b"],\"model\":\"q\"}"].concat(), &cuts);
});

/// The bytes 1 to 8, which no accepted body holds outside strings, repeat the byte before them 20 to 160 times.
fn stretched(body: &[u8]) -> Vec<u8> {
    let mut long = Vec::new();
    for byte in body {
        match (byte, long.last()) {
            (1..=8, Some(&last)) if long.len() < 2000 => {
                long.extend(std::iter::repeat_n(last, 20 * usize::from(*byte)));
            }
            _ => long.push(*byte),
        }
    }
    long
}
