//! What proxies get, as plain values; `grpc::encode` turns them into messages.

use std::net::IpAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use weft_proto::spiffe::SpiffeId;

use super::{ServiceName, ServicePort};
use crate::resource::{
    AppProtocol, CircuitBreaker, Cors, FaultInjectionPolicy, HeaderModifier, HealthCheck, Hedging,
    InboundPolicy, LoadBalancing, OutlierDetection, PathMatch, RequestRedirect, Retry,
    RetryConstraint, SessionPersistence, SubjectAltName, Timeouts, UnknownDestinations, UrlRewrite,
    ValueMatch,
};

/// One resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Configuration {
    Service(Service),
    Address(Address),
    Route(Route),
    Cluster(Cluster),
    Inbound(Inbound),
    TrustBundle {
        trust_domain: String,
        roots: Vec<CertificateDer<'static>>,
    },
}

/// What applications speak, where a document says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    Tcp,
    Tls,
}

/// A service as its clients see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: ServiceName,
    pub virtual_ips: Vec<IpAddr>,
    pub ports: Vec<Port>,
    pub headless: bool,
    pub external_name: Option<String>,
    pub endpoint_addresses: Vec<IpAddr>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    pub port: u16,
    pub name: String,
    pub protocol: Option<Protocol>,
}

/// Whose an address is.
#[derive(Clone, Debug, PartialEq)]
pub enum Address {
    /// A service's virtual IP.
    Service(ServiceName),
    /// A workload's own application port.
    Endpoint(Endpoint),
}

/// What is attached to a port of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub name: ServicePort,
    pub protocol: Option<Protocol>,
    /// Of HTTPRoutes or GRPCRoutes, in the order of precedence.
    pub rules: Vec<Rule>,
    pub default_cluster: ServicePort,
    /// Of TLSRoutes, in the order of precedence.
    pub tls_rules: Vec<TlsRule>,
    /// Of a TCPRoute.
    pub tcp: Option<TcpRule>,
}

/// A TLSRoute, for one of its host names.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsRule {
    /// `TLSRoute/NAMESPACE/NAME`
    pub route: String,
    /// Empty: any.
    pub hostname: String,
    pub backends: Vec<WeightedCluster>,
}

/// A TCPRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpRule {
    /// `TCPRoute/NAMESPACE/NAME`
    pub route: String,
    pub backends: Vec<WeightedCluster>,
}

/// One match of one rule of an HTTPRoute or a GRPCRoute, for one of its host names.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// `HTTPRoute/NAMESPACE/NAME` or `GRPCRoute/NAMESPACE/NAME`
    pub route: String,
    pub rule: u32,
    pub rule_name: Option<String>,
    pub match_index: u32,
    pub matches: RuleMatch,
    pub filters: Vec<Filter>,
    pub timeouts: Timeouts,
    pub retry: Option<Retry>,
    /// With the name that clients know it by.
    pub session: Option<(String, SessionPersistence)>,
    pub faults: Option<Arc<FaultInjectionPolicy>>,
    pub backends: Vec<WeightedCluster>,
}

/// All of it must be true.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleMatch {
    /// Empty: any.
    pub hostname: String,
    /// Absent: any.
    pub path: Option<PathMatch>,
    pub method: Option<String>,
    pub headers: Vec<ValueMatch>,
    pub query: Vec<ValueMatch>,
}

/// What a rule or a backend changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    RequestHeaders(HeaderModifier),
    ResponseHeaders(HeaderModifier),
    Redirect(RequestRedirect),
    Rewrite(UrlRewrite),
    Mirror(Mirror),
    Cors(Cors),
}

/// Where copies of requests go.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    pub cluster: ServicePort,
    /// Why the reference does not resolve.
    pub invalid: Option<String>,
    pub numerator: u32,
    pub denominator: u32,
}

/// A backend and its share.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedCluster {
    pub cluster: ServicePort,
    pub weight: u32,
    /// Why the reference does not resolve.
    pub invalid: Option<String>,
    pub filters: Vec<Filter>,
}

/// The endpoints behind a port of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    pub name: ServicePort,
    pub protocol: Option<Protocol>,
    /// Ordered by ID.
    pub endpoints: Vec<Endpoint>,
    /// TLS that the proxy speaks to endpoints without a sidecar.
    pub tls: Option<Box<BackendTls>>,
    /// What policies say of it; absent where none does.
    pub policy: Option<Box<ClusterPolicy>>,
    /// How many there are beyond [`ENDPOINTS_MAX`](super::ENDPOINTS_MAX), which nobody is told of.
    pub left_out: usize,
}

/// How a cluster is called, as the policies in force say it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterPolicy {
    /// `KIND/NAMESPACE/NAME`
    pub names: Vec<String>,
    pub balancing: Option<LoadBalancing>,
    pub outliers: Option<OutlierDetection>,
    pub breaker: Option<CircuitBreaker>,
    pub health_check: Option<HealthCheck>,
    pub hedging: Option<Hedging>,
    pub retries: Option<RetryConstraint>,
    /// Name of the cookie or header, and the rest.
    pub session: Option<(String, SessionPersistence)>,
    pub faults: Option<Arc<FaultInjectionPolicy>>,
}

/// A BackendTLSPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendTls {
    /// `BackendTLSPolicy/NAMESPACE/NAME`
    pub policy: String,
    pub hostname: String,
    /// Empty: the roots of the proxy's system.
    pub roots: Vec<CertificateDer<'static>>,
    pub subject_alt_names: Vec<SubjectAltName>,
    /// Why it can't be enforced: no connection is made then.
    pub invalid: Option<String>,
}

/// One place that serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// `INSTANCE:PORT` or `IP:PORT`.
    pub id: String,
    pub address: IpAddr,
    pub port: u16,
    pub weight: u32,
    pub zone: Arc<str>,
    pub workload: Arc<str>,
    pub namespace: String,
    pub sidecar: Option<Sidecar>,
}

/// The sidecar of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Sidecar {
    pub spiffe_id: SpiffeId,
    pub instance: Arc<str>,
    pub inbound_port: u16,
}

/// What a proxy has to know of its own workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    /// Ordered by port.
    pub ports: Vec<InboundPort>,
    /// What becomes of its calls to what is no service; absent: the default.
    pub unknown_destinations: Option<UnknownDestinations>,
    /// `OutboundPolicy/NAMESPACE/NAME` that says so.
    pub outbound_policy: Option<String>,
}

/// An application port that services point at.
#[derive(Clone, Debug, PartialEq)]
pub struct InboundPort {
    pub port: u16,
    pub protocol: Option<Protocol>,
    pub services: Vec<ServiceName>,
    /// Of the first of them that has one.
    pub policy: Option<Arc<InboundPolicy>>,
}

impl Protocol {
    /// What an `appProtocol` means; one that says nothing to weft is detected.
    pub fn of(name: Option<&AppProtocol>) -> Option<Self> {
        match name? {
            AppProtocol::Http(_) => Some(Self::Http1),
            AppProtocol::Http2(_) => Some(Self::Http2),
            AppProtocol::Tcp => Some(Self::Tcp),
            AppProtocol::Tls(_) => Some(Self::Tls),
            AppProtocol::Other(_) => None,
        }
    }
}
