//! `cargo +nightly fuzz run scan_multipart -- -dict=fuzz/multipart.dict`, in `gateway/`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, Vec<usize>, &[u8])| {
    let (boundary, cuts, body) = input;
    penstock::scan::proof::form(boundary, body, &cuts);
    let head = b"--X\r\nContent-Disposition: form-data; name=model\r\n\r\n";
    penstock::scan::proof::form("X", &[head, body].concat(), &cuts);
    penstock::scan::proof::form("X", &[b"--X\r\n", body].concat(), &cuts);
});
