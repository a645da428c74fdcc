//! What users write: documents in Kubernetes' shape and Gateway API's words, parsed and validated
//! into typed values, or refused with a list of problems that each name file, document, field and
//! reason.

mod endpoint_slice;
mod http_route;
mod object;
mod parse;
mod references;
mod service;

pub use endpoint_slice::{
    AddressType, EndpointPort, EndpointSlice, SERVICE_NAME_LABEL, SliceEndpoint,
};
pub use http_route::{
    BackendKind, BackendRef, HeaderMatch, HeaderValueMatch, HttpRoute, HttpRouteMatch,
    HttpRouteRule, HttpRouteSpec, ParentRef, PathMatch,
};
pub use object::{Key, Kind, Metadata, Resource};
pub use parse::{Origin, Parsed, Problem, Source, parse};
pub use references::check_references;
pub use service::{AppProtocol, Service, ServiceKind, ServicePort, ServiceSpec, TargetPort};
