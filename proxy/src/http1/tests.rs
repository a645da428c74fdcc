//! Against another implementation: a valid message means the same to hyper and to us, whoever wrote
//! it and however its bytes are cut. Where the two differ on purpose, `theirs` says so with the
//! paragraph that allows it.

mod raw;
mod theirs;
mod whole;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use proptest::prelude::*;

use super::{
    BodyDecoder, BodyLength, Decoded, Limits, Refusal, receive_request, receive_response,
    write_request, write_response,
};
use crate::model::{Fields, RequestHead, ResponseHead};

/// What a message begins with, in the words of the rest of the proxy.
#[derive(Clone, Debug, PartialEq)]
enum Start {
    Request {
        method: Method,
        scheme: Option<String>,
        authority: Option<String>,
        path: String,
        upgrade: Option<String>,
    },
    Response {
        status: u16,
        /// The heads of 1xx that came before.
        informational: Vec<(u16, HeaderMap)>,
    },
}

/// A whole message as somebody read it.
#[derive(Clone, Debug, PartialEq)]
struct Message {
    start: Start,
    version: Version,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

/// Our engine as a reader of one direction. It reads responses when it is told which methods asked
/// for them.
struct Reader {
    asked: Option<VecDeque<Method>>,
    buffer: BytesMut,
    body: Option<BodyDecoder>,
    informational: Vec<(u16, HeaderMap)>,
    seen: Vec<Message>,
    /// Whether another message may follow.
    persists: bool,
}

impl Reader {
    fn of_requests() -> Self {
        Self {
            asked: None,
            buffer: BytesMut::new(),
            body: None,
            informational: Vec::new(),
            seen: Vec::new(),
            persists: true,
        }
    }

    fn of_responses(methods: impl IntoIterator<Item = Method>) -> Self {
        Self {
            asked: Some(methods.into_iter().collect()),
            ..Self::of_requests()
        }
    }

    /// Takes what came next; what follows the connection's last message is left alone.
    fn feed(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        self.buffer.extend_from_slice(piece);
        loop {
            let goes_on = match &self.body {
                Some(_) => self.take_body()?,
                None if !self.persists => false,
                None => self.take_head()?,
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// The connection ended; whether that was in order.
    fn end(&mut self) -> bool {
        let in_order = self
            .body
            .as_ref()
            .is_none_or(|body| body.ends_with_connection());
        self.body = None;
        in_order
    }

    fn take_head(&mut self) -> Result<bool, Refusal> {
        let limits = Limits::default();
        let (start, version, headers, body) = if let Some(asked) = &mut self.asked {
            let Some(method) = asked.front() else {
                return Ok(false);
            };
            let Some(response) = receive_response(&mut self.buffer, method, &limits)? else {
                return Ok(false);
            };
            let head = response.head;
            let status = head.status.as_u16();
            if head.status.is_informational() {
                self.informational
                    .push((status, HeaderMap::from(&head.headers)));
                return Ok(true);
            }
            asked.pop_front();
            self.persists = response.keep_alive;
            let informational = std::mem::take(&mut self.informational);
            let start = Start::Response {
                status,
                informational,
            };
            (start, head.version, head.headers, response.body)
        } else {
            let Some(request) = receive_request(&mut self.buffer, &limits)? else {
                return Ok(false);
            };
            let head = request.head;
            // RFC 9110 9.3.6: what follows a CONNECT is no HTTP.
            self.persists = request.keep_alive && head.method != Method::CONNECT;
            let start = Start::Request {
                method: head.method,
                scheme: head.scheme.map(|text| text.to_string()),
                authority: head.authority.map(|text| text.to_string()),
                path: head.path.to_string(),
                upgrade: head.upgrade,
            };
            (start, head.version, head.headers, request.body)
        };
        self.body = Some(BodyDecoder::new(body));
        self.seen.push(Message {
            start,
            version,
            headers: HeaderMap::from(&headers),
            body: Vec::new(),
            trailers: HeaderMap::new(),
        });
        Ok(true)
    }

    fn take_body(&mut self) -> Result<bool, Refusal> {
        let (Some(body), Some(message)) = (&mut self.body, self.seen.last_mut()) else {
            return Ok(false);
        };
        match body.decode(&mut self.buffer, &Limits::default())? {
            None => return Ok(false),
            Some(Decoded::Data(data)) => message.body.extend_from_slice(&data),
            Some(Decoded::End(trailers)) => {
                message.trailers = HeaderMap::from(&trailers);
                self.body = None;
            }
        }
        Ok(true)
    }
}

/// What follows a head.
#[derive(Clone, Debug, Default)]
struct Content {
    pieces: Vec<Bytes>,
    trailers: HeaderMap,
}

impl Content {
    fn is_none(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_empty()
    }

    fn length(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }
}

/// Our engine as a writer of requests.
fn write_our_request(buffer: &mut BytesMut, head: &RequestHead, content: &Content) {
    let encoder = write_request(buffer, head, !content.is_none());
    write_content(buffer, &encoder, content);
}

/// Our engine as a writer of responses.
fn write_our_response(
    buffer: &mut BytesMut,
    head: &ResponseHead,
    content: &Content,
    method: &Method,
    version: Version,
    is_last: bool,
) {
    let length = if content.is_none() {
        BodyLength::None
    } else {
        BodyLength::UntilClose
    };
    let encoder = write_response(buffer, head, method, version, length, is_last);
    write_content(buffer, &encoder, content);
}

fn write_content(buffer: &mut BytesMut, encoder: &super::BodyEncoder, content: &Content) {
    for piece in &content.pieces {
        if let Some(after) = encoder.frame(buffer, piece.len()) {
            buffer.extend_from_slice(piece);
            buffer.extend_from_slice(after);
        }
    }
    let trailers = Fields::from(&content.trailers);
    encoder.finish(
        buffer,
        Some(&trailers).filter(|trailers| !trailers.is_empty()),
    );
}

/// Where bytes are cut before they are sent: pieces of these lengths, again and again.
#[derive(Clone, Debug)]
struct Cuts(Vec<usize>);

impl Cuts {
    fn pieces<'a>(&'a self, mut bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let mut lengths = self.0.iter().cycle();
        std::iter::from_fn(move || {
            let length = (*lengths.next()?).min(bytes.len());
            let (piece, rest) = bytes.split_at(length);
            bytes = rest;
            (length > 0).then_some(piece)
        })
    }
}

fn cuts() -> impl Strategy<Value = Cuts> {
    let length = prop_oneof![2 => 1..30_usize, 3 => 30..3000_usize, 3 => 3000..100_000_usize];
    prop::collection::vec(length, 1..6).prop_map(Cuts)
}

/// Text of these letters, which no strategy needs to choose one by one.
fn text(letters: &'static [u8], length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let chosen = prop::collection::vec(any::<u8>(), length);
    chosen.prop_map(|mut text| {
        for letter in &mut text {
            *letter = letters[usize::from(*letter) % letters.len()];
        }
        text
    })
}

/// RFC 9110 5.6.2.
const TOKEN: &[u8] =
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~";

/// A field's name that has no meaning to anybody.
fn free_name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => text(TOKEN, 1..12).prop_map(|rest| format!("x{}", String::from_utf8_lossy(&rest))),
        1 => prop::sample::select(vec!["Accept", "cookie", "SET-COOKIE", "Via", "aGe", "Content-Type"])
            .prop_map(str::to_owned),
    ]
}

/// RFC 9110 5.5: visible letters, octets above ASCII, and blanks between them.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let any_octets = prop::collection::vec(any::<u8>(), 0..40).prop_map(|mut octets| {
        octets.retain(|octet| *octet == b'\t' || (*octet >= b' ' && *octet != 0x7f));
        octets.trim_ascii().to_vec()
    });
    prop_oneof![
        6 => any_octets,
        3 => prop::sample::select(vec!["", "a", "a, b", "\"a\\\"b\"", "text/plain; charset=utf-8"])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => (1..3000_usize).prop_map(|length| b"0123456789".iter().copied().cycle().take(length).collect()),
    ]
}

fn header_map() -> impl Strategy<Value = HeaderMap> {
    prop::collection::vec((free_name(), value()), 0..5).prop_map(|fields| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(&value).unwrap());
        }
        map
    })
}

/// A body's pieces, none of them empty.
fn pieces() -> impl Strategy<Value = Vec<Bytes>> {
    let length = prop_oneof![8 => 1..30_usize, 2 => 1..3000_usize, 1 => 1..40_000_usize];
    let piece = (any::<u8>(), length).prop_map(|(first, length)| {
        let octets = (0..length).map(|at| (at ^ (at >> 8)) as u8 ^ first);
        octets.collect()
    });
    prop::collection::vec(piece, 0..4)
}

/// RFC 3986 3.3 and 3.4: every letter that may stand in a path and a query, as it is or encoded.
fn path() -> impl Strategy<Value = String> {
    const LETTERS: &[u8] =
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/%";
    let part = |letters: &'static [u8]| {
        text(letters, 0..30).prop_map(|text| String::from_utf8_lossy(&text).replace('%', "%E4"))
    };
    let query = prop::option::of(part(LETTERS)).prop_map(|query| match query {
        Some(query) => format!("?{query}?"),
        None => String::new(),
    });
    (part(LETTERS), query).prop_map(|(path, query)| format!("/{path}{query}"))
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
