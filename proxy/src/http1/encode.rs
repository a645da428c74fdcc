//! Heads and bodies to bytes.

use bytes::{BufMut, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version};

use super::BodyLength;
use crate::model::{Fields, RequestHead, ResponseHead, Text};

/// Room that is made for a head at once; most need no more.
const HEAD_USUAL: usize = 768;

/// Writes a request head, in our own version whatever the client's was (RFC 9112 2.3), and says how its body will be
/// framed. `has_body` is false when it is known that none follows.
pub fn write_request(buffer: &mut BytesMut, head: &RequestHead, has_body: bool) -> BodyEncoder {
    let length = content_length(&head.headers);
    let chunked = has_body && length.is_none() && head.upgrade.is_none();
    buffer.reserve(HEAD_USUAL);
    let authority = head.authority.as_ref();
    let authority = authority.map_or(&b""[..], Text::as_bytes);

    buffer.put_slice(head.method.as_str().as_bytes());
    buffer.put_u8(b' ');
    if head.method == Method::CONNECT && head.path.is_empty() {
        buffer.put_slice(authority);
    } else {
        buffer.put_slice(head.path.as_bytes());
    }
    buffer.put_slice(b" HTTP/1.1\r\n");
    put_field(buffer, b"host", authority);
    put_fields(buffer, &head.headers);
    if let Some(token) = &head.upgrade {
        put_field(buffer, b"connection", b"upgrade");
        put_field(buffer, b"upgrade", token.as_bytes());
    }
    let encoder = if chunked {
        put_field(buffer, TRANSFER_ENCODING.as_str().as_bytes(), b"chunked");
        BodyEncoder {
            framing: Framing::Chunked,
        }
    } else {
        BodyEncoder {
            framing: Framing::Plain,
        }
    };
    buffer.put_slice(b"\r\n");
    encoder
}

/// Writes a response head for a client that speaks `version` and sent `method`. `body` says whether
/// one follows and how long it is; `close` tells the client that the connection ends after it.
pub fn write_response(
    buffer: &mut BytesMut,
    head: &ResponseHead,
    method: &Method,
    version: Version,
    body: BodyLength,
    close: bool,
) -> BodyEncoder {
    let bodiless = head.status.is_informational()
        || head.status == StatusCode::NO_CONTENT
        || head.status == StatusCode::NOT_MODIFIED
        || method == Method::HEAD;
    let unknown_length = content_length(&head.headers).is_none();
    let mut framing = Framing::Plain;
    buffer.reserve(HEAD_USUAL);

    buffer.put_slice(if version == Version::HTTP_10 {
        b"HTTP/1.0 "
    } else {
        b"HTTP/1.1 "
    });
    buffer.put_slice(head.status.as_str().as_bytes());
    buffer.put_u8(b' ');
    buffer.put_slice(
        head.status
            .canonical_reason()
            .unwrap_or_default()
            .as_bytes(),
    );
    buffer.put_slice(b"\r\n");
    // RFC 9110 8.6: a 1xx and a 204 have no length, whatever a server says.
    let no_length = head.status.is_informational() || head.status == StatusCode::NO_CONTENT;
    for (name, value) in &head.headers {
        if !(no_length && name == CONTENT_LENGTH) {
            put_field(buffer, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if let Some(token) = &head.upgrade {
        put_field(buffer, b"connection", b"upgrade");
        put_field(buffer, b"upgrade", token.as_bytes());
    } else if !bodiless && unknown_length {
        if body == BodyLength::None {
            put_field(buffer, CONTENT_LENGTH.as_str().as_bytes(), b"0");
        } else if version == Version::HTTP_11 {
            put_field(buffer, TRANSFER_ENCODING.as_str().as_bytes(), b"chunked");
            framing = Framing::Chunked;
        }
    }
    if close && head.upgrade.is_none() && !head.status.is_informational() {
        put_field(buffer, b"connection", b"close");
    } else if version == Version::HTTP_10 && !close && head.upgrade.is_none() {
        put_field(buffer, b"connection", b"keep-alive");
    }
    buffer.put_slice(b"\r\n");
    if bodiless {
        framing = Framing::Nothing;
    }
    BodyEncoder { framing }
}

/// The Content-Length of a head that was checked when it was received.
fn content_length(headers: &Fields) -> Option<u64> {
    headers.get(&CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn put_fields(buffer: &mut BytesMut, headers: &Fields) {
    for (name, value) in headers {
        put_field(buffer, name.as_str().as_bytes(), value.as_bytes());
    }
}

fn put_field(buffer: &mut BytesMut, name: &[u8], value: &[u8]) {
    buffer.reserve(name.len() + value.len() + 4);
    buffer.put_slice(name);
    buffer.put_slice(b": ");
    buffer.put_slice(value);
    buffer.put_slice(b"\r\n");
}

/// Writes a number in hexadecimal, without leading zeros.
fn put_hex(buffer: &mut BytesMut, number: usize) {
    let digits = number.checked_ilog2().unwrap_or(0) / 4 + 1;
    for digit in (0..digits).rev() {
        buffer.put_u8(b"0123456789abcdef"[(number >> (4 * digit)) & 0xf]);
    }
}

/// How the pieces of a body that is being sent are framed.
#[derive(Debug)]
pub struct BodyEncoder {
    framing: Framing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// As it comes: the length was announced, or the close ends it.
    Plain,
    Chunked,
    /// HEAD, 204, 304: whatever comes is dropped.
    Nothing,
}

impl BodyEncoder {
    /// Writes what goes before data of this length, and returns what goes after it; nothing at all when the data has
    /// to be dropped.
    pub fn frame(&self, buffer: &mut BytesMut, length: usize) -> Option<&'static [u8]> {
        match self.framing {
            Framing::Nothing => None,
            Framing::Plain => Some(b""),
            Framing::Chunked if length == 0 => None,
            Framing::Chunked => {
                put_hex(buffer, length);
                buffer.put_slice(b"\r\n");
                Some(b"\r\n")
            }
        }
    }

    /// Writes the end of the body. Trailers need the chunked framing and are dropped in any other
    /// (RFC 9110 6.5.1).
    pub fn finish(&self, buffer: &mut BytesMut, trailers: Option<&Fields>) {
        if self.framing == Framing::Chunked {
            buffer.put_slice(b"0\r\n");
            if let Some(trailers) = trailers {
                put_fields(buffer, trailers);
            }
            buffer.put_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::model::FieldValue;

    fn request(version: Version, headers: &[(&'static str, &'static str)]) -> RequestHead {
        let mut map = Fields::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_static(name),
                FieldValue::from_static(value),
            );
        }
        RequestHead {
            method: Method::POST,
            scheme: None,
            authority: Some(Text::from_static("a")),
            path: Text::from_static("/p"),
            version,
            upgrade: None,
            headers: map,
        }
    }

    #[test]
    fn requests() {
        let check = |head: &RequestHead, has_body: bool, expect: &str| {
            let mut buffer = BytesMut::new();
            write_request(&mut buffer, head, has_body);
            assert_eq!(String::from_utf8_lossy(&buffer), expect);
        };
        let plain = request(Version::HTTP_11, &[("x", "1")]);
        check(&plain, false, "POST /p HTTP/1.1\r\nhost: a\r\nx: 1\r\n\r\n");
        check(
            &plain,
            true,
            "POST /p HTTP/1.1\r\nhost: a\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        );
        let sized = request(Version::HTTP_10, &[("content-length", "3")]);
        check(
            &sized,
            true,
            "POST /p HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n",
        );
        let mut upgrade = request(Version::HTTP_2, &[]);
        upgrade.method = Method::GET;
        upgrade.upgrade = Some("websocket".into());
        check(
            &upgrade,
            true,
            "GET /p HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        );
    }

    #[test]
    fn chunk_sizes() {
        for size in [1, 9, 10, 15, 16, 17, 255, 256, 4095, 65536, usize::MAX] {
            let mut buffer = BytesMut::new();
            put_hex(&mut buffer, size);
            assert_eq!(buffer, format!("{size:x}"));
        }
    }

    #[test]
    fn responses() {
        let check = |status: u16,
                     method: Method,
                     version: Version,
                     body: BodyLength,
                     close: bool,
                     expect: &str| {
            let mut buffer = BytesMut::new();
            let status = StatusCode::from_u16(status).unwrap();
            let head = ResponseHead {
                status,
                version: Version::HTTP_11,
                upgrade: None,
                headers: Fields::new(),
            };
            let encoder = write_response(&mut buffer, &head, &method, version, body, close);
            if let Some(after) = encoder.frame(&mut buffer, 3) {
                buffer.extend_from_slice(b"abc");
                buffer.extend_from_slice(after);
            }
            encoder.finish(&mut buffer, None);
            assert_eq!(String::from_utf8_lossy(&buffer), expect);
        };
        let (new, old) = (Version::HTTP_11, Version::HTTP_10);
        let unknown = BodyLength::UntilClose;
        check(
            200,
            Method::GET,
            new,
            unknown,
            false,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        );
        check(
            200,
            Method::GET,
            old,
            unknown,
            true,
            "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabc",
        );
        check(
            200,
            Method::HEAD,
            new,
            unknown,
            false,
            "HTTP/1.1 200 OK\r\n\r\n",
        );
        check(
            204,
            Method::GET,
            new,
            BodyLength::None,
            true,
            "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
        );
        check(
            103,
            Method::GET,
            new,
            BodyLength::None,
            true,
            "HTTP/1.1 103 Early Hints\r\n\r\n",
        );
    }
}
