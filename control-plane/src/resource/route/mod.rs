//! Routes of Gateway API with a Service as their parent: `HTTPRoute`, `GRPCRoute`, `TLSRoute` and
//! `TCPRoute`. They differ in what their rules match and may change; the rest is one.

mod backend;
mod decode;
mod filters;
mod json;
mod matches;
mod policy;

pub(super) use policy::session_persistence;

use std::time::Duration;

pub(super) use decode::GATEWAY_GROUP;
pub(super) use decode::decode;
pub(super) use matches::{header_name, one_of, route_match};

use super::{Kind, Metadata, duration};

/// Parents of a route; more are refused (Gateway API's limit).
pub const PARENT_REFS_MAX: usize = 32;
/// Host names of a route; more are refused (Gateway API's limit for HTTPRoute and GRPCRoute).
pub const HOSTNAMES_MAX: usize = 16;
/// Rules of a route; more are refused (Gateway API's limit).
pub const RULES_MAX: usize = 16;
/// Matches of a rule; more are refused (Gateway API's limit).
pub const MATCHES_MAX: usize = 64;
/// Matches of a route, all rules together; more are refused (Gateway API's limit).
pub const ROUTE_MATCHES_MAX: usize = 128;
/// Headers, or query parameters, of a match; more are refused (Gateway API's limit).
pub const HEADERS_MAX: usize = 16;
/// Filters of a rule or a backend; more are refused (Gateway API's limit).
pub const FILTERS_MAX: usize = 16;
/// Headers that one filter sets, adds or removes; more are refused (Gateway API's limit).
pub const MODIFIED_MAX: usize = 16;
/// Origins, methods or headers of a CORS filter; more are refused (Gateway API's limit).
pub const CORS_LIST_MAX: usize = 64;
/// Backends of a rule; more are refused (Gateway API's limit).
pub const BACKEND_REFS_MAX: usize = 16;
/// Weight of a backend; a larger one is refused (Gateway API's limit).
pub const WEIGHT_MAX: i64 = 1_000_000;
/// Bytes of a path to match; a longer one is refused (Gateway API's limit).
pub const PATH_BYTES_MAX: usize = 1024;
/// Bytes of a header or parameter value; a longer one is refused (Gateway API's limit).
pub const VALUE_BYTES_MAX: usize = 4096;
/// Memory that one compiled expression may take; one that needs more is refused.
pub const REGEX_COMPILED_BYTES_MAX: usize = 256 << 10;
/// Status codes that a retry names; more are refused.
pub const RETRY_CODES_MAX: usize = 64;

/// How connections or requests to a service are told apart and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub kind: RouteKind,
    pub metadata: Metadata,
    /// Services only; parents of other kinds are left out with a notice.
    pub parent_refs: Vec<ParentRef>,
    /// In lower case, each once. Of a TLSRoute server names. Empty: any.
    pub hostnames: Vec<String>,
    /// In the document's order.
    pub rules: Vec<RouteRule>,
}

/// Which kind a route is of, the most specific first: of several that are attached to one port those
/// of the first kind take effect (GEP-1294).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    Grpc,
    Http,
    Tls,
    Tcp,
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
pub struct RouteRule {
    pub name: Option<String>,
    /// Never empty: a rule without matches has the one that Gateway API defaults to, everything.
    pub matches: Vec<RouteMatch>,
    pub filters: Vec<Filter>,
    /// Empty: requests are answered with 500, as Gateway API says, unless a filter answers them.
    pub backend_refs: Vec<BackendRef>,
    pub timeouts: Timeouts,
    pub retry: Option<Retry>,
    pub session_persistence: Option<SessionPersistence>,
}

/// All of it must be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    pub kind: MatchKind,
    /// Names in lower case, each once.
    pub headers: Vec<ValueMatch>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchKind {
    Http {
        path: PathMatch,
        method: Option<String>,
        /// Each name once.
        query: Vec<ValueMatch>,
    },
    Grpc(GrpcMethodMatch),
    /// Every connection.
    Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    Exact(String),
    /// By element: `/a` is a prefix of `/a/b` and not of `/ab`.
    Prefix(String),
    /// The whole path must match; the expression is known to compile.
    Regex(String),
}

/// Which methods of which services; all where both are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcMethodMatch {
    pub is_regex: bool,
    pub service: Option<String>,
    pub method: Option<String>,
}

/// A header or a query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueMatch {
    pub name: String,
    pub value: TextMatch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextMatch {
    Exact(String),
    /// The whole value must match; the expression is known to compile.
    Regex(String),
}

/// What a rule or a backend changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    RequestHeaderModifier(HeaderModifier),
    ResponseHeaderModifier(HeaderModifier),
    RequestRedirect(RequestRedirect),
    UrlRewrite(UrlRewrite),
    RequestMirror(RequestMirror),
    Cors(Cors),
}

/// No name is there twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    pub set: Vec<(String, String)>,
    pub add: Vec<(String, String)>,
    pub remove: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRedirect {
    pub scheme: Option<String>,
    pub hostname: Option<String>,
    pub path: Option<PathModifier>,
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status_code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlRewrite {
    pub hostname: Option<String>,
    pub path: Option<PathModifier>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    Full(String),
    Prefix(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestMirror {
    /// Its weight and filters mean nothing.
    pub backend: BackendRef,
    /// This many of [`denominator`](Self::denominator) requests.
    pub numerator: u32,
    /// Never 0.
    pub denominator: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    pub allow_origins: Vec<String>,
    pub allow_credentials: bool,
    pub allow_methods: Vec<String>,
    pub allow_headers: Vec<String>,
    pub expose_headers: Vec<String>,
    pub max_age_seconds: u32,
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
    pub filters: Vec<Filter>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendKind {
    Service,
    /// `GROUP/KIND`; does not resolve (reason `InvalidKind`).
    Other(String),
}

/// Absent: no limit. Never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    pub request: Option<Duration>,
    pub backend_request: Option<Duration>,
}

/// Gateway API's HTTPRouteRetry, kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// 400 to 599, in the document's order.
    pub codes: Vec<u16>,
    pub attempts: Option<u32>,
    pub backoff: Option<Duration>,
}

/// Gateway API's SessionPersistence, kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPersistence {
    pub session_name: Option<String>,
    /// Cookie where the document says nothing, else Header.
    pub by_header: bool,
    pub absolute_timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    /// A cookie that outlives the browser's session.
    pub permanent: bool,
}

impl SessionPersistence {
    /// With the name that clients know it by: its own, or else `given`.
    pub fn named(&self, given: impl FnOnce() -> String) -> (String, Self) {
        let name = self.session_name.clone().unwrap_or_else(given);
        (name, self.clone())
    }
}

impl RouteKind {
    /// Every kind, the most specific first.
    pub const ALL: [Self; 4] = [Self::Grpc, Self::Http, Self::Tls, Self::Tcp];

    /// The kind of object that it is.
    pub fn object_kind(self) -> Kind {
        match self {
            Self::Grpc => Kind::GrpcRoute,
            Self::Http => Kind::HttpRoute,
            Self::Tls => Kind::TlsRoute,
            Self::Tcp => Kind::TcpRoute,
        }
    }

    /// Whether its rules see requests; those of the others see connections.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Grpc | Self::Http)
    }
}

impl Route {
    /// Every backend, those that are mirrored to included.
    pub fn backends(&self) -> impl Iterator<Item = &BackendRef> {
        self.rules.iter().flat_map(RouteRule::backends)
    }
}

impl RouteRule {
    /// Its backends, and those that requests are mirrored to.
    pub fn backends(&self) -> impl Iterator<Item = &BackendRef> {
        let filters = self.backend_refs.iter().map(|backend| &backend.filters);
        let filters = [&self.filters].into_iter().chain(filters).flatten();
        let mirrors = filters.filter_map(|filter| match filter {
            Filter::RequestMirror(mirror) => Some(&mirror.backend),
            _ => None,
        });
        self.backend_refs.iter().chain(mirrors)
    }
}
