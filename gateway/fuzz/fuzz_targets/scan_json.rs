//! `cargo +nightly fuzz run scan_json -- -dict=fuzz/json.dict`, in `gateway/`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<usize>, &[u8])| {
    let (cuts, body) = input;
    penstock::scan::proof::json(body, &cuts);
    // The same after an opening that is right, so that most inputs get past it.
    penstock::scan::proof::json(&[b"{\"model\":\"", body].concat(), &cuts);
});
