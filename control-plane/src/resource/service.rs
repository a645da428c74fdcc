//! `Service` (v1).

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Metadata;

/// A name for a set of workloads, and the ports they are called by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub metadata: Metadata,
    pub spec: ServiceSpec,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    pub kind: ServiceKind,
    /// `clusterIP: None`: no virtual IP, DNS answers the endpoints' addresses.
    pub headless: bool,
    /// One of each family at most. The store allots them where the document names none; empty for
    /// headless and external services.
    pub cluster_ips: Vec<IpAddr>,
    /// Over the labels of workloads of the same namespace. Empty selects none.
    pub selector: BTreeMap<String, String>,
    pub ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    ClusterIp,
    /// `spec.externalName`: a host name that DNS resolves.
    ExternalName(String),
}

/// A TCP port; other transports are refused when a document is parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty where the one port of a service has no name.
    pub name: String,
    pub port: u16,
    pub target_port: TargetPort,
    pub app_protocol: Option<AppProtocol>,
}

/// The port of the workload behind a service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    Number(u16),
    /// A port that the workload itself gives this name.
    Name(String),
}

/// `appProtocol`: what clients speak to the port. A port without one is detected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppProtocol {
    /// `http`, `kubernetes.io/ws`
    Http(String),
    /// `kubernetes.io/h2c`, `http2`, `grpc`
    Http2(String),
    /// `tcp`
    Tcp,
    /// `https`, `tls`, `kubernetes.io/wss`: the application's own TLS.
    Tls(String),
    /// A name that says nothing to weft, such as `redis`: detected.
    Other(String),
}

impl AppProtocol {
    /// As the document wrote it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(name) | Self::Http2(name) | Self::Tls(name) | Self::Other(name) => name,
        }
    }
}

impl From<&str> for AppProtocol {
    fn from(name: &str) -> Self {
        let owned = name.to_owned();
        match name {
            "http" | "kubernetes.io/ws" => Self::Http(owned),
            "kubernetes.io/h2c" | "http2" | "grpc" => Self::Http2(owned),
            "tcp" => Self::Tcp,
            "https" | "tls" | "kubernetes.io/wss" => Self::Tls(owned),
            _ => Self::Other(owned),
        }
    }
}

impl ServiceSpec {
    /// The port of this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number)
    }
}
