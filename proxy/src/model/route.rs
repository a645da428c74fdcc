//! Which request goes where.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use regex::Regex;

use super::{Faults, Filter, Protocol, Retry, Rules, ServicePort, SessionPersistence, Text};

/// Everything that is attached to one port of a service.
#[derive(Clone, Debug)]
pub struct Route {
    pub name: ServicePort,
    pub protocol: Option<Protocol>,
    /// Of HTTPRoutes or GRPCRoutes, in the order of precedence: the first that matches serves. Empty
    /// when none is attached; then everything goes to `default_cluster`.
    pub rules: Rules,
    pub default_cluster: ServicePort,
    /// Of TLSRoutes, in the order of precedence. Not empty: what none of them takes is refused.
    pub tls_rules: Vec<TlsRule>,
    /// A TCPRoute: every connection is opaque bytes.
    pub tcp: Option<TcpRule>,
}

/// A TLSRoute, for one of its host names.
#[derive(Clone, Debug)]
pub struct TlsRule {
    /// `TLSRoute/NAMESPACE/NAME`
    pub route: Arc<str>,
    /// Absent: any, and clients that name none.
    pub hostname: Option<HostMatch>,
    pub backends: Vec<WeightedCluster>,
}

/// A TCPRoute.
#[derive(Clone, Debug)]
pub struct TcpRule {
    /// `TCPRoute/NAMESPACE/NAME`
    pub route: Arc<str>,
    pub backends: Vec<WeightedCluster>,
}

/// One match of one rule of an HTTPRoute or a GRPCRoute, for one of the route's host names.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `HTTPRoute/NAMESPACE/NAME` or `GRPCRoute/NAMESPACE/NAME`
    pub route: Arc<str>,
    /// The same, as the other sidecar is told it.
    pub hop_route: Text,
    /// From 0, as in the document.
    pub rule: u32,
    pub rule_name: Option<String>,
    /// From 0, within the rule.
    pub match_index: u32,
    pub matches: RouteMatch,
    /// Applied before those of the backend.
    pub filters: Vec<Filter>,
    /// From the request's head to the end of its answer, whatever is tried in between.
    pub request_timeout: Option<Duration>,
    /// The same for one attempt.
    pub backend_request_timeout: Option<Duration>,
    /// When it is sent again, besides what is safe anyway.
    pub retry: Option<Retry>,
    /// How requests of one session find their endpoint again.
    pub session: Option<SessionPersistence>,
    /// Before those of the cluster.
    pub faults: Faults,
    pub backends: Vec<WeightedCluster>,
}

/// All of it must hold (GEP-713: a match ANDs its parts).
#[derive(Clone, Debug, Default)]
pub struct RouteMatch {
    /// Absent: any host.
    pub hostname: Option<HostMatch>,
    /// Absent: any path.
    pub path: Option<PathMatch>,
    /// Absent: any method.
    pub method: Option<Method>,
    pub headers: Vec<HeaderMatch>,
    pub query: Vec<QueryMatch>,
}

/// A host, without its port and in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMatch {
    Exact(String),
    /// `*.example.com`, kept from the dot on: one or more labels stand before it.
    Below(String),
}

/// How a path is matched; the query is no part of it.
#[derive(Clone, Debug)]
pub enum PathMatch {
    Exact(String),
    /// By element: `/a` matches `/a` and `/a/b`, not `/ab`.
    Prefix(String),
    /// Of the whole path.
    Regex(Regex),
}

/// One header that must be there.
#[derive(Clone, Debug)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: TextMatch,
}

/// One query parameter that must be there; of several of one name the first counts. Name and value are
/// compared after percent-decoding.
#[derive(Clone, Debug)]
pub struct QueryMatch {
    pub name: String,
    pub value: TextMatch,
}

/// How a value is matched, as a whole.
#[derive(Clone, Debug)]
pub enum TextMatch {
    Exact(String),
    Regex(Regex),
}

/// A backend and its share.
#[derive(Clone, Debug)]
pub struct WeightedCluster {
    pub cluster: ServicePort,
    pub weight: u32,
    /// Why the reference doesn't resolve; its share is answered with 500.
    pub invalid: Option<String>,
    pub filters: Vec<Filter>,
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}
