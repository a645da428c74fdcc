//! Request and response heads, free of any HTTP version's syntax and of any library's body types.
//! Route, authorization and the stories speak these; `http1` and `http2` translate.

use std::borrow::Cow;

use http::{HeaderName, Method, StatusCode, Version};

use super::{FieldValue, Fields, Kinds, Text};

/// A request without its body.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: Method,
    /// `http` or `https`, where the request said so (absolute form, `:scheme`).
    pub scheme: Option<Text>,
    /// Host with its port if it was given; from `Host`, the absolute form or `:authority`. `Host`
    /// is not among `headers`.
    pub authority: Option<Text>,
    /// Path and query (`/a?b`), or `*`. Empty for CONNECT.
    pub path: Text,
    /// The version that the client spoke.
    pub version: Version,
    /// `Upgrade` (RFC 9110 7.8) or `:protocol` (RFC 8441): the client asks to speak this on.
    pub upgrade: Option<String>,
    /// End-to-end headers only: the hop-by-hop ones are gone (RFC 9110 7.6.1), but for `te: trailers`.
    pub headers: Fields,
}

impl RequestHead {
    /// Whether it asks for something else than an answer: a tunnel, or another protocol on this connection.
    pub fn is_switch(&self) -> bool {
        self.method == Method::CONNECT || self.upgrade.is_some()
    }

    /// Whether it leaves open whom it asks, as HTTP/1.0 may: it asks whoever was called then (RFC 9112 3.3).
    pub fn names_no_host(&self) -> bool {
        self.version == Version::HTTP_10 && self.authority.is_none()
    }

    /// The path without its query.
    pub fn path_only(&self) -> &str {
        let path: &str = &self.path;
        path.split_once('?').map_or(path, |(path, _)| path)
    }

    /// The value of a header, if it is there and is text. Several fields of one name are one list
    /// (RFC 9110 5.3). `host` is the authority.
    pub fn field(&self, name: &HeaderName) -> Option<Cow<'_, str>> {
        if *name == http::header::HOST {
            return self.authority.as_deref().map(Cow::Borrowed);
        }
        let mut values = self
            .headers
            .get_all(name)
            .filter_map(|value| value.to_str().ok());
        let first = values.next()?;
        let rest: Vec<&str> = values.collect();
        Some(if rest.is_empty() {
            first.into()
        } else {
            format!("{first},{}", rest.join(",")).into()
        })
    }

    /// What follows the path's `?`; empty where there is none.
    pub fn query(&self) -> &str {
        self.path.split_once('?').map_or("", |(_, query)| query)
    }

    /// The host that is asked for, without its port.
    pub fn host(&self) -> &str {
        let authority = self.authority.as_deref().unwrap_or_default();
        match authority.rsplit_once(':') {
            // The colons within an IPv6 address are no port's.
            Some((host, port)) if !port.contains(']') => host,
            _ => authority,
        }
    }

    /// Whether a gRPC client sent it, which wants its errors as gRPC statuses.
    pub fn is_grpc(&self) -> bool {
        has_grpc_content(&self.headers)
    }
}

/// Whether the header section of a request is a gRPC client's.
pub fn has_grpc_content(headers: &Fields) -> bool {
    headers.may_have(Kinds::CONTENT_TYPE)
        && headers
            .get(&http::header::CONTENT_TYPE)
            .is_some_and(is_grpc_content)
}

/// Whether a Content-Type is one of gRPC's.
pub fn is_grpc_content(content_type: &FieldValue) -> bool {
    content_type.as_bytes().starts_with(b"application/grpc")
}

/// A response without its body; informational ones too.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    /// The version that the server spoke.
    pub version: Version,
    /// The protocol that a 101 (or a 2xx of RFC 8441) switched to.
    pub upgrade: Option<String>,
    /// End-to-end headers only.
    pub headers: Fields,
}
