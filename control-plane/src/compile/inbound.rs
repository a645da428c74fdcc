//! What a proxy has to know of its own workload.

use std::collections::BTreeMap;

use super::{Inbound, InboundPort, Mesh, Protocol, ServiceName, cluster};

pub(super) fn compile(mesh: &Mesh, instance: &str) -> Option<Inbound> {
    let workload = mesh.workloads.get(instance)?;
    let mut ports: BTreeMap<u16, (Vec<Option<Protocol>>, Vec<ServiceName>)> = BTreeMap::new();
    for name in mesh.catalog.services_selecting(workload) {
        let Some(service) = mesh.catalog.service(&name) else {
            continue;
        };
        for port in &service.spec.ports {
            let Some(target) = cluster::target(&port.target_port, workload) else {
                continue;
            };
            let (protocols, services) = ports.entry(target).or_default();
            protocols.push(Protocol::of(port.app_protocol.as_ref()));
            if services.last() != Some(&name) {
                services.push(name.clone());
            }
        }
    }
    let ports = ports.into_iter().map(|(port, (protocols, services))| {
        // Where the services that name a protocol disagree, only the bytes can tell.
        let mut named = protocols.into_iter().flatten();
        let first = named.next();
        let agreed = named.all(|protocol| Some(protocol) == first);
        InboundPort {
            port,
            protocol: first.filter(|_| agreed),
            services,
        }
    });
    let policy = mesh.catalog.outbound_policy(workload.namespace());
    Some(Inbound {
        ports: ports.collect(),
        unknown_destinations: policy.map(|policy| policy.unknown_destinations),
        outbound_policy: policy.map(|policy| {
            let metadata = &policy.metadata;
            format!("OutboundPolicy/{}/{}", metadata.namespace, metadata.name)
        }),
    })
}
