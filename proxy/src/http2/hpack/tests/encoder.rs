//! What an encoder puts into the table and what it never does; and that a decoder agrees.

use std::collections::HashMap;

use bytes::BytesMut;
use http::HeaderName;
use proptest::prelude::*;

use super::{hex, lines};
use crate::http2::hpack::lookup::{Lookup, hash};
use crate::http2::hpack::names::Names;
use crate::http2::hpack::static_table::{ENTRIES, Policy};
use crate::http2::hpack::{Decoder, Encoder, Field, Line, Malformed, Name};
use crate::model::FieldValue;

#[test]
fn well_known_names_are_found_again() {
    let mut decoder = Decoder::new(4096);
    for (place, line) in ENTRIES.iter().enumerate() {
        assert_eq!(line.name, line.field.name.as_str());
        let mut seen = Vec::new();
        let each = |line: Result<Line<'_>, Malformed>, size| {
            seen.push((line.map(Line::into_field), size));
        };
        decoder.decode(&[0x80 | (place + 1) as u8], each).unwrap();
        assert_eq!(seen, [(Ok(line.field.clone()), line.size)]);
        let mut out = BytesMut::new();
        match &line.field.name {
            Name::Regular(name, _) if line.policy == Policy::Usual => {
                Encoder::new().field(&mut out, name, &line.field.value);
            }
            Name::Regular(..) => continue,
            name => Encoder::new().pseudo(&mut out, name, line.field.value.as_bytes()),
        }
        assert_eq!(out[..], [0x80 | (place + 1) as u8], "{}", line.name);
    }
}

/// What the encoder makes of a field line, in the order in which it is sent again and again.
fn encoded(name: &str, value: &str, times: usize) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new();
    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
    let value = FieldValue::from_text(value).unwrap();
    let once = |_| {
        let mut out = BytesMut::new();
        encoder.begin(&mut out);
        encoder.field(&mut out, &name, &value);
        out.to_vec()
    };
    (0..times).map(once).collect()
}

#[test]
fn what_repeats_is_one_octet_from_the_third_time_on() {
    for (name, value) in [
        ("x-weft-peer", "spiffe://weft.local/ns/shop/sa/front"),
        ("user-agent", "curl/8"),
        ("content-type", "application/grpc"),
        ("cookie", "session=0123456789abcdef"),
        ("te", "trailers"),
    ] {
        let blocks = encoded(name, value, 4);
        assert!(blocks[0][0] < 0x10, "{name}: added at once");
        assert_eq!(blocks[1][0] & 0xc0, 0x40, "{name}: not added");
        assert_eq!(blocks[2..], [[0xbe], [0xbe]], "{name}");
    }
}

#[test]
fn what_changes_or_is_secret_never_enters_the_table() {
    let long = "v".repeat(2000);
    for (name, value, first) in [
        ("content-length", "12", 0x0f),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT", 0x0f),
        ("if-none-match", "\"e\"", 0x0f),
        ("set-cookie", "session=0123456789abcdef", 0x0f),
        ("x-long", &long, 0x00),
        ("authorization", "Bearer of a long and secret token", 0x1f),
        (
            "proxy-authorization",
            "Bearer of a long and secret token",
            0x1f,
        ),
        ("cookie", "short=1", 0x1f),
    ] {
        for block in encoded(name, value, 4) {
            assert_eq!(block[0], first, "{name}");
        }
    }
    let mut value = FieldValue::from_static("a value that is marked");
    value.set_sensitive(true);
    let mut encoder = Encoder::new();
    for _ in 0..4 {
        let mut out = BytesMut::new();
        encoder.field(&mut out, &HeaderName::from_static("x-token"), &value);
        assert_eq!(out[0], 0x10);
    }
}

#[test]
fn names_whose_values_change_enter_once() {
    for name in ["traceparent", "x-request-id", "grpc-timeout"] {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
        let own = HeaderName::from_static(name);
        let mut send = |value: &str, filler: usize| {
            let mut out = BytesMut::new();
            encoder.begin(&mut out);
            encoder.field(&mut out, &own, &value.parse().unwrap());
            let sent = out.to_vec();
            for number in 0..filler {
                let value = format!("{number:0500}").parse().unwrap();
                encoder.field(&mut out, &HeaderName::from_static("x-a"), &value);
                encoder.field(&mut out, &HeaderName::from_static("x-a"), &value);
            }
            let seen = lines(&mut decoder, &out).unwrap();
            assert_eq!(seen[0], (name.to_owned(), value.to_owned()));
            assert_eq!(decoder.contents(), encoder.contents());
            sent
        };
        assert_eq!(send("first", 0)[..2], [0x00, name.len() as u8]);
        assert_eq!(send("second", 0)[..2], [0x40, name.len() as u8]);
        assert_eq!(send("third", 0), b"\x0f\x2f\x05third");
        // Not even the value that is there is sent as the entry.
        assert_eq!(send("second", 0), b"\x0f\x2f\x06second");
        // What was driven out comes back.
        assert_eq!(send("fourth", 20), b"\x0f\x2f\x06fourth");
        assert_eq!(send("fifth", 0)[..2], [0x40, name.len() as u8]);
        assert_eq!(send("sixth", 0), b"\x0f\x2f\x05sixth");
    }
}

#[test]
fn values_that_occur_once_drive_nothing_out() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    let agent = FieldValue::from_static("a client that is always the same");
    let mut last = 0;
    for request in 0..1000 {
        let mut out = BytesMut::new();
        encoder.begin(&mut out);
        encoder.pseudo(
            &mut out,
            &Name::Path,
            format!("/orders/{request}").as_bytes(),
        );
        let path = out.len();
        encoder.field(&mut out, &http::header::USER_AGENT, &agent);
        last = out.len() - path;
        lines(&mut decoder, &out).unwrap();
    }
    assert_eq!(last, 1);
    assert_eq!(decoder.contents().0.len(), 1);
}

#[test]
fn values_whose_hashes_collide_are_told_apart() {
    let name = HeaderName::from_static("x-weft-peer");
    let seed = hash(0, name.as_str().as_bytes());
    let mut seen = HashMap::new();
    let mut candidates = (0u32..).map(|number| format!("{number:08x}"));
    let (first, second) = candidates
        .find_map(|value| {
            let same = seen.insert(hash(seed, value.as_bytes()), value.clone());
            same.map(|other| (other, value))
        })
        .expect("32 bits collide before long");
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    for value in [&first, &first, &first, &second, &second, &second, &first] {
        let mut out = BytesMut::new();
        let sent = FieldValue::from_text(value).unwrap();
        encoder.field(&mut out, &name, &sent);
        let received = lines(&mut decoder, &out).unwrap();
        assert_eq!(received, [("x-weft-peer".to_owned(), value.clone())]);
    }
}

#[test]
fn a_full_neighbourhood_costs_one_entry_and_only_that() {
    let mut lookup = Lookup::new();
    let hash = |number: u32| (number + 1) << 16;
    for number in 0..8 {
        lookup.insert(hash(number), number, |_| false);
    }
    // The free place was always the first, so only the last is there.
    assert_eq!(lookup.find(hash(7), |_| true), Some(7));
    assert_eq!(lookup.find(hash(6), |_| true), None);

    let mut lookup = Lookup::new();
    for number in 1..=8 {
        lookup.insert(hash(number), number, |other| other != 0);
    }
    let found = |lookup: &Lookup| -> Vec<u32> {
        let numbers = 1..=9;
        let find = |number| lookup.find(hash(number), |found| found == number);
        numbers.filter_map(find).collect()
    };
    assert_eq!(found(&lookup), [1, 2, 3, 4, 5, 6, 7, 8]);
    lookup.insert(hash(9), 9, |other| other != 0);
    assert_eq!(found(&lookup), [2, 3, 4, 5, 6, 7, 8, 9]);
    lookup.insert(hash(1), 1, |other| other > 4);
    assert!(found(&lookup).contains(&1));
    assert!(
        [5, 6, 7, 8, 9]
            .iter()
            .all(|number| found(&lookup).contains(number))
    );
}

#[test]
fn a_changed_maximum_is_told_before_the_next_field() {
    // (What the peer announced, in order; the octets of the next block; RFC 7541 4.2.)
    for (announced, expect) in [
        (&[][..], ""),
        (&[4096], ""),
        (&[0], "20"),
        (&[256], "3f e1 01"),
        (&[65536], "3f e1 1f"),
        (&[65536, 4096], "3f e1 1f"),
        (&[0, 4096], "20 3f e1 1f"),
        (&[256, 0, 1024, 512], "20 3f e1 03"),
        (&[1024, 512], "3f e1 03"),
    ] {
        let mut encoder = Encoder::new();
        announced.iter().for_each(|max| encoder.set_peer_max(*max));
        let mut out = BytesMut::new();
        encoder.begin(&mut out);
        assert_eq!(out[..], hex(expect), "{announced:?}");
        out.clear();
        encoder.begin(&mut out);
        assert!(out.is_empty(), "{announced:?}: told twice");
    }
}

/// A field line as a test sends it: known and unknown names, values that repeat and that don't.
fn line() -> impl Strategy<Value = (String, Vec<u8>, bool)> {
    let names = prop::sample::select(vec![
        ":path",
        ":authority",
        ":status",
        ":method",
        ":protocol",
        "cookie",
        "accept",
        "x-a",
        "x-b",
        "date",
        "x-request-id",
        "authorization",
        "user-agent",
    ]);
    let name = prop_oneof![names.prop_map(str::to_owned), "[a-z0-9_-]{1,80}"];
    let value = prop_oneof![
        "(v|w|/|200|GET|a much longer value that repeats|)".prop_map(String::into_bytes),
        "[a-z]{1,3}".prop_map(String::into_bytes),
        prop::collection::vec(prop_oneof![0x21..0x7fu8, 0x80..=0xffu8], 0..1500),
    ];
    (name, value, prop::bool::weighted(0.1))
}

#[test]
fn a_dozen_fields_that_repeat_are_an_octet_each_whatever_they_say() {
    for seed in 0..500 {
        let mut encoder = Encoder::new();
        let mut block = || {
            let mut out = BytesMut::new();
            encoder.begin(&mut out);
            for field in 0..12 {
                let name = HeaderName::try_from(format!("x-field-{field}")).unwrap();
                let value = FieldValue::from_text(&format!("value {seed} of {field}")).unwrap();
                encoder.field(&mut out, &name, &value);
            }
            out.len()
        };
        block();
        block();
        assert_eq!(block(), 12, "{seed}");
    }
}

proptest! {
    /// Whatever is sent over many blocks, and whatever the peer's table becomes meanwhile, arrives.
    #[test]
    fn what_is_encoded_is_decoded(
        blocks in prop::collection::vec(
            (prop::collection::vec(0..6000usize, 0..3), prop::collection::vec(line(), 0..12)),
            0..30,
        ),
        rounds in 1..4usize,
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(6000));
        for (announced, fields) in std::iter::repeat_n(&blocks, rounds).flatten() {
            let (mut out, mut sent) = (BytesMut::new(), Vec::new());
            announced.iter().for_each(|max| encoder.set_peer_max(*max));
            encoder.begin(&mut out);
            for (name, value, sensitive) in fields {
                let name = Names::default().name(name.as_bytes()).unwrap();
                let mut value = FieldValue::from_bytes(value).unwrap();
                value.set_sensitive(*sensitive);
                match &name {
                    Name::Regular(regular, _) => encoder.field(&mut out, regular, &value),
                    pseudo => encoder.pseudo(&mut out, pseudo, value.as_bytes()),
                }
                sent.push(Field { name, value });
            }
            let mut received = Vec::new();
            let each = |line: Result<Line<'_>, _>, _| received.push(line.unwrap().into_field());
            decoder.decode(&out, each).unwrap();
            prop_assert_eq!(received, sent);
            prop_assert_eq!(decoder.contents(), encoder.contents());
        }
    }
}
