//! Where requests can go, and what this proxy knows of its own workload.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, ServerName};
use weft_proto::spiffe::SpiffeId;

use super::{ClusterPolicy, Endpoints, InboundPolicy, Protocol, ServiceName, ServicePort, Text};

/// The endpoints behind one port of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    pub name: ServicePort,
    pub protocol: Option<Protocol>,
    pub endpoints: Endpoints,
    /// TLS that is spoken to endpoints without a sidecar.
    pub tls: Option<Arc<BackendTls>>,
    pub policy: Arc<ClusterPolicy>,
}

/// How an endpoint without a sidecar proves whom it is (Gateway API, BackendTLSPolicy).
#[derive(Debug, PartialEq)]
pub struct BackendTls {
    /// `BackendTLSPolicy/NAMESPACE/NAME`
    pub policy: String,
    /// The server name asked for. The certificate must be for it where no name is listed below.
    pub hostname: ServerName<'static>,
    /// Who may have signed the certificate. Empty: whoever this system trusts.
    pub roots: Vec<CertificateDer<'static>>,
    /// The certificate must be for one of them.
    pub subject_alt_names: Vec<SubjectAltName>,
    /// Why this can't be enforced: no connection is made then.
    pub invalid: Option<String>,
}

/// A name that a certificate may be for.
#[derive(Clone, Debug, PartialEq)]
pub enum SubjectAltName {
    /// Lower case; may begin with `*.`, which stands for one label.
    Hostname(String),
    Uri(String),
}

/// One place that serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Stable over pushes.
    pub id: Arc<str>,
    /// Address and port of the application.
    pub address: SocketAddr,
    /// Relative share of the traffic; 1 is usual, 0 takes none.
    pub weight: u32,
    /// Empty when unknown.
    pub zone: Arc<str>,
    /// Empty for an endpoint that no sidecar announced.
    pub workload: Arc<str>,
    pub namespace: Arc<str>,
    /// Absent: reached in plaintext.
    pub sidecar: Option<Sidecar>,
}

/// The sidecar of an endpoint; traffic to it is mTLS and nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Sidecar {
    pub spiffe_id: SpiffeId,
    /// The instance expected there. Another one that took over the address refuses.
    pub instance: Text,
    /// Where the sidecar takes mTLS.
    pub address: SocketAddr,
}

/// What this proxy has to know of its own workload.
#[derive(Clone, Debug, Default)]
pub struct Inbound {
    pub ports: Vec<InboundPort>,
    /// Calls to what is no service of the mesh are refused.
    pub refuses_unknown: bool,
    /// The policy that says what becomes of such calls; none where it is the default.
    pub outbound_policy: Option<String>,
}

/// An application port that services point at.
#[derive(Clone, Debug)]
pub struct InboundPort {
    pub port: u16,
    pub protocol: Option<Protocol>,
    pub services: Vec<ServiceName>,
    pub policy: Arc<InboundPolicy>,
}
