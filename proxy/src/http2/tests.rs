//! The engine, seen from outside: bytes in, and what it says and writes about them, row by row with
//! the section that asks for it. Rows compare texts: what came in for whoever holds a stream, then
//! every frame that was written, as [`Bench::seen`] puts them.

mod data;
mod ending;
mod fields;
mod floods;
mod framing;
mod messages;
mod pair;
mod properties;
mod sending;
mod settings;
mod states;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, Method, StatusCode, Version};
use proptest::prelude::*;

use super::frame::STREAM_MASK;
use super::hpack::{Decoder, Malformed};
use super::{
    Connection, ErrorCode, FrameHeader, HEADER_BYTES, Key, Kind, Limits, PREFACE, Piece, Role,
    Taken, flag,
};
use crate::model::{FieldValue, Fields, RequestHead, ResponseHead, Text};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// END_STREAM, or nothing.
const END: u8 = flag::END_STREAM;
const OPEN: u8 = 0;

/// A frame, with whatever its type forbids.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in values {
        payload.extend(id.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

fn data(stream: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, data)
}

/// DATA with this much padding.
fn padded(stream: u32, flags: u8, content: &[u8], padding: u8) -> Vec<u8> {
    let pad = vec![0; usize::from(padding)];
    let payload = [&[padding], content, &pad].concat();
    frame(DATA, flags | flag::PADDED, stream, &payload)
}

fn window(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn rst(stream: u32, code: ErrorCode) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.0.to_be_bytes())
}

fn go_away(last: u32, code: ErrorCode) -> Vec<u8> {
    let payload = [last.to_be_bytes(), code.0.to_be_bytes()].concat();
    frame(GOAWAY, 0, 0, &payload)
}

/// A header block of literals that enter no table (RFC 7541 6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let mut string = |text: &str| {
        match text.len() {
            length @ 0..127 => block.push(length as u8),
            length => {
                block.push(127);
                let mut rest = length - 127;
                while rest >= 128 {
                    block.push(rest as u8 | 128);
                    rest >>= 7;
                }
                block.push(rest as u8);
            }
        }
        block.extend(text.as_bytes());
    };
    for (name, value) in fields {
        // The literal's first octet, whose index says that the name follows, is an empty string's too.
        string("");
        string(name);
        string(value);
    }
    block
}

/// A header block in one frame.
fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | flag::END_HEADERS, stream, &block(fields))
}

const GET: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/"),
    (":authority", "a.b"),
];
const POST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "https"),
    (":path", "/"),
    (":authority", "a.b"),
];
const OK: &[(&str, &str)] = &[(":status", "200")];

/// `fields` and more.
fn with<'a>(fields: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [fields, more].concat()
}

fn get(stream: u32) -> Vec<u8> {
    headers(stream, END, GET)
}

fn post(stream: u32) -> Vec<u8> {
    headers(stream, OPEN, POST)
}

fn fields(text: &[(&str, &str)]) -> Fields {
    let field = |(name, value): &(&str, &str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, FieldValue::from_text(value).unwrap())
    };
    text.iter().map(field).collect()
}

fn request(method: &str) -> RequestHead {
    RequestHead {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        scheme: Some(Text::from_static("https")),
        authority: Some(Text::from_static("a.b")),
        path: Text::from_static("/"),
        version: Version::HTTP_2,
        upgrade: None,
        headers: Fields::new(),
    }
}

fn response(status: u16) -> ResponseHead {
    ResponseHead {
        status: StatusCode::from_u16(status).unwrap(),
        version: Version::HTTP_2,
        upgrade: None,
        headers: Fields::new(),
    }
}

/// A stream that the bench watches.
struct Watched {
    key: Key,
    /// Its receiver has seen the end, or why there is none.
    is_done: bool,
    has_failed: bool,
    is_dropped: bool,
}

/// A connection whose peer is the test.
struct Bench {
    engine: Connection,
    streams: Vec<Watched>,
    now: Instant,
    /// Reads the header blocks that the engine writes.
    decoder: Decoder,
    input: BytesMut,
    /// Whether what comes in is taken at once.
    takes: bool,
}

impl Bench {
    /// Nothing was sent or received, but for what a connection begins with.
    fn new(role: Role, limits: Limits) -> Self {
        Self {
            engine: Connection::new(role, limits),
            streams: Vec::new(),
            now: Instant::now(),
            decoder: Decoder::new(4096),
            input: BytesMut::new(),
            takes: true,
        }
    }

    /// Both sides have exchanged their SETTINGS.
    fn begun(role: Role, limits: Limits) -> Self {
        let mut bench = Self::new(role, limits);
        if role == Role::Server {
            bench.feed(PREFACE);
        }
        bench.feed(&settings(&[]));
        bench.feed(&frame(SETTINGS, flag::ACK, 0, &[]));
        bench.seen();
        bench
    }

    fn server() -> Self {
        Self::begun(Role::Server, Limits::default())
    }

    /// With a GET on stream 1, a POST that goes on on 3, a HEAD on 5 and a CONNECT on 7.
    fn client() -> Self {
        let mut bench = Self::begun(Role::Client, Limits::default());
        for method in ["GET", "POST", "HEAD", "CONNECT"] {
            bench.open(&request(method), method == "GET" || method == "HEAD");
        }
        bench.seen();
        bench
    }

    fn feed(&mut self, bytes: &[u8]) -> &mut Self {
        self.input.extend_from_slice(bytes);
        let received = self.engine.receive(&mut self.input, self.now);
        assert_eq!(received.err(), self.engine.ended());
        self
    }

    fn later(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn open(&mut self, head: &RequestHead, end: bool) -> Key {
        let key = self.engine.open(head, |_| {}, end).expect("room");
        self.watch(key);
        key
    }

    fn watch(&mut self, key: Key) {
        self.streams.push(Watched {
            key,
            is_done: false,
            has_failed: false,
            is_dropped: false,
        });
    }

    /// The stream with this identifier.
    fn key(&self, id: u32) -> Key {
        let mut keys = self.streams.iter().map(|watched| watched.key);
        keys.find(|key| key.id == id).expect("a stream")
    }

    /// As much of `bytes` as there is room for; how much that was.
    fn send(&mut self, id: u32, bytes: &[u8]) -> usize {
        let mut left = Bytes::copy_from_slice(bytes);
        let key = self.key(id);
        self.engine.send_data(key, &mut left).expect("an open side");
        bytes.len() - left.len()
    }

    fn drop_receiver(&mut self, id: u32) {
        let key = self.key(id);
        self.engine.drop_receiver(key);
        let watched = self.streams.iter_mut().find(|w| w.key == key);
        watched.expect("a stream").is_dropped = true;
    }

    /// The streams that can be written to again, in the order in which they are told.
    fn woken(&mut self) -> Vec<u32> {
        let notices = std::iter::from_fn(|| self.engine.notice());
        let writable = notices.filter(|notice| notice.writable && !notice.readable);
        writable.map(|notice| notice.key.id).collect()
    }

    /// What happened since the last time, as text.
    fn seen(&mut self) -> String {
        let mut seen = Vec::new();
        if let Some(ended) = self.engine.ended() {
            seen.push(format!("ended {}", ended.code));
        }
        while let Some(incoming) = self.engine.accept() {
            let id = incoming.key.id;
            seen.push(match incoming.head {
                Ok(head) => format!("request {id} {} {}", head.method, head.path),
                Err(refused) => {
                    let head = if refused.is_head { " HEAD" } else { "" };
                    let grpc = if refused.is_grpc { " as gRPC" } else { "" };
                    format!("refused {id}{head}{grpc} {}", refused.why)
                }
            });
            self.watch(incoming.key);
        }
        for at in 0..self.streams.len() {
            self.take(at, &mut seen);
        }
        seen.extend(self.written());
        seen.join("; ")
    }

    fn take(&mut self, at: usize, seen: &mut Vec<String>) {
        // How data is divided into pieces is nobody's business.
        let mut content = 0;
        let watched = &mut self.streams[at];
        let (key, id) = (watched.key, watched.key.id);
        while self.takes && !watched.is_done && !watched.is_dropped {
            match self.engine.take(key) {
                Taken::Piece(Piece::Head(head)) => seen.push(format!("head {id} {}", head.status)),
                Taken::Piece(Piece::Data(data)) => {
                    if content > 0 {
                        seen.pop();
                    }
                    content += data.len();
                    seen.push(format!("data {id} {content}"));
                }
                Taken::Piece(Piece::Trailers(fields)) => {
                    seen.push(format!("trailers {id} {}", fields.len()));
                }
                Taken::End => {
                    seen.push(format!("end {id}"));
                    watched.is_done = true;
                }
                Taken::Failed(_) => watched.is_done = true,
                Taken::Pending => break,
            }
        }
        if let Some(failure) = self.engine.failure(key)
            && !watched.has_failed
        {
            watched.has_failed = true;
            let remote = if failure.remote { " by peer" } else { "" };
            let unprocessed = if failure.unprocessed {
                " unprocessed"
            } else {
                ""
            };
            let code = failure.code;
            seen.push(format!("failed {id} {code}{remote}{unprocessed}"));
        }
    }

    /// All of the output, sent.
    fn output(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !self.engine.output().is_empty() {
            let mut slices = [std::io::IoSlice::new(&[]); 4];
            let count = self.engine.output().slices(&mut slices);
            let before = bytes.len();
            slices[..count]
                .iter()
                .for_each(|slice| bytes.extend_from_slice(slice));
            self.engine.sent(bytes.len() - before);
        }
        bytes
    }

    /// Every frame of the output as text.
    fn written(&mut self) -> Vec<String> {
        let bytes = self.output();
        let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(&bytes);
        let mut seen = Vec::new();
        let mut fragments = Vec::new();
        while let Some(header) = FrameHeader::parse(rest) {
            let (payload, after) = rest[HEADER_BYTES..].split_at(header.length as usize);
            rest = after;
            let mut line = frame_text(header, payload);
            if matches!(header.kind, Kind::Headers | Kind::Continuation) {
                fragments.extend_from_slice(payload);
                if header.has(flag::END_HEADERS) {
                    line.push_str(&self.block_text(&std::mem::take(&mut fragments)));
                }
            }
            seen.push(line);
        }
        assert_eq!(rest, b"", "half a frame");
        seen
    }

    /// The field lines of a block.
    fn block_text(&mut self, block: &[u8]) -> String {
        let mut text = String::new();
        let each = |line: Result<super::hpack::Line<'_>, Malformed>, _| {
            let field = line
                .expect("what the engine writes is well-formed")
                .into_field();
            let value = String::from_utf8_lossy(field.value.as_bytes()).into_owned();
            text.push_str(&format!(" {}={value}", field.name.as_str()));
        };
        self.decoder.decode(block, each).expect("a block");
        text
    }
}

/// A frame that was written, without its header block.
fn frame_text(header: FrameHeader, payload: &[u8]) -> String {
    let FrameHeader {
        length,
        kind,
        stream,
        ..
    } = header;
    let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
    let end = if header.has(flag::END_STREAM) {
        " end"
    } else {
        ""
    };
    let ack = if header.has(flag::ACK) { " ack" } else { "" };
    match kind {
        Kind::Data => format!("DATA {stream} {length}{end}"),
        Kind::Headers => format!("HEADERS {stream}{end}"),
        Kind::Continuation => format!("CONTINUATION {stream}{end}"),
        Kind::Reset => format!("RST_STREAM {stream} {}", ErrorCode(word(0))),
        Kind::Settings => {
            let values = payload.chunks(6).map(|setting| {
                let [i0, i1, v @ ..] = setting else { panic!() };
                let value = u32::from_be_bytes(v.try_into().unwrap());
                format!(" {}={value}", u16::from_be_bytes([*i0, *i1]))
            });
            format!("SETTINGS{ack}{}", values.collect::<String>())
        }
        Kind::Ping => format!("PING{ack} {}", payload.escape_ascii()),
        Kind::GoAway => format!("GOAWAY {} {}", word(0) & STREAM_MASK, ErrorCode(word(4))),
        Kind::WindowUpdate => format!("WINDOW_UPDATE {stream} {}", word(0)),
        Kind::Priority | Kind::PushPromise | Kind::Unknown(_) => panic!("never written: {kind:?}"),
    }
}

/// Something that is done to a bench.
type Act = fn(&mut Bench);

/// What a rule asks for, the bytes, and what is seen of them.
type Row = (&'static str, Vec<u8>, &'static str);

/// Feeds each row's bytes to a bench of its own.
#[track_caller]
fn check(bench: fn() -> Bench, rows: &[Row]) {
    let mut wrong = String::new();
    for (rule, bytes, expected) in rows {
        let seen = bench().feed(bytes).seen();
        if seen != *expected {
            wrong.push_str(&format!(
                "\n{rule}\n  seen:     {seen}\n  expected: {expected}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong}\n");
}

#[track_caller]
fn check_server(rows: &[Row]) {
    check(Bench::server, rows);
}

#[track_caller]
fn check_client(rows: &[Row]) {
    check(Bench::client, rows);
}

/// How many cases a property is tried on: this many, or as the environment says for a long run.
fn cases(usual: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: asked.and_then(|cases| cases.parse().ok()).unwrap_or(usual),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
