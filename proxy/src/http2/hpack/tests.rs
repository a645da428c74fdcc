//! RFC 7541's own examples, and what a string may be made of.

mod decoder;
mod encoder;

use bytes::BytesMut;
use proptest::prelude::*;

use super::{Decoder, Error, Line, Malformed, huffman, integer};

/// Octets from hexadecimal digits, whatever stands between them.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(octet).collect()
}

/// All field lines of a block, as text; a malformed one by what is wrong with it.
fn lines(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let mut seen = Vec::new();
    decoder.decode(block, |line, size| {
        seen.push(match line.map(Line::into_field) {
            Ok(field) => {
                let name = field.name.as_str().to_owned();
                assert_eq!(size, name.len() + field.value.len() + 32, "{field:?}");
                (name, String::from_utf8_lossy(field.value.as_bytes()).into())
            }
            Err(Malformed(reason)) => ("malformed".to_owned(), reason.to_owned()),
        });
    })?;
    Ok(seen)
}

/// Pairs from lines of `name: value`.
fn pairs(text: &str) -> Vec<(String, String)> {
    let split = |line: &str| {
        let at = line[1..].find(": ").expect("a colon") + 1;
        (line[..at].to_owned(), line[at + 2..].to_owned())
    };
    let lines = text
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty());
    lines.map(split).collect()
}

#[test]
fn integers_of_appendix_c() {
    // (Example, octets, prefix, value.)
    for (example, octets, prefix, value) in [
        ("C.1.1", "0a", 5, 10),
        ("C.1.2", "1f 9a 0a", 5, 1337),
        ("C.1.3", "2a", 8, 42),
        ("at the prefix's end", "1f 00", 5, 31),
        ("the largest", "7f 81 ff ff ff 07", 7, 1 << 31),
    ] {
        let octets = hex(octets);
        assert_eq!(
            integer::decode(&mut &octets[..], prefix),
            Ok(value),
            "{example}"
        );
        let mut out = BytesMut::new();
        integer::encode(&mut out, 0, prefix, value);
        assert_eq!(out[..], octets, "{example}");
    }
}

/// An example of Appendix C: blocks of one connection, each with the table after it.
struct Example {
    section: &'static str,
    /// The table's size that both sides agreed on before.
    table: usize,
    /// The block; the field lines; the entries of the dynamic table and their size.
    blocks: &'static [(&'static str, &'static str, &'static str, usize)],
}

const FIRST_REQUEST: &str = ":method: GET
    :scheme: http
    :path: /
    :authority: www.example.com";
const SECOND_REQUEST: &str = ":method: GET
    :scheme: http
    :path: /
    :authority: www.example.com
    cache-control: no-cache";
const THIRD_REQUEST: &str = ":method: GET
    :scheme: https
    :path: /index.html
    :authority: www.example.com
    custom-key: custom-value";
const AFTER_SECOND_REQUEST: &str = "cache-control: no-cache
    :authority: www.example.com";
const AFTER_THIRD_REQUEST: &str = "custom-key: custom-value
    cache-control: no-cache
    :authority: www.example.com";
const FIRST_RESPONSE: &str = ":status: 302
    cache-control: private
    date: Mon, 21 Oct 2013 20:13:21 GMT
    location: https://www.example.com";
const AFTER_FIRST_RESPONSE: &str = "location: https://www.example.com
    date: Mon, 21 Oct 2013 20:13:21 GMT
    cache-control: private
    :status: 302";
const SECOND_RESPONSE: &str = ":status: 307
    cache-control: private
    date: Mon, 21 Oct 2013 20:13:21 GMT
    location: https://www.example.com";
const AFTER_SECOND_RESPONSE: &str = ":status: 307
    location: https://www.example.com
    date: Mon, 21 Oct 2013 20:13:21 GMT
    cache-control: private";
const THIRD_RESPONSE: &str = ":status: 200
    cache-control: private
    date: Mon, 21 Oct 2013 20:13:22 GMT
    location: https://www.example.com
    content-encoding: gzip
    set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
const AFTER_THIRD_RESPONSE: &str =
    "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1
    content-encoding: gzip
    date: Mon, 21 Oct 2013 20:13:22 GMT";

#[rustfmt::skip]
const EXAMPLES: &[Example] = &[
    Example { section: "C.2.1", table: 4096, blocks: &[(
        "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
        "custom-key: custom-header", "custom-key: custom-header", 55,
    )] },
    Example { section: "C.2.2", table: 4096, blocks: &[(
        "040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path", "", 0,
    )] },
    Example { section: "C.2.3", table: 4096, blocks: &[(
        "1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret", "", 0,
    )] },
    Example { section: "C.2.4", table: 4096, blocks: &[("82", ":method: GET", "", 0)] },
    Example { section: "C.3", table: 4096, blocks: &[
        ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
         FIRST_REQUEST, ":authority: www.example.com", 57),
        ("8286 84be 5808 6e6f 2d63 6163 6865", SECOND_REQUEST, AFTER_SECOND_REQUEST, 110),
        ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
         THIRD_REQUEST, AFTER_THIRD_REQUEST, 164),
    ] },
    Example { section: "C.4", table: 4096, blocks: &[
        ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
         FIRST_REQUEST, ":authority: www.example.com", 57),
        ("8286 84be 5886 a8eb 1064 9cbf", SECOND_REQUEST, AFTER_SECOND_REQUEST, 110),
        ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
         THIRD_REQUEST, AFTER_THIRD_REQUEST, 164),
    ] },
    Example { section: "C.5", table: 256, blocks: &[
        ("4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
          2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
          6c65 2e63 6f6d", FIRST_RESPONSE, AFTER_FIRST_RESPONSE, 222),
        ("4803 3330 37c1 c0bf", SECOND_RESPONSE, AFTER_SECOND_RESPONSE, 222),
        ("88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
          54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
          5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
          3d31", THIRD_RESPONSE, AFTER_THIRD_RESPONSE, 215),
    ] },
    Example { section: "C.6", table: 256, blocks: &[
        ("4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
          2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
         FIRST_RESPONSE, AFTER_FIRST_RESPONSE, 222),
        ("4883 640e ffc1 c0bf", SECOND_RESPONSE, AFTER_SECOND_RESPONSE, 222),
        ("88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
          77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
          9587 3160 65c0 03ed 4ee5 b106 3d50 07", THIRD_RESPONSE, AFTER_THIRD_RESPONSE, 215),
    ] },
];

#[test]
fn blocks_of_appendix_c() {
    for Example {
        section,
        table,
        blocks,
    } in EXAMPLES
    {
        let mut decoder = Decoder::new(*table);
        if *table != 4096 {
            let mut update = BytesMut::new();
            integer::encode(&mut update, 0x20, 5, *table);
            assert_eq!(lines(&mut decoder, &update), Ok(vec![]));
        }
        for (block, fields, entries, size) in *blocks {
            let seen = lines(&mut decoder, &hex(block));
            assert_eq!(seen, Ok(pairs(fields)), "{section}");
            assert_eq!(decoder.contents(), (pairs(entries), *size), "{section}");
        }
    }
}

#[test]
fn huffman_codes_of_appendix_b() {
    // (Octets, code) of each length's first and last symbol, as the RFC prints them.
    for (octet, code) in [
        (b'0', "00000"),
        (b't', "01001"),
        (b' ', "010100"),
        (b'u', "101101"),
        (b':', "1011100"),
        (b'z', "1111011"),
        (b'&', "11111000"),
        (b'Z', "11111101"),
        (b'!', "1111111000"),
        (b'?', "1111111100"),
        (b'\'', "11111111010"),
        (b'|', "11111111100"),
        (b'#', "111111111010"),
        (b'>', "111111111011"),
        (0, "1111111111000"),
        (b'~', "1111111111101"),
        (b'^', "11111111111100"),
        (b'}', "11111111111101"),
        (b'<', "111111111111100"),
        (b'{', "111111111111110"),
        (b'\\', "1111111111111110000"),
        (208, "1111111111111110010"),
        (128, "11111111111111100110"),
        (226, "11111111111111101101"),
        (1, "11111111111111111011000"),
        (249, "1111111111111111111111111110"),
        (b'\n', "111111111111111111111111111100"),
        (22, "111111111111111111111111111110"),
    ] {
        let mut out = BytesMut::new();
        huffman::encode(&[octet], &mut out);
        let bits: String = out.iter().map(|octet| format!("{octet:08b}")).collect();
        let padding = "1".repeat(bits.len() - code.len());
        assert!(padding.len() < 8, "{octet}");
        assert_eq!(bits, format!("{code}{padding}"), "{octet}");
    }
}

#[test]
fn huffman_takes_every_octet_behind_every_other() {
    let mut scratch = Vec::new();
    for first in 0..=u8::MAX {
        for second in 0..=u8::MAX {
            let mut coded = BytesMut::new();
            huffman::encode(&[first, second], &mut coded);
            assert_eq!(coded.len(), huffman::encoded_len(&[first, second]));
            let plain = huffman::decode(&coded, &mut scratch);
            assert_eq!(plain, Ok(&[first, second][..]));
        }
    }
}

proptest! {
    #[test]
    fn huffman_gives_back_what_it_took(plain in prop::collection::vec(any::<u8>(), 0..300)) {
        let (mut coded, mut scratch) = (BytesMut::new(), Vec::new());
        huffman::encode(&plain, &mut coded);
        prop_assert_eq!(coded.len(), huffman::encoded_len(&plain));
        prop_assert_eq!(huffman::decode(&coded, &mut scratch), Ok(&plain[..]));
    }

    /// What decodes is the only code of its octets: there is no second way to write a string.
    #[test]
    fn huffman_has_one_code_for_each_string(coded in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut scratch = Vec::new();
        if let Ok(plain) = huffman::decode(&coded, &mut scratch) {
            let mut again = BytesMut::new();
            huffman::encode(plain, &mut again);
            prop_assert_eq!(&again[..], &coded[..]);
        }
    }
}
