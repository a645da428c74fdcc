//! First-bytes detection: what was decided on fewer bytes stays decided on more.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::detect::sniff;

fuzz_target!(|bytes: &[u8]| {
    let mut decided = None;
    for length in 1..=bytes.len().min(512) {
        let now = sniff(&bytes[..length]);
        if decided.is_some() {
            assert_eq!(now, decided, "another decision after {length} bytes");
        }
        decided = now;
    }
    let _ = sniff(bytes);
});
