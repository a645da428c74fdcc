//! Resources from the control plane: any bytes are a value, a change of one or a rejection with
//! a field, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::discovery::{Decoded, decode, decode_change};

/// A name of each resource type, by the type's number.
const NAMES: [&str; 6] = [
    "shop/orders",
    "10.0.0.1:80",
    "shop/orders:80",
    "shop/orders:80",
    "self",
    "weft.local",
];

fuzz_target!(|input: (u8, &str, bool, &[u8], &[u8])| {
    let (kind, name, own_name, body, change) = input;
    let kind = kind % 8;
    let known = NAMES.get(usize::from(kind).wrapping_sub(1));
    let name = match known {
        Some(known) if !own_name => known,
        _ => name,
    };
    let rejection = match decode(i32::from(kind), name, body) {
        Ok((_, Decoded::Cluster(base))) => decode_change(&base, change).err(),
        Ok(_) => None,
        Err(rejection) => Some(rejection),
    };
    assert!(rejection.is_none_or(|rejection| !rejection.reason.is_empty()));
});
