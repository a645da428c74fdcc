//! HTTP/2: whatever a peer of either role sends, in whatever pieces, nothing panics, what waits to be
//! taken is within the windows, and what waits to be sent grows with what came in only.
#![no_main]

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, Version};
use libfuzzer_sys::fuzz_target;
use weft_proxy::http2::{Connection, ErrorCode, Key, Limits, PREFACE, Piece, Role, Taken};
use weft_proxy::model::{Fields, RequestHead, ResponseHead, Text};

/// What an answer, its head and its content, or a stream's end costs at most.
const ANSWER_BYTES: usize = 200;
/// Streams that a client of ours opens.
const OPENED: usize = 8;
const WINDOW: u32 = 1000;
/// Never below what a peer may use before it knows our SETTINGS.
const WINDOW_AT_FIRST: usize = 65_535;

fn request() -> RequestHead {
    RequestHead {
        method: Method::POST,
        scheme: Some(Text::from_static("http")),
        authority: Some(Text::from_static("a.b")),
        path: Text::from_static("/"),
        version: Version::HTTP_2,
        upgrade: None,
        headers: Fields::new(),
    }
}

fn response() -> ResponseHead {
    ResponseHead {
        status: StatusCode::OK,
        version: Version::HTTP_2,
        upgrade: None,
        headers: Fields::new(),
    }
}

/// Simple things that are done with a stream, as an octet says.
fn act(engine: &mut Connection, role: Role, key: Key, how: u8) {
    match how % 8 {
        0 if role == Role::Server => {
            let _ = engine.respond(key, &response(), how & 8 != 0);
        }
        1 => {
            let mut content = Bytes::from_static(b"hello");
            let _ = engine.send_data(key, &mut content);
        }
        2 => {
            let _ = engine.send_end(key);
        }
        3 => {
            let _ = engine.send_trailers(key, &Fields::new());
        }
        4 => engine.reset(key, ErrorCode::CANCEL),
        5 => engine.drop_receiver(key),
        6 => engine.drop_sender(key),
        _ => {}
    }
}

/// Takes what there is; how many octets that were.
fn take(engine: &mut Connection, key: Key) -> usize {
    let mut octets = 0;
    while let Taken::Piece(piece) = engine.take(key) {
        if let Piece::Data(data) = piece {
            assert!(!data.is_empty(), "an empty piece would spin");
            octets += data.len();
        }
    }
    octets
}

fuzz_target!(|input: (u8, &[u8])| {
    let (mode, bytes) = input;
    let role = if mode & 1 == 0 {
        Role::Server
    } else {
        Role::Client
    };
    let limits = Limits {
        streams: 16,
        stream_window: WINDOW,
        connection_window: 4 * WINDOW,
        ..Limits::default()
    };
    let mut engine = Connection::new(role, limits);
    let mut keys = Vec::new();
    if role == Role::Client {
        for _ in 0..OPENED {
            keys.push(engine.open(&request(), |_| {}, false).expect("room"));
        }
    }
    let mut buffer = BytesMut::new();
    // Most inputs go beyond the preface this way.
    if mode & 2 != 0 {
        if role == Role::Server {
            buffer.extend_from_slice(PREFACE);
        }
        buffer.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    }
    let now = Instant::now();
    let mut most = engine.output().len() + ANSWER_BYTES;
    let size = usize::from(mode >> 2) + 1;
    for (at, chunk) in bytes.chunks(size).enumerate() {
        buffer.extend_from_slice(chunk);
        // A frame of 9 octets is answered with one of at most 17.
        most += 2 * chunk.len();
        let ended = engine.receive(&mut buffer, now).err();
        assert_eq!(ended, engine.ended());
        let how = chunk[0].wrapping_add(at as u8);
        while let Some(incoming) = engine.accept() {
            assert!(role == Role::Server, "a push");
            keys.push(incoming.key);
        }
        if !keys.is_empty() {
            most += ANSWER_BYTES;
            let key = keys[usize::from(how) % keys.len()];
            act(&mut engine, role, key, how >> 3);
        }
        if how & 1 == 0 {
            let held: usize = keys.iter().map(|key| take(&mut engine, *key)).sum();
            assert!(held <= WINDOW_AT_FIRST, "{held} octets were held");
            while engine.notice().is_some() {}
        }
        assert!(engine.output().len() <= most, "the output grows by itself");
        if how & 2 == 0 {
            let sent = engine.output().len() / 2;
            engine.sent(sent);
        }
        if ended.is_some() {
            break;
        }
    }
    for key in keys {
        engine.drop_receiver(key);
        engine.drop_sender(key);
        assert!(
            matches!(engine.take(key), Taken::End),
            "a key outlived its halves"
        );
    }
    engine.lost("the end");
    assert!(!engine.has_streams());
});
