//! Resources from the control plane: any bytes are a value or a rejection with a field, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::discovery::decode;

/// A name of each resource type, by the type's number.
const NAMES: [&str; 6] = [
    "shop/orders",
    "10.0.0.1:80",
    "shop/orders:80",
    "shop/orders:80",
    "self",
    "weft.local",
];

fuzz_target!(|input: (u8, &str, bool, &[u8])| {
    let (kind, name, own_name, body) = input;
    let kind = kind % 8;
    let known = NAMES.get(usize::from(kind).wrapping_sub(1));
    let name = match known {
        Some(known) if !own_name => known,
        _ => name,
    };
    if let Err(rejection) = decode(i32::from(kind), name, body) {
        assert!(!rejection.reason.is_empty());
    }
});
