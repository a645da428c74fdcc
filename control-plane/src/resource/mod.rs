//! What users write: documents in Kubernetes' shape and Gateway API's words, parsed and validated
//! into typed values, or refused with a list of problems that each name file, document, field and
//! reason.

mod endpoint_slice;
mod fields;
mod http_route;
mod http_route_decode;
mod metadata;
mod names;
mod object;
mod parse;
mod references;
mod service;
#[cfg(test)]
mod tests;
mod tree;

pub use endpoint_slice::{
    AddressType, EndpointPort, EndpointSlice, SERVICE_NAME_LABEL, SliceEndpoint,
};
pub use http_route::{
    BackendKind, BackendRef, HeaderMatch, HeaderValueMatch, HttpRoute, HttpRouteMatch,
    HttpRouteRule, HttpRouteSpec, ParentRef, PathMatch, REGEX_COMPILED_BYTES_MAX,
};
pub use object::{Key, Kind, Metadata, Resource};
pub use parse::{
    Origin, PROBLEMS_MAX, Parsed, Problem, SOURCE_BYTES_MAX, SOURCES_BYTES_MAX, Source,
    from_stored, parse,
};
pub use references::check_references;
pub use service::{AppProtocol, Service, ServiceKind, ServicePort, ServiceSpec, TargetPort};
