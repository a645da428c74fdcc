//! Clusters: the endpoints behind a port of a service.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::backend_tls::{self, spoken};
use super::{Catalog, Cluster, ClusterPolicy, Compiled, Configuration, Endpoint, Mesh, Sidecar};
use crate::registry::{Resolution, Workload};
use crate::resource::{self, EndpointSlice, Kind, Metadata, Service, ServiceKind, TargetPort};

/// Endpoints of a cluster. Of a service with more, those with the lowest IDs are offered: they fit
/// into one message of gRPC's default size.
pub const ENDPOINTS_MAX: usize = 10_000;

pub(super) fn compile(mesh: &Mesh, name: &super::ServicePort) -> Compiled {
    let Some(service) = mesh.catalog.service(&name.service) else {
        return Compiled::Absent;
    };
    let (protocol, mut endpoints) = match (&service.spec.kind, service.spec.port(name.port)) {
        (ServiceKind::ExternalName(host), port) => {
            if port.is_none() && !service.spec.ports.is_empty() {
                return Compiled::Absent;
            }
            let target = match port.map(|port| &port.target_port) {
                Some(TargetPort::Number(number)) => *number,
                _ => name.port,
            };
            let Resolution::Known(addresses) = mesh.external.get(host) else {
                return Compiled::Pending;
            };
            let protocol = port.and_then(|port| spoken(&mesh.catalog, service, port));
            let addresses = addresses.iter();
            let endpoints = addresses.map(|ip| plain_endpoint(SocketAddr::new(*ip, target), None));
            (protocol, endpoints.collect::<Vec<_>>())
        }
        (ServiceKind::ClusterIp, Some(port)) => (
            spoken(&mesh.catalog, service, port),
            endpoints(mesh, service, port),
        ),
        (ServiceKind::ClusterIp, None) => return Compiled::Absent,
    };
    let left_out = endpoints.len().saturating_sub(ENDPOINTS_MAX);
    endpoints.truncate(ENDPOINTS_MAX);
    Compiled::Present(Configuration::Cluster(Cluster {
        name: name.clone(),
        protocol,
        endpoints,
        tls: backend_tls::compile(&mesh.catalog, service, name.port).map(Box::new),
        policy: policy(&mesh.catalog, service, name.port).map(Box::new),
        left_out,
    }))
}

/// What the policies in force on a port say.
fn policy(catalog: &Catalog, service: &Service, port: u16) -> Option<ClusterPolicy> {
    let traffic = catalog.traffic_policies().on(service, port);
    let retries = catalog.backend_traffic_policies().on(service, port);
    let faults = catalog.fault_injection_policies().on(service, port);
    let named = |kind: Kind, metadata: &Metadata| {
        format!("{kind}/{}/{}", metadata.namespace, metadata.name)
    };
    let names = [
        traffic.map(|policy| named(Kind::TrafficPolicy, &policy.metadata)),
        retries.map(|policy| named(Kind::BackendTrafficPolicy, &policy.metadata)),
        faults.map(|policy| named(Kind::FaultInjectionPolicy, &policy.metadata)),
    ];
    if names.iter().all(Option::is_none) {
        return None;
    }
    Some(ClusterPolicy {
        names: names.into_iter().flatten().collect(),
        balancing: traffic.and_then(|policy| policy.balancing.clone()),
        outliers: traffic.and_then(|policy| policy.outliers.clone()),
        breaker: traffic.and_then(|policy| policy.breaker.clone()),
        health_check: traffic.and_then(|policy| policy.health_check.clone()),
        hedging: traffic.and_then(|policy| policy.hedging.clone()),
        retries: retries.map(|policy| policy.retries.clone()),
        session: retries.and_then(|policy| {
            // No two backends of one host are to be mixed up.
            let Metadata {
                namespace, name, ..
            } = &service.metadata;
            let session = policy.session.as_ref()?;
            Some(session.named(|| format!("weft-{namespace}-{name}")))
        }),
        faults: faults.cloned(),
    })
}

/// Everything that serves a port of a service that isn't external, ordered by ID.
pub(super) fn endpoints(
    mesh: &Mesh,
    service: &Service,
    port: &resource::ServicePort,
) -> Vec<Endpoint> {
    let namespace = &service.metadata.namespace;
    let workloads = mesh.workloads.selected(namespace, &service.spec.selector);
    let selected = workloads.filter_map(|workload| {
        let target = target(&port.target_port, workload)?;
        let serves = workload.serves(target);
        serves.then(|| workload_endpoint(workload, target))
    });
    let name = super::ServiceName::new(namespace, &service.metadata.name);
    let slices = mesh.catalog.slices_of(&name);
    let listed = slices.flat_map(|slice| slice_endpoints(mesh, slice, &port.name));
    let by_id: BTreeMap<String, Endpoint> = selected
        .chain(listed)
        .map(|endpoint| (endpoint.id.clone(), endpoint))
        .collect();
    by_id.into_values().collect()
}

/// The workload's port that a service's port points at. A name means what each workload says it does.
pub(super) fn target(target: &TargetPort, workload: &Workload) -> Option<u16> {
    match target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => workload.named_ports.get(name).copied(),
    }
}

/// A workload's application port, behind its sidecar.
pub(super) fn workload_endpoint(workload: &Workload, port: u16) -> Endpoint {
    Endpoint {
        id: format!("{}:{port}", workload.instance),
        address: workload.address,
        port,
        weight: 1,
        zone: workload.zone.clone(),
        workload: workload.name.clone(),
        namespace: workload.namespace().to_owned(),
        sidecar: Some(Sidecar {
            spiffe_id: workload.spiffe_id.clone(),
            instance: workload.instance.clone(),
            inbound_port: workload.inbound_port,
        }),
    }
}

fn slice_endpoints<'a>(
    mesh: &'a Mesh,
    slice: &'a EndpointSlice,
    port_name: &'a str,
) -> impl Iterator<Item = Endpoint> {
    let ports = slice
        .ports
        .iter()
        .filter(move |port| port.name == port_name);
    ports.flat_map(move |port| {
        let ready = slice.endpoints.iter().filter(|endpoint| endpoint.ready);
        ready.filter_map(move |endpoint| {
            let ip: IpAddr = *endpoint.addresses.first()?;
            let address = SocketAddr::new(ip, port.port);
            Some(match mesh.workloads.at(address) {
                Some(workload) => workload_endpoint(workload, address.port()),
                None => plain_endpoint(address, endpoint.zone.as_deref()),
            })
        })
    })
}

/// An address without a sidecar.
fn plain_endpoint(address: SocketAddr, zone: Option<&str>) -> Endpoint {
    Endpoint {
        id: address.to_string(),
        address: address.ip(),
        port: address.port(),
        weight: 1,
        zone: zone.unwrap_or_default().into(),
        workload: "".into(),
        namespace: String::new(),
        sidecar: None,
    }
}
