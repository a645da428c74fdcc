//! The syntax of start lines and field sections.

use bytes::BytesMut;
use http::{HeaderName, Method, StatusCode, Version};
use memchr::{memchr, memchr2};

use super::{Limits, Refusal};
use crate::model::{FieldValue, Fields, Text};

/// Of a request target that can't be one.
pub(super) const NOT_VISIBLE: Refusal =
    Refusal::Malformed("the request target holds a byte that is no visible ASCII");

/// A request as it stood on the wire.
pub(super) struct RequestLine {
    pub method: Method,
    pub target: Text,
    pub version: Version,
}

/// A status line.
pub(super) struct StatusLine {
    pub version: Version,
    pub status: StatusCode,
}

/// The length of the whole section at the beginning of `buffer`, its empty line included, or nothing when it isn't
/// complete. A bare CR or LF is refused as soon as it is seen (RFC 9112 2.2).
pub(super) fn find_section(buffer: &[u8], limits: &Limits) -> Result<Option<usize>, Refusal> {
    match find_end(buffer)? {
        Some(end) if end > limits.head_bytes => {
            Err(Refusal::TooLarge("the header section is too large"))
        }
        Some(end) => Ok(Some(end)),
        None if buffer.len() >= limits.head_bytes => {
            Err(Refusal::TooLarge("the header section is too large"))
        }
        None => Ok(None),
    }
}

/// The length of the section, its final empty line included. A section may be that line alone.
fn find_end(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut line_start = 0;
    let mut at = 0;
    while let Some(found) = memchr2(b'\r', b'\n', &bytes[at..]) {
        let position = at + found;
        if bytes[position] == b'\n' {
            return Err(Refusal::Malformed("a line ends with a bare LF"));
        }
        match bytes.get(position + 1) {
            None => return Ok(None),
            Some(b'\n') if position == line_start => return Ok(Some(position + 2)),
            Some(b'\n') => {
                line_start = position + 2;
                at = line_start;
            }
            Some(_) => return Err(Refusal::Malformed("a bare CR")),
        }
    }
    Ok(None)
}

/// Takes empty lines before a request line away (RFC 9112 2.2 asks for one at least).
pub(super) fn skip_empty_lines(buffer: &mut BytesMut) {
    for _ in 0..4 {
        if buffer.starts_with(b"\r\n") {
            let _ = buffer.split_to(2);
        }
    }
}

/// The first line of a section in which every CR is followed by LF, and what is behind it.
pub(super) fn first_line(section: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr(b'\r', section).unwrap_or(section.len());
    let rest = (end + 2).min(section.len());
    (&section[..end], &section[rest..])
}

pub(super) fn request_line(line: &[u8]) -> Result<RequestLine, Refusal> {
    let malformed = Refusal::Malformed;
    let mut parts = line.split(|b| *b == b' ');
    let (method, target, version) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(method), Some(target), Some(version), None) => (method, target, version),
        _ => {
            return Err(malformed(
                "the request line is not METHOD SP TARGET SP VERSION",
            ));
        }
    };
    let method = Method::from_bytes(method).map_err(|_| malformed("the method is not a token"))?;
    let target = Text::passing(target).ok();
    let target = target.filter(|target| !target.is_empty());
    Ok(RequestLine {
        method,
        target: target.ok_or(NOT_VISIBLE)?,
        version: parse_version(version)?,
    })
}

pub(super) fn status_line(line: &[u8]) -> Result<StatusLine, Refusal> {
    let malformed = Refusal::Malformed;
    let mut parts = line.splitn(3, |b| *b == b' ');
    let version = parse_version(parts.next().unwrap_or_default())?;
    let status = parts.next().unwrap_or_default();
    let status = if status.len() == 3 {
        StatusCode::from_bytes(status).ok()
    } else {
        None
    };
    Ok(StatusLine {
        version,
        status: status.ok_or(malformed("the status is not three digits"))?,
    })
}

/// A later minor version is spoken with as the last one that we know (RFC 9110 2.5).
fn parse_version(text: &[u8]) -> Result<Version, Refusal> {
    match text.strip_prefix(b"HTTP/1.") {
        Some(b"0") => Ok(Version::HTTP_10),
        Some([b'1'..=b'9']) => Ok(Version::HTTP_11),
        _ => Err(Refusal::Malformed("the version is not one of HTTP/1")),
    }
}

/// Whose field lines are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// A response's head, in which blanks before a colon are taken away.
    Response,
    /// Anything else, in which they are refused.
    Other,
}

/// Reads field lines, the final empty line included (RFC 9112 5).
pub(super) fn fields(section: &[u8], limits: &Limits, of: Of) -> Result<Fields, Refusal> {
    let malformed = Refusal::Malformed;
    let mut headers = Fields::new();
    let mut rest = section;
    while !rest.is_empty() {
        let (line, after) = first_line(rest);
        rest = after;
        if line.is_empty() {
            break;
        }
        if line[0] == b' ' || line[0] == b'\t' {
            return Err(malformed("a folded header line (obs-fold)"));
        }
        if headers.len() == limits.headers {
            return Err(Refusal::TooLarge("too many header fields"));
        }
        let colon = memchr(b':', line).ok_or(malformed("a header line without a colon"))?;
        let name = HeaderName::from_bytes(&line[..colon])
            .ok()
            .or_else(|| name_before_blanks(&line[..colon], of))
            .ok_or(malformed("a header name is not a token"))?;
        let value = FieldValue::passing(trim(&line[colon + 1..]))
            .map_err(|_| malformed("a header value holds a control character"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// RFC 9112 5.1: a server refuses blanks before a colon, and a proxy removes them from a response.
#[cold]
fn name_before_blanks(octets: &[u8], of: Of) -> Option<HeaderName> {
    if of == Of::Other {
        return None;
    }
    let blanks = octets
        .iter()
        .rev()
        .take_while(|b| matches!(b, b' ' | b'\t'));
    let length = octets.len() - blanks.count();
    HeaderName::from_bytes(&octets[..length]).ok()
}

/// A value without the optional white space around it.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
