//! Plain data that every room may know. No I/O, no clock, no protobuf: what comes over the wire is
//! turned into these types at the edge (`discovery::decode`) and is valid from then on.

mod chunks;
mod cluster;
mod configuration;
mod endpoints;
mod fault;
mod fields;
mod filter;
pub mod grpc_timeout;
mod head;
pub mod hop;
mod inbound_policy;
mod name;
mod own;
mod policy;
mod protocol;
mod route;
mod rules;
mod service;
mod text;
mod value;

pub(crate) use chunks::Chunks;
pub use cluster::{BackendTls, Cluster, Endpoint, Inbound, InboundPort, Sidecar, SubjectAltName};
pub use configuration::{Configuration, Entry, Known};
pub use endpoints::Endpoints;
pub use fault::{Fault, FaultStatus};
pub use fields::{FieldName, Fields, Kinds};
pub use filter::{
    Cors, Filter, HeaderModifier, Mirror, OriginMatch, PathModifier, Redirect, Rewrite,
};
pub use head::{RequestHead, ResponseHead, has_grpc_content, is_grpc_content};
pub use hop::Hop;
pub use inbound_policy::{
    Caller, Concurrency, Descriptor, DescriptorValue, GlobalRateLimit, InboundPolicy, Priority,
    RateLimit, RateLimitKey, RequestSelector,
};
pub use name::{Host, InvalidName, Name, ServiceName, ServicePort};
pub use own::Own;
pub use policy::{
    Balancing, CircuitBreaker, ClusterPolicy, FaultInjection, Faults, HashKey, HealthCheck,
    HealthCheckKind, Hedging, Locality, OutlierDetection, Retry, RetryBudget, SHARES,
    SessionCarrier, SessionPersistence,
};
pub use protocol::Protocol;
pub use route::{
    HeaderMatch, HostMatch, PathMatch, QueryMatch, Route, RouteMatch, Rule, TcpRule, TextMatch,
    TlsRule, WeightedCluster,
};
pub use rules::Rules;
pub use service::{Address, Port, Service};
pub use text::{NotText, Text};
pub(crate) use value::any_octet;
pub use value::{FieldValue, NotValue};
