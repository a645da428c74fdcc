//! ClientHello: fewer bytes never give another answer than all of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::detect::client_hello;

fuzz_target!(|bytes: &[u8]| {
    let whole = client_hello(bytes);
    for length in (0..bytes.len().min(512)).step_by(7) {
        match client_hello(&bytes[..length]) {
            Ok(None) => {}
            early => assert_eq!(early, whole, "decided after {length} bytes"),
        }
    }
});
