//! From the syntax of HTTP/1 to the heads that the rest of the proxy speaks: framing decided,
//! hop-by-hop fields taken away.

#[cfg(test)]
mod tests;

use bytes::{Buf, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, Method, StatusCode, Version};

use super::authority::{NO_AUTHORITY, check_authority};
use super::parse::{
    NOT_VISIBLE, Of, fields, find_section, first_line, request_line, skip_empty_lines, status_line,
};
use super::{BodyLength, Limits, Refusal};
use crate::model::{FieldValue, Fields, RequestHead, ResponseHead, Text};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Result of reading a head: nothing yet means that more bytes are needed.
pub type Reading<T> = Result<Option<T>, Refusal>;

/// A request head with what only this connection needs to know.
#[derive(Debug)]
pub struct ReceivedRequest {
    pub head: RequestHead,
    pub body: BodyLength,
    /// Whether the client wants to send another request after this one.
    pub keep_alive: bool,
}

/// A response head, informational ones too.
#[derive(Debug)]
pub struct ReceivedResponse {
    pub head: ResponseHead,
    pub body: BodyLength,
    /// Whether the connection can carry another request after this one.
    pub keep_alive: bool,
}

/// Takes a request head off `buffer`.
pub fn receive_request(buffer: &mut BytesMut, limits: &Limits) -> Reading<ReceivedRequest> {
    skip_empty_lines(buffer);
    let Some(end) = find_section(buffer, limits)
        .map_err(|refusal| refusal_of_request(refusal, buffer, limits))?
    else {
        return Ok(None);
    };
    let received = read_request(&buffer[..end], limits)?;
    buffer.advance(end);
    Ok(Some(received))
}

/// Of a section that is too large because its first line is, the target is told.
#[cold]
fn refusal_of_request(refusal: Refusal, buffer: &[u8], limits: &Limits) -> Refusal {
    let within = &buffer[..limits.head_bytes.min(buffer.len())];
    match refusal {
        Refusal::TooLarge(_) if !within.contains(&b'\r') => Refusal::TargetTooLarge,
        refusal => refusal,
    }
}

fn read_request(section: &[u8], limits: &Limits) -> Result<ReceivedRequest, Refusal> {
    let (line, rest) = first_line(section);
    let line = request_line(line)?;
    let mut headers = fields(rest, limits, Of::Other)?;

    let host = single_host(&mut headers, line.version)?;
    let target = split_target(&line.method, line.target, host)?;
    let body = request_length(&headers, line.version)?;
    let options = Connection::take(&mut headers, line.version);
    // An upgrade is kept only where it can be passed on whole: a GET without a body. `h2c` is left
    // out because RFC 9113 3.1 withdrew it, and ignoring an upgrade is always allowed. In HTTP/1.0 it
    // must be ignored (RFC 9110 7.8).
    let upgrade = options.upgrade.filter(|token| {
        line.version == Version::HTTP_11
            && line.method == Method::GET
            && body == BodyLength::None
            && !token.eq_ignore_ascii_case("h2c")
    });

    let head = RequestHead {
        method: line.method,
        scheme: target.scheme,
        authority: target.authority,
        path: target.path,
        version: line.version,
        upgrade,
        headers,
    };
    Ok(ReceivedRequest {
        head,
        body,
        keep_alive: options.keep_alive,
    })
}

/// Takes a response head off `buffer`; `method` is the request's, which decides whether there is a
/// body (RFC 9112 6.3).
pub fn receive_response(
    buffer: &mut BytesMut,
    method: &Method,
    limits: &Limits,
) -> Reading<ReceivedResponse> {
    let Some(end) = find_section(buffer, limits)? else {
        return Ok(None);
    };
    let received = read_response(&buffer[..end], method, limits)?;
    buffer.advance(end);
    Ok(Some(received))
}

fn read_response(
    section: &[u8],
    method: &Method,
    limits: &Limits,
) -> Result<ReceivedResponse, Refusal> {
    let (line, rest) = first_line(section);
    let line = status_line(line)?;
    let mut headers = fields(rest, limits, Of::Response)?;
    let body = response_length(&headers, line.status, method, line.version)?;
    let options = Connection::take(&mut headers, line.version);
    let switched = line.status == StatusCode::SWITCHING_PROTOCOLS;
    let keep_alive = options.keep_alive && body != BodyLength::UntilClose && !switched;
    let upgrade = options.upgrade.filter(|_| switched);
    let head = ResponseHead {
        status: line.status,
        version: line.version,
        upgrade,
        headers,
    };
    Ok(ReceivedResponse {
        head,
        body,
        keep_alive,
    })
}

struct Target {
    scheme: Option<Text>,
    authority: Option<Text>,
    path: Text,
}

/// RFC 9112 3.2: origin, absolute, authority and asterisk form. The absolute form's authority wins
/// over Host (3.2.2).
fn split_target(method: &Method, target: Text, host: Option<Text>) -> Result<Target, Refusal> {
    let malformed = Refusal::Malformed;
    if method == Method::CONNECT {
        check_authority(target.as_bytes())?;
        if !target.contains(':') {
            return Err(malformed("CONNECT without a port"));
        }
        return Ok(Target {
            scheme: None,
            authority: Some(target),
            path: Text::default(),
        });
    }
    if target.starts_with('/') || (target == "*" && method == Method::OPTIONS) {
        if target.contains('#') {
            return Err(malformed("the request target holds a fragment"));
        }
        return Ok(Target {
            scheme: None,
            authority: host,
            path: target,
        });
    }
    let (scheme, rest) = target
        .split_once("://")
        .ok_or(malformed("the request target has no known form"))?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(malformed(
            "the request target's scheme is neither http nor https",
        ));
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    check_authority(authority.as_bytes())?;
    if path.contains('#') {
        return Err(malformed("the request target holds a fragment"));
    }
    let path = if path.starts_with('/') {
        Text::try_from(path)
    } else if path.is_empty() && method == Method::OPTIONS {
        // RFC 9112 3.2.4.
        Ok(Text::from_static("*"))
    } else {
        Text::try_from(format!("/{path}").as_str())
    };
    Ok(Target {
        scheme: Text::try_from(scheme.to_ascii_lowercase().as_str()).ok(),
        authority: Some(Text::try_from(authority).map_err(|_| NOT_VISIBLE)?),
        path: path.map_err(|_| NOT_VISIBLE)?,
    })
}

/// RFC 9112 3.2: exactly one Host in HTTP/1.1, one at most in HTTP/1.0.
fn single_host(headers: &mut Fields, version: Version) -> Result<Option<Text>, Refusal> {
    if headers.get_all(&HOST).nth(1).is_some() {
        return Err(Refusal::Malformed("several Host headers"));
    }
    let host = headers.remove(&HOST);
    let Some(host) = host else {
        return if version == Version::HTTP_11 {
            Err(Refusal::Malformed("no Host header"))
        } else {
            Ok(None)
        };
    };
    let host = Text::from_value(host).map_err(|_| NO_AUTHORITY)?;
    if host.is_empty() {
        return Ok(None);
    }
    check_authority(host.as_bytes())?;
    Ok(Some(host))
}

/// RFC 9112 6.3, with every doubt decided against the message.
fn request_length(headers: &Fields, version: Version) -> Result<BodyLength, Refusal> {
    match explicit_length(headers, version)? {
        Some(BodyLength::Exactly(0)) | None => Ok(BodyLength::None),
        Some(length) => Ok(length),
    }
}

fn response_length(
    headers: &Fields,
    status: StatusCode,
    method: &Method,
    version: Version,
) -> Result<BodyLength, Refusal> {
    let explicit = explicit_length(headers, version)?;
    let bodiless = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || method == Method::HEAD
        || (method == Method::CONNECT && status.is_success());
    if bodiless {
        return Ok(BodyLength::None);
    }
    match explicit {
        Some(BodyLength::Exactly(0)) => Ok(BodyLength::None),
        Some(length) => Ok(length),
        None => Ok(BodyLength::UntilClose),
    }
}

/// What the headers say of the length, if they say anything.
fn explicit_length(headers: &Fields, version: Version) -> Result<Option<BodyLength>, Refusal> {
    let malformed = Refusal::Malformed;
    let mut codings = headers.get_all(&TRANSFER_ENCODING);
    let mut lengths = headers.get_all(&CONTENT_LENGTH);
    if let Some(coding) = codings.next() {
        if lengths.next().is_some() {
            return Err(malformed("both Content-Length and Transfer-Encoding"));
        }
        if version == Version::HTTP_10 {
            return Err(malformed("Transfer-Encoding in HTTP/1.0"));
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(malformed("a Transfer-Encoding other than chunked"));
        }
        return Ok(Some(BodyLength::Chunked));
    }
    let Some(length) = lengths.next() else {
        return Ok(None);
    };
    if lengths.next().is_some() {
        return Err(malformed("several Content-Length headers"));
    }
    let digits = length.as_bytes();
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed("the Content-Length is not a number"));
    }
    let length = digits
        .iter()
        .fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Ok(Some(BodyLength::Exactly(length)))
}

/// The options of the Connection header, and everything hop-by-hop with it.
struct Connection {
    keep_alive: bool,
    upgrade: Option<String>,
}

impl Connection {
    /// Takes the hop-by-hop fields away (RFC 9110 7.6.1), whatever the Connection header names
    /// among them; `te: trailers` stays because trailers are passed on.
    fn take(headers: &mut Fields, version: Version) -> Self {
        // Most heads have none, and are done after one look at each of their names.
        if !headers.names().any(is_hop_by_hop) {
            return Self {
                keep_alive: version == Version::HTTP_11,
                upgrade: None,
            };
        }
        let mut options = Options::default();
        for token in headers.get_all(&CONNECTION).flat_map(tokens) {
            options.read(token);
        }
        let upgrade = headers
            .get(&UPGRADE)
            .filter(|_| options.upgrade)
            .and_then(|value| value.to_str().ok());
        let upgrade = upgrade
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty());
        let trailers = headers
            .get_all(&TE)
            .flat_map(tokens)
            .any(|token| token.eq_ignore_ascii_case("trailers"));
        headers.retain(|name, _| !is_hop_by_hop(name) && !options.named.contains(name));
        if trailers {
            headers.append(TE, FieldValue::from_static("trailers"));
        }
        let keep_alive = if version == Version::HTTP_11 {
            !options.close
        } else {
            options.keep_alive && !options.close
        };
        Self {
            keep_alive,
            upgrade,
        }
    }
}

/// What the Connection header says.
#[derive(Default)]
struct Options {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    named: Vec<HeaderName>,
}

impl Options {
    fn read(&mut self, token: &str) {
        let is = |word: &str| token.eq_ignore_ascii_case(word);
        if is("close") {
            self.close = true;
        } else if is("keep-alive") {
            self.keep_alive = true;
        } else if is("upgrade") {
            self.upgrade = true;
        } else if !is("content-length") && !is("host") {
            // Framing is decided already, and the decision must not lose its header.
            self.named.extend(HeaderName::from_bytes(token.as_bytes()));
        }
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == CONNECTION
        || *name == TRANSFER_ENCODING
        || *name == UPGRADE
        || *name == TE
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
}

/// The comma-separated members of a value.
fn tokens(value: &FieldValue) -> impl Iterator<Item = &str> {
    let members = value.to_str().unwrap_or_default().split(',');
    members.map(str::trim).filter(|token| !token.is_empty())
}
