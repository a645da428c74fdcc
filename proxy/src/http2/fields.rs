//! Header lists as they are read, and the heads that they are (RFC 9113 8.2 and 8.3, RFC 8441).

use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::{Method, StatusCode, Version};

use super::hpack::{Field, Line, Malformed, Name};
use crate::http1::{NO_AUTHORITY, Refusal, check_authority};
use crate::model::{
    FieldValue, Fields, Kinds, RequestHead, ResponseHead, Text, has_grpc_content, is_grpc_content,
};

/// A list this many times larger than the limit is an attack.
const BOMB_FACTOR: usize = 16;

/// A request that is answered with an error right away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub why: Refusal,
    /// Whether a gRPC client sent it, which wants its errors as gRPC statuses.
    pub is_grpc: bool,
    /// Whether it is a HEAD, whose answer has no content (RFC 9110 9.3.2).
    pub is_head: bool,
}

/// A header list that is being read. It is large, so it is read from where it stands, and never moved.
#[derive(Debug)]
pub struct FieldList {
    method: Option<FieldValue>,
    scheme: Option<FieldValue>,
    authority: Option<FieldValue>,
    path: Option<FieldValue>,
    protocol: Option<FieldValue>,
    status: Option<FieldValue>,
    headers: Fields,
    malformed: Option<&'static str>,
    has_regular: bool,
    /// Of the fields that are dropped, one has content of gRPC.
    drops_grpc: bool,
    cookies: u32,
    bytes: usize,
    bytes_max: usize,
    count: usize,
    count_max: usize,
}

impl FieldList {
    /// `bytes_max` counts as RFC 7541 4.1 does; fields beyond either limit are dropped.
    pub fn new(bytes_max: usize, count_max: usize) -> Self {
        Self {
            method: None,
            scheme: None,
            authority: None,
            path: None,
            protocol: None,
            status: None,
            headers: Fields::new(),
            malformed: None,
            has_regular: false,
            drops_grpc: false,
            cookies: 0,
            bytes: 0,
            bytes_max,
            count: 0,
            count_max,
        }
    }

    /// Takes the next field line, whose size is `size`.
    pub fn add(&mut self, line: Result<Line<'_>, Malformed>, size: usize) {
        self.bytes += size;
        self.count += 1;
        if self.is_too_large() {
            // How the refusal is told depends on it, wherever it stands in the list.
            self.drops_grpc |= line.is_ok_and(|line| is_grpc(&line));
            return;
        }
        match line {
            Ok(Line::Indexed(Name::Regular(name, kind), value)) => {
                if self.admit(*kind, value) {
                    self.headers
                        .append_known(name.clone(), *kind, value.clone());
                }
            }
            Ok(Line::Literal(Field {
                name: Name::Regular(name, kind),
                value,
            })) => {
                if self.admit(kind, &value) {
                    self.headers.append_known(name, kind, value);
                }
            }
            Ok(Line::Indexed(pseudo, value)) => self.add_pseudo(pseudo, value),
            Ok(Line::Literal(Field { name, value })) => self.add_pseudo(&name, &value),
            Err(Malformed(why)) => self.refuse(why),
        }
    }

    /// RFC 9113 8.3: each one once, and before all regular fields.
    fn add_pseudo(&mut self, name: &Name, value: &FieldValue) {
        let slot = match name {
            Name::Method => &mut self.method,
            Name::Scheme => &mut self.scheme,
            Name::Authority => &mut self.authority,
            Name::Path => &mut self.path,
            Name::Protocol => &mut self.protocol,
            Name::Status => &mut self.status,
            Name::Regular(..) => return,
        };
        if slot.is_some() || self.has_regular {
            return self.refuse("a pseudo-header field is repeated or after a regular one");
        }
        *slot = Some(value.clone());
    }

    /// Whether a regular field of this kind may stand in a message.
    fn admit(&mut self, kind: Kinds, value: &FieldValue) -> bool {
        self.has_regular = true;
        let is_allowed = match kind {
            Kinds::CONNECTION => false,
            Kinds::TE => value.as_bytes().eq_ignore_ascii_case(b"trailers"),
            _ => true,
        };
        if !is_allowed {
            self.refuse("a field that only HTTP/1 connections have");
        }
        self.cookies += u32::from(kind == Kinds::COOKIE);
        is_allowed
    }

    fn refuse(&mut self, why: &'static str) {
        self.malformed.get_or_insert(why);
    }

    /// Whether a limit is exceeded.
    pub fn is_too_large(&self) -> bool {
        self.bytes > self.bytes_max || self.count > self.count_max
    }

    /// Whether it is larger than any honest mistake.
    pub fn is_bomb(&self) -> bool {
        self.bytes > BOMB_FACTOR * self.bytes_max
    }

    /// The head of a request. The outer error is a malformed message, whose stream is reset
    /// (RFC 9113 8.1.1); the inner one can be answered.
    pub fn take_request(&mut self) -> Result<Result<RequestHead, Refused>, &'static str> {
        if self.is_too_large() {
            let why = Refusal::TooLarge("the header list is too large");
            let is_grpc = self.drops_grpc || has_grpc_content(&self.headers);
            return Ok(Err(self.refused(why, is_grpc)));
        }
        if self.status.is_some() {
            return Err("a request with :status");
        }
        if let Some(why) = self.malformed {
            return Err(why);
        }
        let method = self.method.as_ref().ok_or("a request without :method")?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| ":method is no token")?;
        let upgrade = self.protocol.take();
        if upgrade.is_some() && method != Method::CONNECT {
            return Err(":protocol without CONNECT");
        }
        // RFC 9113 8.5: a tunnel has an authority and nothing else.
        let is_tunnel = method == Method::CONNECT && upgrade.is_none();
        if is_tunnel {
            if self.path.is_some() || self.scheme.is_some() {
                return Err("CONNECT with :scheme or :path");
            }
            if self.authority.is_none() {
                return Err("CONNECT without :authority");
            }
        }
        let path = match self.path.take() {
            None if is_tunnel => Text::default(),
            None => return Err("a request without :path"),
            Some(path) => target(path, &method)?,
        };
        let scheme = match self.scheme.take() {
            None if is_tunnel => None,
            None => return Err("a request without :scheme"),
            Some(scheme) => Some(token(scheme)?),
        };
        let mut headers = std::mem::take(&mut self.headers);
        let authority = match find_authority(self.authority.take(), &mut headers) {
            Ok(authority) => authority,
            Err(why) => return Ok(Err(self.refused(why, has_grpc_content(&headers)))),
        };
        if is_tunnel && authority.is_none() {
            return Err("CONNECT with an empty :authority");
        }
        join_cookies(&mut headers, self.cookies);
        let upgrade = upgrade
            .map(|protocol| token(protocol).map(|token| token.to_string()))
            .transpose()?;
        Ok(Ok(RequestHead {
            // To whoever serves it, an upgrade looks as in HTTP/1.
            method: if upgrade.is_some() {
                Method::GET
            } else {
                method
            },
            scheme,
            authority,
            path,
            version: Version::HTTP_2,
            upgrade,
            headers,
        }))
    }

    fn refused(&self, why: Refusal, is_grpc: bool) -> Refused {
        let method = self.method.as_ref().map(FieldValue::as_bytes);
        Refused {
            why,
            is_grpc,
            is_head: method == Some(Method::HEAD.as_str().as_bytes()),
        }
    }

    /// The head of a response, informational ones too. `upgrade` is the protocol that the request
    /// asked for, if a 2xx means that it is spoken from here on.
    pub fn take_response(&mut self, upgrade: Option<&str>) -> Result<ResponseHead, &'static str> {
        if self.is_too_large() {
            return Err("the header list is too large");
        }
        if let Some(why) = self.malformed {
            return Err(why);
        }
        if self.has_request_fields() {
            return Err("a response with a request's pseudo-header field");
        }
        let status = self.status.as_ref().ok_or("a response without :status")?;
        let status = match status.as_bytes() {
            digits @ [_, _, _] => StatusCode::from_bytes(digits).ok(),
            _ => None,
        };
        let status = status.ok_or(":status is not three digits")?;
        // RFC 9113 8.6: HTTP/2 has no other way to switch than its own.
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err("101 in HTTP/2");
        }
        let upgrade = upgrade.filter(|_| status.is_success()).map(str::to_owned);
        Ok(ResponseHead {
            status,
            version: Version::HTTP_2,
            upgrade,
            headers: std::mem::take(&mut self.headers),
        })
    }

    /// A trailer section (RFC 9113 8.1).
    pub fn take_trailers(&mut self) -> Result<Fields, &'static str> {
        if self.is_too_large() {
            return Err("the trailer section is too large");
        }
        if let Some(why) = self.malformed {
            return Err(why);
        }
        if self.has_request_fields() || self.status.is_some() {
            return Err("a trailer section with a pseudo-header field");
        }
        Ok(std::mem::take(&mut self.headers))
    }

    fn has_request_fields(&self) -> bool {
        self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some()
            || self.protocol.is_some()
    }
}

fn is_grpc(line: &Line<'_>) -> bool {
    match line {
        Line::Indexed(Name::Regular(_, kind), value) => {
            *kind == Kinds::CONTENT_TYPE && is_grpc_content(value)
        }
        Line::Literal(Field {
            name: Name::Regular(_, kind),
            value,
        }) => *kind == Kinds::CONTENT_TYPE && is_grpc_content(value),
        _ => false,
    }
}

/// RFC 9113 8.3.1: a Host that says something else than :authority is a second opinion on where the
/// request goes.
fn find_authority(
    authority: Option<FieldValue>,
    headers: &mut Fields,
) -> Result<Option<Text>, Refusal> {
    let value = match headers.may_have(Kinds::HOST) {
        true => agree_with_host(authority, headers)?,
        false => authority,
    };
    match value {
        Some(value) if !value.is_empty() => {
            let text = Text::from_value(value).map_err(|_| NO_AUTHORITY)?;
            check_authority(text.as_bytes())?;
            Ok(Some(text))
        }
        _ => Ok(None),
    }
}

fn agree_with_host(
    authority: Option<FieldValue>,
    headers: &mut Fields,
) -> Result<Option<FieldValue>, Refusal> {
    if headers.get_all(&HOST).nth(1).is_some() {
        return Err(Refusal::Malformed("several Host headers"));
    }
    let host = headers.remove(&HOST);
    if let (Some(authority), Some(host)) = (&authority, &host)
        && !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes())
    {
        return Err(Refusal::Malformed("Host and :authority differ"));
    }
    Ok(authority.or(host))
}

/// RFC 9113 8.3.1: a path with its query, or `*` for OPTIONS. What could be read in another way once
/// it stands in a request line of HTTP/1 is refused.
fn target(value: FieldValue, method: &Method) -> Result<Text, &'static str> {
    let bytes = value.as_bytes();
    let is_form = bytes.starts_with(b"/") || (bytes == b"*" && *method == Method::OPTIONS);
    let malformed = ":path is neither a path nor *";
    if !is_form || bytes.contains(&b'#') {
        return Err(malformed);
    }
    Text::from_value(value).map_err(|_| malformed)
}

fn token(value: FieldValue) -> Result<Text, &'static str> {
    let malformed = "a pseudo-header field is no token";
    if value.is_empty() {
        return Err(malformed);
    }
    Text::from_value(value).map_err(|_| malformed)
}

/// RFC 9113 8.2.3: cookies that were split for compression are one field again outside HTTP/2.
fn join_cookies(headers: &mut Fields, count: u32) {
    if count < 2 {
        return;
    }
    let values = headers.get_all(&COOKIE);
    let cookies: Vec<&[u8]> = values.map(FieldValue::as_bytes).collect();
    if let Ok(joined) = FieldValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.set(COOKIE, joined);
    }
}

/// The length that a message says its content has (RFC 9113 8.1.1), or why it is malformed.
pub fn content_length(headers: &Fields) -> Result<Option<u64>, &'static str> {
    if !headers.may_have(Kinds::CONTENT_LENGTH) {
        return Ok(None);
    }
    let mut values = headers.get_all(&CONTENT_LENGTH);
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err("several Content-Length fields");
    }
    let digits = first.as_bytes();
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return Err("the Content-Length is not a number");
    }
    let add = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
    Ok(Some(digits.iter().fold(0, add)))
}
