//! The names by which proxies ask for resources.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// A service: `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// A port of a service: `NAMESPACE/NAME:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    pub service: ServiceName,
    pub port: u16,
}

/// A resource that a proxy can subscribe to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    TrustBundle(String),
    /// `self` of the workload of this instance.
    Inbound(Arc<str>),
    Service(ServiceName),
    Address(SocketAddr),
    /// As clients of a namespace see it: their own routes come before the service's.
    Route {
        of: ServicePort,
        client: Arc<str>,
    },
    Cluster(ServicePort),
    /// A type or a form of name that means nothing here, as it was sent: always absent.
    Unknown {
        kind: i32,
        text: String,
    },
}

impl ServiceName {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Its name at one of its ports.
    pub fn port(&self, port: u16) -> ServicePort {
        ServicePort {
            service: self.clone(),
            port,
        }
    }

    /// Reads `NAMESPACE/NAME`.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        let valid = |part: &str| !part.is_empty() && part.len() <= 253 && !part.contains('/');
        (valid(namespace) && valid(name)).then(|| Self::new(namespace, name))
    }
}

impl ServicePort {
    /// Reads `NAMESPACE/NAME:PORT`.
    pub fn parse(text: &str) -> Option<Self> {
        let (service, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some(ServiceName::parse(service)?.port(port))
    }
}

impl Name {
    /// The service that the resource is of.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Name::Service(name) => Some(name),
            Name::Route { of: name, .. } | Name::Cluster(name) => Some(&name.service),
            _ => None,
        }
    }

    /// The word for its type, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Name::TrustBundle(_) => "trust bundle",
            Name::Inbound(_) => "inbound",
            Name::Service(_) => "service",
            Name::Address(_) => "address",
            Name::Route { .. } => "route",
            Name::Cluster(_) => "cluster",
            Name::Unknown { .. } => "unknown",
        }
    }

    /// The name as it goes over the wire.
    pub fn text(&self) -> String {
        match self {
            Name::TrustBundle(domain) => domain.clone(),
            Name::Inbound(_) => "self".to_owned(),
            Name::Service(name) => name.to_string(),
            Name::Address(address) => address.to_string(),
            Name::Route { of: name, .. } | Name::Cluster(name) => name.to_string(),
            Name::Unknown { text, .. } => text.clone(),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.text())
    }
}
