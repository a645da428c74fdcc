//! What discovery says of a service or an address.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Endpoint, Protocol, ServiceName};

/// A service as its clients see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: ServiceName,
    /// One of each family at most; none when headless or external.
    pub virtual_ips: Vec<IpAddr>,
    pub ports: Vec<Port>,
    pub headless: bool,
    /// The DNS name that a service of type ExternalName stands for.
    pub external_name: Option<String>,
    /// What DNS answers for a headless service.
    pub endpoint_addresses: Vec<IpAddr>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    pub port: u16,
    pub name: String,
    /// Where the document names it (`appProtocol`); detected otherwise.
    pub protocol: Option<Protocol>,
}

/// Whose an address is.
#[derive(Clone, Debug, PartialEq)]
pub enum Address {
    /// A service's virtual IP.
    Service(ServiceName),
    /// A workload's own application port.
    Endpoint(Arc<Endpoint>),
}
