//! The Huffman code (RFC 7541 5.2 and Appendix B).
//!
//! The code is canonical: codes of one length are consecutive, in the order of their symbols. So the
//! lengths say it all, and every table is derived from them when this is compiled. Decoding looks up
//! ten bits at once, which covers what names and values are made of; a longer code is found by
//! comparing with the last code of each length.

use bytes::{BufMut, BytesMut};

use super::Error;

/// The end-of-string symbol, which no string may hold.
const EOS: usize = 256;
const SYMBOLS: usize = EOS + 1;
const LONGEST: usize = 30;
const SHORTEST: usize = 5;
/// Bits that the fast table is asked with.
const FAST: usize = 10;

/// The length of each symbol's code in bits (RFC 7541 Appendix B).
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// What the lengths say, in the forms that encoding and decoding ask for.
struct Code {
    /// The code of each symbol, in its lowest bits.
    codes: [u32; SYMBOLS],
    /// Length and octet of the code that ten bits begin with; zero where it is longer.
    fast: [(u8, u8); 1 << FAST],
    /// The symbols in the order of their codes.
    ordered: [u16; SYMBOLS],
    /// For each length: what 32 bits that begin with such a code, or a shorter one, are below.
    below: [u64; LONGEST + 1],
    /// For each length: what turns a code into its place in `ordered`.
    offset: [u32; LONGEST + 1],
}

static CODE: Code = derive();

const fn derive() -> Code {
    let mut code = Code {
        codes: [0; SYMBOLS],
        fast: [(0, 0); 1 << FAST],
        ordered: [0; SYMBOLS],
        below: [0; LONGEST + 1],
        offset: [0; LONGEST + 1],
    };
    let (mut length, mut next, mut place) = (SHORTEST, 0u32, 0);
    while length <= LONGEST {
        code.offset[length] = (place as u32).wrapping_sub(next);
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                code.codes[symbol] = next;
                code.ordered[place] = symbol as u16;
                if length <= FAST {
                    let spare = FAST - length;
                    let mut at = 0;
                    while at < 1 << spare {
                        code.fast[((next as usize) << spare) + at] = (length as u8, symbol as u8);
                        at += 1;
                    }
                }
                next += 1;
                place += 1;
            }
            symbol += 1;
        }
        code.below[length] = (next as u64) << (32 - length);
        next <<= 1;
        length += 1;
    }
    code
}

/// Decodes `coded` into the front of `out`, which grows when it is too small and is never cleared.
pub(super) fn decode<'a>(coded: &[u8], out: &'a mut Vec<u8>) -> Result<&'a [u8], Error> {
    let most = coded.len() * 8 / SHORTEST;
    if out.len() < most {
        out.resize(most, 0);
    }
    // The next bits stand at the top; those below the `held` ones are zero.
    let (mut bits, mut held, mut written) = (0u64, 0u32, 0);
    let mut rest = coded;
    loop {
        if held < 32 {
            if let Some((four, after)) = rest.split_first_chunk::<4>() {
                bits |= u64::from(u32::from_be_bytes(*four)) << (32 - held);
                held += 32;
                rest = after;
            } else {
                for octet in rest {
                    bits |= u64::from(*octet) << (56 - held);
                    held += 8;
                }
                rest = &[];
            }
        }
        let (mut length, mut octet) = CODE.fast[(bits >> (64 - FAST)) as usize];
        if length == 0 || u32::from(length) > held {
            if held < 8 && bits.leading_ones() >= held {
                return Ok(&out[..written]);
            }
            (length, octet) = decode_long(bits, held)?;
        }
        out[written] = octet;
        written += 1;
        bits <<= length;
        held -= u32::from(length);
    }
}

/// The code that the `held` highest bits begin with; neither a short one nor fine padding.
fn decode_long(bits: u64, held: u32) -> Result<(u8, u8), Error> {
    let top = bits >> 32;
    let mut length = FAST;
    while length < LONGEST && top >= CODE.below[length] {
        length += 1;
    }
    if length as u32 > held {
        return Err(Error::Padding);
    }
    let code = (top >> (32 - length)) as u32;
    let symbol = CODE.ordered[code.wrapping_add(CODE.offset[length]) as usize];
    match u8::try_from(symbol) {
        Ok(octet) => Ok((length as u8, octet)),
        Err(_) => Err(Error::EndOfString),
    }
}

/// Octets that `plain` takes when it is coded.
pub(super) fn encoded_len(plain: &[u8]) -> usize {
    let bits = plain.iter().map(|b| usize::from(LENGTHS[usize::from(*b)]));
    bits.sum::<usize>().div_ceil(8)
}

/// Appends `plain`, coded and padded with the first bits of EOS.
pub(super) fn encode(plain: &[u8], out: &mut BytesMut) {
    let (mut bits, mut held) = (0u64, 0u32);
    for octet in plain {
        let symbol = usize::from(*octet);
        bits = bits << LENGTHS[symbol] | u64::from(CODE.codes[symbol]);
        held += u32::from(LENGTHS[symbol]);
        while held >= 8 {
            held -= 8;
            out.put_u8((bits >> held) as u8);
        }
    }
    if held > 0 {
        out.put_u8((bits << (8 - held)) as u8 | u8::MAX >> held);
    }
}
