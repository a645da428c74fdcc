//! What users write: documents in Kubernetes' shape and Gateway API's words, parsed and validated
//! into typed values, or refused with a list of problems that each name file, document, field and
//! reason.

mod backend_tls_policy;
mod backend_traffic_policy;
mod config_map;
mod duration;
mod endpoint_slice;
mod fault_injection_policy;
mod fields;
mod inbound_policy;
mod metadata;
mod names;
mod object;
mod outbound_policy;
mod parse;
mod policy_target;
mod reference_grant;
mod references;
mod route;
mod selector;
mod service;
#[cfg(test)]
mod tests;
mod traffic_policy;
mod tree;

pub use backend_tls_policy::{BackendRoots, BackendTlsPolicy, CaReference, SubjectAltName};
pub use backend_traffic_policy::{BackendTrafficPolicy, RetryConstraint};
pub use config_map::ConfigMap;
pub use endpoint_slice::{
    AddressType, EndpointPort, EndpointSlice, SERVICE_NAME_LABEL, SliceEndpoint,
};
pub use fault_injection_policy::{Abort, AbortStatus, Delay, FaultInjectionPolicy, InjectedFault};
pub use inbound_policy::{
    Concurrency, Descriptor, DescriptorEntry, DescriptorValue, GlobalRateLimit, InboundPolicy,
    Priority, PriorityRule, RateLimit, RateLimitKey,
};
pub use object::{Key, Kind, Metadata, Resource};
pub use outbound_policy::{OutboundPolicy, PolicyTarget, SYSTEM_NAMESPACE, UnknownDestinations};
pub use parse::{
    Origin, PROBLEMS_MAX, Parsed, Problem, SOURCE_BYTES_MAX, SOURCES_BYTES_MAX, Source,
    from_stored, parse,
};
pub use policy_target::{RouteTarget, ServiceTarget};
pub use reference_grant::{GrantFrom, GrantTo, ReferenceGrant};
pub use references::check_references;
pub use route::{
    BackendKind, BackendRef, Cors, Filter, GrpcMethodMatch, HeaderModifier, MatchKind, ParentRef,
    PathMatch, PathModifier, REGEX_COMPILED_BYTES_MAX, RequestMirror, RequestRedirect, Retry,
    Route, RouteKind, RouteMatch, RouteRule, SessionPersistence, TextMatch, Timeouts, UrlRewrite,
    ValueMatch,
};
pub use selector::{Caller, RequestSelector, RouteReference};
pub use service::{AppProtocol, Service, ServiceKind, ServicePort, ServiceSpec, TargetPort};
pub use traffic_policy::{
    Algorithm, CircuitBreaker, HashKey, HealthCheck, HealthCheckKind, Hedging, LoadBalancing,
    Locality, OutlierDetection, TrafficPolicy,
};
