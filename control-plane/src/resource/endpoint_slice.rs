//! `EndpointSlice` (discovery.k8s.io/v1): endpoints without a sidecar.

use std::net::IpAddr;

use super::{AppProtocol, Metadata};

/// Names the service that a slice belongs to.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Addresses that serve a service's ports without being workloads of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    pub metadata: Metadata,
    /// The label `kubernetes.io/service-name`; a slice without one belongs to nobody.
    pub service: Option<String>,
    pub address_type: AddressType,
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressType {
    Ipv4,
    Ipv6,
}

/// Which of the service's ports, by name, and the port of the endpoints that serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    pub name: String,
    pub port: u16,
    pub app_protocol: Option<AppProtocol>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// At least one, all of the slice's family. The first is used, as in Kubernetes.
    pub addresses: Vec<IpAddr>,
    /// True where the document doesn't say (EndpointConditions: unknown is to be read as ready).
    pub ready: bool,
    pub zone: Option<String>,
    pub hostname: Option<String>,
}
