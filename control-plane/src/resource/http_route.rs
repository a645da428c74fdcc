//! `HTTPRoute` (gateway.networking.k8s.io) with a Service as its parent.

use super::Metadata;

/// Parents of a route; more are refused (Gateway API's limit).
pub const PARENT_REFS_MAX: usize = 32;
/// Rules of a route; more are refused (Gateway API's limit).
pub const RULES_MAX: usize = 16;
/// Matches of a rule; more are refused (Gateway API's limit).
pub const MATCHES_MAX: usize = 64;
/// Headers of a match; more are refused (Gateway API's limit).
pub const HEADERS_MAX: usize = 16;
/// Backends of a rule; more are refused (Gateway API's limit).
pub const BACKEND_REFS_MAX: usize = 16;
/// Weight of a backend; a larger one is refused (Gateway API's limit).
pub const WEIGHT_MAX: i64 = 1_000_000;
/// Bytes of a path to match; a longer one is refused (Gateway API's limit).
pub const PATH_BYTES_MAX: usize = 1024;
/// Bytes of a header value to match; a longer one is refused (Gateway API's limit).
pub const HEADER_VALUE_BYTES_MAX: usize = 4096;
/// Memory that one compiled expression may take; one that needs more is refused.
pub const REGEX_COMPILED_BYTES_MAX: usize = 256 << 10;

/// How requests to a service are told apart and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRoute {
    pub metadata: Metadata,
    pub spec: HttpRouteSpec,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRouteSpec {
    /// Services only; parents of other kinds are left out with a notice.
    pub parent_refs: Vec<ParentRef>,
    /// In the document's order.
    pub rules: Vec<HttpRouteRule>,
}

/// A Service whose traffic the route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// The route's own where the document names none.
    pub namespace: String,
    pub name: String,
    /// All ports where neither this nor `section_name` is given.
    pub port: Option<u16>,
    /// The name of a port.
    pub section_name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRouteRule {
    pub name: Option<String>,
    /// Never empty: a rule without matches has the one that Gateway API defaults to, prefix `/`.
    pub matches: Vec<HttpRouteMatch>,
    /// Empty: requests are answered with 500, as Gateway API says.
    pub backend_refs: Vec<BackendRef>,
}

/// All of it must be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRouteMatch {
    pub path: PathMatch,
    pub method: Option<String>,
    /// Names in lower case, each once.
    pub headers: Vec<HeaderMatch>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    Exact(String),
    /// By element: `/a` is a prefix of `/a/b` and not of `/ab`.
    Prefix(String),
    /// The whole path must match; the expression is known to compile.
    Regex(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    pub name: String,
    pub value: HeaderValueMatch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValueMatch {
    Exact(String),
    /// The whole value must match; the expression is known to compile.
    Regex(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRef {
    pub kind: BackendKind,
    /// The route's own where the document names none.
    pub namespace: String,
    pub name: String,
    /// 0 only where the kind isn't `Service`.
    pub port: u16,
    /// 1 where the document gives none; 0 takes no traffic.
    pub weight: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendKind {
    Service,
    /// `GROUP/KIND`; does not resolve (reason `InvalidKind`).
    Other(String),
}
