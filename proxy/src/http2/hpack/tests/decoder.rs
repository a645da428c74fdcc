//! What a decoder refuses, what it only calls malformed, and what it takes.

use bytes::BytesMut;
use proptest::prelude::*;

use super::{hex, lines, pairs};
use crate::http2::hpack::table::Table;
use crate::http2::hpack::{Decoder, Error, Line, Malformed, Name};

#[test]
fn what_the_rfc_forbids_is_an_error() {
    // (Section of RFC 7541, blocks before, the block, the error.)
    let check = |section: &str, before: &[&str], block: &str, expect: Error| {
        let mut decoder = Decoder::new(4096);
        for block in before {
            lines(&mut decoder, &hex(block)).expect(block);
        }
        let seen = lines(&mut decoder, &hex(block));
        assert_eq!(seen, Err(expect), "{section}: {block}");
    };
    use Error::*;
    // 5.1: an integer ends within the block and has a limit.
    check("5.1", &[], "ff", Truncated);
    check("5.1", &[], "ff 80", Truncated);
    check("5.1", &[], "ff 80 80 80 80", Truncated);
    check("5.1", &[], "ff 80 80 80 80 80 00", IntegerTooLarge);
    check("5.1", &[], "ff ff ff ff ff 7f", IntegerTooLarge);
    check("5.1", &[], "ff 82 ff ff ff 07", IntegerTooLarge);
    check(
        "5.1",
        &[],
        "ff ff ff ff ff ff ff ff ff ff 01",
        IntegerTooLarge,
    );
    check("5.1", &[], "7f ff ff ff ff 7f", IntegerTooLarge);
    check("5.1", &[], "3f ff ff ff ff 7f", IntegerTooLarge);
    check("5.1", &[], "00 7f ff ff ff ff 7f", IntegerTooLarge);
    // 5.2: a string ends within the block.
    check("5.2", &[], "40", Truncated);
    check("5.2", &[], "41", Truncated);
    check("5.2", &[], "00", Truncated);
    check("5.2", &[], "10 01", Truncated);
    check("5.2", &[], "40 01 61", Truncated);
    check("5.2", &[], "40 01 61 01", Truncated);
    check("5.2", &[], "40 01 61 7f 80 80 04", Truncated);
    check("5.2", &[], "40 01 61 82 ff", Truncated);
    check("5.2", &[], "04 7f 81 ff ff ff 07", Truncated);
    // 5.2: padding is shorter than an octet and begins EOS, which is nowhere whole.
    check("5.2", &[], "04 81 ff", Padding);
    check("5.2", &[], "04 82 07 ff", Padding);
    check("5.2", &[], "04 81 00", Padding);
    check("5.2", &[], "04 81 18", Padding);
    check("5.2", &[], "04 81 1e", Padding);
    check("5.2", &[], "04 82 fe 00", Padding);
    check("5.2", &[], "04 82 ff e0", Padding);
    check("5.2", &[], "04 83 ff ff ff", Padding);
    check("5.2", &[], "04 84 ff ff ff ff", EndOfString);
    check("5.2", &[], "04 84 ff ff ff fc", EndOfString);
    check("5.2", &[], "04 85 1f ff ff ff ff", EndOfString);
    check("5.2", &[], "00 84 ff ff ff ff 01 61", EndOfString);
    // 2.3.3 and 6.1: an index is in one of the tables.
    check("6.1", &[], "80", NoSuchIndex(0));
    check("2.3.3", &[], "be", NoSuchIndex(62));
    check("2.3.3", &[], "ff 00", NoSuchIndex(127));
    check("2.3.3", &[], "7e 01 61", NoSuchIndex(62));
    check("2.3.3", &[], "0f 2f 01 61", NoSuchIndex(62));
    check("2.3.3", &[], "1f 2f 01 61", NoSuchIndex(62));
    check("2.3.3", &["40 01 61 01 62"], "bf", NoSuchIndex(63));
    check("2.3.3", &[], "ff 81 ff ff ff 07", NoSuchIndex(1 << 31));
    // 4.2 and 6.3: a table size update comes first and stays below what was announced.
    check("4.2", &[], "82 20", UpdateAfterField);
    check("4.2", &[], "20 82 20", UpdateAfterField);
    check("4.2", &[], "40 01 61 01 62 3f e1 1f", UpdateAfterField);
    check("6.3", &[], "3f e2 1f", UpdateTooLarge(4097));
    check("6.3", &[], "20 3f e2 1f", UpdateTooLarge(4097));
    // 4.3, 4.4: what was evicted, or never fit, is gone.
    check("4.3", &["40 01 61 01 62"], "20 be", NoSuchIndex(62));
    check("4.3", &["40 01 61 01 62"], "3f 02 be", NoSuchIndex(62));
    check("4.4", &["3f 03", "40 01 61 01 62"], "bf", NoSuchIndex(63));
    let evicted = ["3f 03", "40 01 61 01 62", "40 01 61 02 62 62"];
    check("4.4", &evicted, "be", NoSuchIndex(62));
}

#[test]
fn what_only_looks_forbidden_is_taken() {
    let check = |what: &str, blocks: &[&str], expect: &str| {
        let mut decoder = Decoder::new(4096);
        let mut last = Ok(vec![]);
        for block in blocks {
            last = lines(&mut decoder, &hex(block));
        }
        assert_eq!(last, Ok(pairs(expect)), "{what}");
    };
    check("an empty block", &[""], "");
    check(
        "several updates before a field (4.2)",
        &["20 3f e1 1f 82"],
        ":method: GET",
    );
    check(
        "an integer with zero septets (5.1)",
        &["0f 80 80 80 00 01 61"],
        "accept-charset: a",
    );
    check("an update alone", &["20"], "");
    check(
        "seven bits of padding (5.2)",
        &["04 83 00 2e 7f"],
        ":path: 00:",
    );
    check(
        "an entry of just the table's size (4.4)",
        &["3f 03", "40 01 61 01 62", "be"],
        "a: b",
    );
    check(
        "a name that is evicted by its own entry (4.4)",
        &["3f 03 40 01 61 01 62", "7e 01 63", "be"],
        "a: c",
    );
    check("an empty value", &["00 01 61 00"], "a: ");
    check("an empty Huffman-coded value", &["00 01 61 80"], "a: ");
    check(
        ":protocol (RFC 8441 4)",
        &["00 09 3a 70 72 6f 74 6f 63 6f 6c 01 61"],
        ":protocol: a",
    );
}

#[test]
fn malformed_lines_keep_their_place() {
    // (Name, value, whether the name alone is fine; RFC 9113 8.2.1 and 8.3, RFC 9110 5.1 and 5.5.)
    for (name, value, name_fine) in [
        ("X-Upper", "v", false),
        ("", "v", false),
        ("a b", "v", false),
        ("a\"b", "v", false),
        ("a:b", "v", false),
        ("a\0", "v", false),
        ("a\u{e4}", "v", false),
        (":unknown", "v", false),
        (":Path", "v", false),
        (":", "v", false),
        ("n", " v", true),
        ("n", "v ", true),
        ("n", "\tv", true),
        ("n", "v\t", true),
        ("n", " ", true),
        ("n", "a\0b", true),
        ("n", "a\rb", true),
        ("n", "a\nb", true),
        ("n", "a\u{7f}b", true),
        (":path", "/\r\n", true),
    ] {
        let mut decoder = Decoder::new(4096);
        let size = name.len() + value.len() + 32;
        let mut block = BytesMut::from(&[0x40, name.len() as u8][..]);
        block.extend_from_slice(name.as_bytes());
        block.extend_from_slice(&[value.len() as u8]);
        block.extend_from_slice(value.as_bytes());
        // After it: itself by its index, its name with another value, and an entry of before it.
        block.extend_from_slice(&[0xbe, 0x0f, 0x2f, 1, b'w', 0xbf]);
        let mut seen = Vec::new();
        decoder.decode(&hex("40 01 61 01 62"), |_, _| {}).unwrap();
        let each = |line: Result<Line<'_>, Malformed>, size| {
            seen.push((line.map(Line::into_field), size));
        };
        decoder.decode(&block, each).unwrap();
        assert_eq!(seen.len(), 4, "{name:?}");
        assert!(seen[0].0.is_err(), "{name:?}: {value:?}");
        assert_eq!(seen[0], seen[1], "{name:?}: {value:?}");
        assert_eq!(seen[0].1, size, "{name:?}: {value:?}");
        assert_eq!(seen[2].0.is_ok(), name_fine, "{name:?}: {value:?}");
        assert_eq!(seen[2].1, name.len() + 1 + 32, "{name:?}: {value:?}");
        let before = seen[3].0.as_ref().unwrap();
        assert_eq!(before.value, "b", "{name:?}");
    }
}

#[test]
fn only_lowercase_tokens_are_names() {
    for octet in 0..=u8::MAX {
        let token = octet.is_ascii_lowercase()
            || octet.is_ascii_digit()
            || b"!#$%&'*+-.^_`|~".contains(&octet);
        // Short and long names go different ways.
        for length in [1, 30, 100] {
            let mut name = vec![b'n'; length];
            name[length - 1] = octet;
            let mut block = vec![0, length as u8];
            block.extend_from_slice(&name);
            block.extend_from_slice(b"\x01v");
            let mut fine = None;
            let mut decoder = Decoder::new(4096);
            decoder
                .decode(&block, |field, _| fine = Some(field.is_ok()))
                .unwrap();
            assert_eq!(fine, Some(token), "{octet:#x} in a name of {length}");
        }
    }
}

#[test]
fn never_indexed_stays_never_indexed() {
    let sensitive = |block: &str| {
        let mut seen = None;
        let each = |line: Result<Line<'_>, Malformed>, _| {
            let field = line.map(Line::into_field);
            seen = field.ok().map(|field| field.value.is_sensitive());
        };
        Decoder::new(4096).decode(&hex(block), each).unwrap();
        seen
    };
    assert_eq!(sensitive("10 01 61 01 62"), Some(true));
    assert_eq!(sensitive("00 01 61 01 62"), Some(false));
    assert_eq!(sensitive("40 01 61 01 62"), Some(false));
}

#[test]
fn a_table_counts_and_evicts_as_section_4_says() {
    let mut table = Table::new(100);
    let ages = |table: &Table<u32>| -> Vec<u32> {
        let ages = 0..table.len();
        ages.map(|age| table.get(age).unwrap().0).collect()
    };
    let size = |table: &Table<u32>| table.contents(|_| (Name::Path, vec![])).1;
    table.insert(1, 40);
    table.insert(2, 60);
    assert_eq!((ages(&table), size(&table)), (vec![2, 1], 100));
    table.insert(3, 33);
    assert_eq!((ages(&table), size(&table)), (vec![3, 2], 93));
    table.set_max(92);
    assert_eq!((ages(&table), size(&table)), (vec![3], 33));
    table.insert(4, 93);
    assert_eq!((ages(&table), size(&table)), (vec![], 0));
    assert!(table.get(0).is_none() && table.get(usize::MAX).is_none());
}

proptest! {
    #[test]
    fn any_octets_never_panic(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..5), table in 0..5000usize) {
        let mut decoder = Decoder::new(table);
        for block in blocks {
            if decoder.decode(&block, |_, _| {}).is_err() {
                break;
            }
        }
    }
}
