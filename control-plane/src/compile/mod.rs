//! From what users wrote and what lives in the mesh to what a proxy needs to know. Pure: the same
//! values in give the same values out, in the same order, so that a version can be a hash of the
//! content. Every resource is compiled by itself, from no more than what it names; which ones a
//! change touches is [`Catalog`]'s to say.

mod address;
mod attachment;
mod backend_tls;
mod catalog;
mod change;
mod cluster;
mod configuration;
mod inbound;
mod name;
mod policies;
mod route;
mod service;
mod status;
#[cfg(test)]
pub(crate) mod tests;

pub use catalog::{Affected, Catalog, RouteName};
pub use change::{ClusterChange, change};
pub use cluster::ENDPOINTS_MAX;
pub use configuration::{
    Address, BackendTls, Cluster, ClusterPolicy, Configuration, Endpoint, Filter, Inbound,
    InboundPort, Mirror, Port, Protocol, Route, Rule, RuleMatch, Service, Sidecar, TcpRule,
    TlsRule, WeightedCluster,
};
pub use name::{Name, ServiceName, ServicePort};
pub use route::rule_match;
pub use status::{Condition, StatusEntry, Subject, status};

use rustls_pki_types::CertificateDer;

use crate::registry::{ExternalNames, Workloads};

/// Everything that configuration is made of.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    pub catalog: Catalog,
    pub workloads: Workloads,
    pub external: ExternalNames,
    pub trust_domain: String,
    pub roots: Vec<CertificateDer<'static>>,
}

/// What there is of a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Compiled {
    Present(Configuration),
    /// There is no such resource.
    Absent,
    /// It can't be said yet: DNS has not answered.
    Pending,
}

/// Compiles one resource.
pub fn compile(mesh: &Mesh, name: &Name) -> Compiled {
    match name {
        Name::Service(name) => present(service::compile(mesh, name).map(Configuration::Service)),
        Name::Address(at) => present(address::compile(mesh, *at).map(Configuration::Address)),
        Name::Route { of, client } => {
            present(route::compile(mesh, of, client).map(Configuration::Route))
        }
        Name::Cluster(name) => cluster::compile(mesh, name),
        Name::Inbound(instance) => {
            present(inbound::compile(mesh, instance).map(Configuration::Inbound))
        }
        Name::TrustBundle(domain) if *domain == mesh.trust_domain => {
            Compiled::Present(Configuration::TrustBundle {
                trust_domain: domain.clone(),
                roots: mesh.roots.clone(),
            })
        }
        Name::TrustBundle(_) | Name::Unknown { .. } => Compiled::Absent,
    }
}

fn present(configuration: Option<Configuration>) -> Compiled {
    configuration.map_or(Compiled::Absent, Compiled::Present)
}
