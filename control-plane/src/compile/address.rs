//! Addresses: virtual IPs of services, and the application ports of workloads.

use std::net::SocketAddr;

use super::{Address, Mesh, cluster};

pub(super) fn compile(mesh: &Mesh, address: SocketAddr) -> Option<Address> {
    if let Some(service) = mesh.catalog.service_at(address.ip()) {
        return Some(Address::Service(service.clone()));
    }
    let workload = mesh.workloads.at(address)?;
    let endpoint = cluster::workload_endpoint(workload, address.port());
    Some(Address::Endpoint(endpoint))
}
