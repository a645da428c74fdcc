//! Services, as their clients see them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::backend_tls::spoken;
use super::{Mesh, Port, Service, ServiceName, cluster};
use crate::resource::ServiceKind;

pub(super) fn compile(mesh: &Mesh, name: &ServiceName) -> Option<Service> {
    let service = mesh.catalog.service(name)?;
    let ports = service.spec.ports.iter().map(|port| Port {
        port: port.port,
        name: port.name.clone(),
        protocol: spoken(&mesh.catalog, service, port),
    });
    let external_name = match &service.spec.kind {
        ServiceKind::ExternalName(host) => Some(host.clone()),
        ServiceKind::ClusterIp => None,
    };
    let endpoint_addresses: BTreeSet<IpAddr> = if service.spec.headless {
        let ports = service.spec.ports.iter();
        ports
            .flat_map(|port| cluster::endpoints(mesh, service, port))
            .map(|endpoint| endpoint.address)
            .collect()
    } else {
        BTreeSet::new()
    };
    Some(Service {
        name: name.clone(),
        virtual_ips: service.spec.cluster_ips.clone(),
        ports: ports.collect(),
        headless: service.spec.headless,
        external_name,
        endpoint_addresses: endpoint_addresses.into_iter().collect(),
    })
}
