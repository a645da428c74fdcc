//! Integers (RFC 7541 5.1).

use bytes::{BufMut, BytesMut};

use super::Error;

/// Largest integer that is taken; no index, length or table size comes near it, and the sum of two
/// of them is still far from an overflow.
const INTEGER_MAX: u64 = 1 << 31;
/// Octets after the prefix that are taken; padding with zero septets ends here too.
const CONTINUATIONS_MAX: usize = 5;

/// Takes an integer off the front of `input`, whose first octet holds its lowest `prefix` bits.
#[inline]
pub(super) fn decode(input: &mut &[u8], prefix: u32) -> Result<usize, Error> {
    let (&first, rest) = input.split_first().ok_or(Error::Truncated)?;
    let mask = u8::MAX >> (8 - prefix);
    *input = rest;
    if first & mask != mask {
        return Ok(usize::from(first & mask));
    }
    decode_rest(input, u64::from(mask))
}

/// The octets behind a prefix that is full, and so stands for `value`.
fn decode_rest(input: &mut &[u8], mut value: u64) -> Result<usize, Error> {
    let mut shift = 0;
    loop {
        if shift == 7 * CONTINUATIONS_MAX {
            return Err(Error::IntegerTooLarge);
        }
        let (&octet, rest) = input.split_first().ok_or(Error::Truncated)?;
        *input = rest;
        value += u64::from(octet & 0x7f) << shift;
        shift += 7;
        if octet & 0x80 == 0 {
            break;
        }
    }
    if value > INTEGER_MAX {
        return Err(Error::IntegerTooLarge);
    }
    usize::try_from(value).map_err(|_| Error::IntegerTooLarge)
}

/// Appends `value` with `flags` above its prefix of `prefix` bits.
#[inline]
pub(super) fn encode(out: &mut BytesMut, flags: u8, prefix: u32, value: usize) {
    let mask = u8::MAX >> (8 - prefix);
    match u8::try_from(value) {
        Ok(small) if small < mask => out.put_u8(flags | small),
        _ => {
            out.put_u8(flags | mask);
            encode_rest(out, value - usize::from(mask));
        }
    }
}

/// What a full prefix leaves of a value.
fn encode_rest(out: &mut BytesMut, mut left: usize) {
    while left >= 0x80 {
        out.put_u8(left as u8 | 0x80);
        left >>= 7;
    }
    out.put_u8(left as u8);
}
