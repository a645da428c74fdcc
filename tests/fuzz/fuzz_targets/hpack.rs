//! HPACK: no header blocks panic; what decodes is encoded and decoded again as the same field lines,
//! whatever table the peer allows.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use weft_proxy::http2::hpack::{Decoder, Encoder, Line, Malformed, Name};

/// What the decoder of the second way announced; the encoder uses less of it.
const TABLE_MAX: usize = 1 << 16;

fuzz_target!(|input: (u16, Vec<(Option<u16>, &[u8])>)| {
    let (table_max, blocks) = input;
    let mut first = Decoder::new(usize::from(table_max));
    let (mut encoder, mut second) = (Encoder::new(), Decoder::new(TABLE_MAX));
    for (peer_max, block) in blocks {
        let mut fields = Vec::new();
        let decoded = first.decode(block, |line, size| {
            if let Ok(line) = line {
                let field = line.into_field();
                let octets = field.name.as_str().len() + field.value.len();
                assert_eq!(size, octets + 32, "{field:?}");
                fields.push(field);
            }
        });
        if decoded.is_err() {
            return;
        }
        if let Some(max) = peer_max {
            encoder.set_peer_max(usize::from(max));
        }
        // The third time all that may enter the table is in it.
        for _ in 0..3 {
            let mut out = BytesMut::new();
            encoder.begin(&mut out);
            for field in &fields {
                match &field.name {
                    Name::Regular(name, _) => encoder.field(&mut out, name, &field.value),
                    name => encoder.pseudo(&mut out, name, field.value.as_bytes()),
                }
            }
            let mut again = Vec::new();
            let each = |line: Result<Line<'_>, Malformed>, _| again.push(line.expect("fine").into_field());
            second.decode(&out, each).expect("what we encoded");
            assert_eq!(again, fields);
        }
    }
});
