//! From the syntax of HTTP/1 to the heads that the rest of the proxy speaks: framing decided,
//! hop-by-hop fields taken away.

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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Reading<ReceivedRequest> {
        receive_request(&mut BytesMut::from(text), &Limits::default())
    }

    /// One line for each request: what it was read as, or why it was refused.
    fn check(text: &str, expect: &str) {
        let seen = match read(text) {
            Ok(None) => "more".to_owned(),
            Ok(Some(request)) => {
                let head = &request.head;
                let names: Vec<&str> = head.headers.names().map(HeaderName::as_str).collect();
                format!(
                    "{} {} {} {:?} keep={} up={:?} [{}]",
                    head.method,
                    head.authority.as_deref().unwrap_or("-"),
                    head.path,
                    request.body,
                    request.keep_alive,
                    head.upgrade,
                    names.join(" ")
                )
            }
            Err(Refusal::Malformed(reason)) => format!("malformed: {reason}"),
            Err(Refusal::TooLarge(reason)) => format!("too large: {reason}"),
            Err(refusal @ Refusal::TargetTooLarge) => format!("too large: {refusal}"),
        };
        assert_eq!(seen, expect, "{text:?}");
    }

    #[test]
    fn requests() {
        check("GET / HTTP/1.1\r\nHost: a\r\n", "more");
        check("GET / HTTP/1.1\r\nHost: a\r\n\r", "more");
        check(
            "GET /x?y=1 HTTP/1.1\r\nHost: a:80\r\n\r\n",
            "GET a:80 /x?y=1 None keep=true up=None []",
        );
        check(
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a / None keep=true up=None []",
        );
        check(
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET b / None keep=true up=None []",
        );
        check(
            "GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET b /?q None keep=true up=None []",
        );
        check(
            "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n",
            "CONNECT b:443  None keep=true up=None []",
        );
        check(
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS a * None keep=true up=None []",
        );
        check(
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET a / None keep=true up=None []",
        );
        check(
            "GET / HTTP/1.0\r\n\r\n",
            "GET - / None keep=false up=None []",
        );
        check(
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "GET - / None keep=true up=None []",
        );
        check(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            "POST a / Exactly(5) keep=true up=None [content-length]",
        );
        check(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nTE: trailers, deflate\r\n\r\n",
            "POST a / Chunked keep=true up=None [te]",
        );
        check(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\nKeep-Alive: 5\r\n\r\n",
            "GET a / None keep=false up=None [x-end]",
        );
        check(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET a / None keep=true up=Some(\"websocket\") []",
        );
        check(
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET a / None keep=false up=None []",
        );
        check(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
            "GET a / None keep=true up=None []",
        );
    }

    #[test]
    fn refusals() {
        let malformed = |text: &str, reason: &str| check(text, &format!("malformed: {reason}"));
        malformed("GET / HTTP/1.1\nHost: a\n\n", "a line ends with a bare LF");
        malformed("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", "a bare CR");
        malformed(
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            "a folded header line (obs-fold)",
        );
        malformed(
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "a header name is not a token",
        );
        malformed(
            "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
            "a header name is not a token",
        );
        malformed(
            "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
            "a header value holds a control character",
        );
        malformed(
            "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
            "a header line without a colon",
        );
        malformed("GET / HTTP/1.1\r\n\r\n", "no Host header");
        malformed(
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "several Host headers",
        );
        malformed(
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "the authority is not HOST or HOST:PORT",
        );
        malformed(
            "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
            "the authority is not HOST or HOST:PORT",
        );
        malformed(
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "the authority holds user information",
        );
        malformed(
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "the request line is not METHOD SP TARGET SP VERSION",
        );
        malformed(
            "GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n",
            "the request target holds a byte that is no visible ASCII",
        );
        malformed(
            "GET /#f HTTP/1.1\r\nHost: a\r\n\r\n",
            "the request target holds a fragment",
        );
        malformed(
            "GET x HTTP/1.1\r\nHost: a\r\n\r\n",
            "the request target has no known form",
        );
        malformed(
            "GET ftp://x/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "the request target's scheme is neither http nor https",
        );
        for version in ["HTTP/2.0", "HTTP/1.10", "HTTP/1.x", "HTTP/1.", "http/1.1"] {
            malformed(
                &format!("GET / {version}\r\nHost: a\r\n\r\n"),
                "the version is not one of HTTP/1",
            );
        }
        malformed(
            "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "the method is not a token",
        );
        let with = |headers: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
        malformed(
            &with("Content-Length: 1\r\nTransfer-Encoding: chunked"),
            "both Content-Length and Transfer-Encoding",
        );
        malformed(
            &with("Content-Length: 1\r\nContent-Length: 1"),
            "several Content-Length headers",
        );
        for length in ["+1", "-1", "1,1", "0x1", "1 1", "", "99999999999999999999"] {
            malformed(
                &with(&format!("Content-Length: {length}")),
                "the Content-Length is not a number",
            );
        }
        for coding in [
            "xchunked",
            "chunked, identity",
            "identity",
            "gzip, chunked",
            "chunked\r\nTransfer-Encoding: x",
        ] {
            malformed(
                &with(&format!("Transfer-Encoding: {coding}")),
                "a Transfer-Encoding other than chunked",
            );
        }
        malformed(
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding in HTTP/1.0",
        );
        let large = "x".repeat(70_000);
        check(
            &with(&format!("X: {large}")),
            "too large: the header section is too large",
        );
        check(
            &format!("GET / HTTP/1.1\r\nX: {large}"),
            "too large: the header section is too large",
        );
        check(
            &format!("GET /{large} HTTP/1.1\r\nHost: a\r\n\r\n"),
            "too large: the request target is too large",
        );
        check(
            &format!("GET /{large}"),
            "too large: the request target is too large",
        );
        check(
            &with("X: y\r\n".repeat(300).trim_end()),
            "too large: too many header fields",
        );
    }

    #[test]
    fn responses() {
        let check = |text: &str, method: Method, expect: Result<(u16, BodyLength, bool), ()>| {
            let read = receive_response(&mut BytesMut::from(text), &method, &Limits::default());
            let seen = read
                .map(|r| r.expect("complete"))
                .map(|r| (r.head.status.as_u16(), r.body, r.keep_alive));
            assert_eq!(seen.map_err(drop), expect, "{text:?}");
        };
        let close = BodyLength::UntilClose;
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            Method::GET,
            Ok((200, BodyLength::Exactly(2), true)),
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            Method::HEAD,
            Ok((200, BodyLength::None, true)),
        );
        check("HTTP/1.1 200\r\n\r\n", Method::GET, Ok((200, close, false)));
        check(
            "HTTP/1.0 200 OK\r\n\r\n",
            Method::GET,
            Ok((200, close, false)),
        );
        check(
            "HTTP/1.1 204 No\r\n\r\n",
            Method::GET,
            Ok((204, BodyLength::None, true)),
        );
        check(
            "HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n",
            Method::GET,
            Ok((304, BodyLength::None, true)),
        );
        check(
            "HTTP/1.1 103 Early\r\nLink: x\r\n\r\n",
            Method::GET,
            Ok((103, BodyLength::None, true)),
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            Method::GET,
            Err(()),
        );
        check(
            "HTTP/1.2 200 OK\r\nContent-Length \t: 2\r\n\r\n",
            Method::GET,
            Ok((200, BodyLength::Exactly(2), true)),
        );
        check("HTTP/1.1 200 OK\r\n : 2\r\n\r\n", Method::GET, Err(()));
        check("HTTP/1.1 200 OK\r\nA b : 2\r\n\r\n", Method::GET, Err(()));
        check("HTTP/1.1 2000 OK\r\n\r\n", Method::GET, Err(()));
        check("SSH-2.0-x\r\n\r\n", Method::GET, Err(()));
    }
}
