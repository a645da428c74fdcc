//! HTTP/1 requests: what is taken off the wire and written again is read as the same request with
//! the same framing, however the bytes came in pieces; so no second parser can see another one.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use weft_proxy::http1::{
    BodyDecoder, BodyLength, Decoded, Limits, receive_request, write_request,
};

/// The body's bytes, or nothing when it is refused or not complete.
fn body(length: BodyLength, buffer: &mut BytesMut, limits: &Limits) -> Option<Vec<u8>> {
    let mut decoder = BodyDecoder::new(length);
    let mut whole = Vec::new();
    loop {
        match decoder.decode(buffer, limits) {
            Ok(Some(Decoded::Data(data))) => {
                assert!(!data.is_empty(), "an empty piece would spin");
                whole.extend_from_slice(&data);
            }
            Ok(Some(Decoded::End(_))) => return Some(whole),
            Ok(None) | Err(_) => return None,
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let mut buffer = BytesMut::from(bytes);
    let Ok(Some(first)) = receive_request(&mut buffer, &limits) else {
        return;
    };
    let mut pieces = BytesMut::new();
    let mut seen = None;
    for byte in bytes {
        pieces.extend_from_slice(&[*byte]);
        match receive_request(&mut pieces, &limits) {
            Ok(None) => {}
            Ok(Some(head)) => {
                seen = Some(head);
                break;
            }
            Err(refusal) => panic!("taken as a whole, refused in pieces: {refusal}"),
        }
    }
    let seen = seen.expect("taken as a whole, never taken in pieces");
    assert_eq!(format!("{seen:?}"), format!("{first:?}"));

    let length = first.body;
    let content = body(length, &mut buffer, &limits);
    let mut wire = BytesMut::new();
    let encoder = write_request(&mut wire, &first.head, length != BodyLength::None);
    let Some(content) = content else {
        return;
    };
    if !content.is_empty() {
        if let Some(after) = encoder.frame(&mut wire, content.len()) {
            wire.extend_from_slice(&content);
            wire.extend_from_slice(after);
        }
    }
    encoder.finish(&mut wire, None);
    let again = receive_request(&mut wire, &limits);
    let again = again.expect("own output is refused").expect("own output is not complete");
    assert_eq!(again.head.method, first.head.method);
    assert_eq!(again.head.path, first.head.path);
    assert_eq!(again.head.authority, first.head.authority);
    let same = body(again.body, &mut wire, &limits);
    assert_eq!(same.as_deref(), Some(&content[..]), "another body");
    assert!(wire.is_empty(), "bytes left over would be the next request");
});
