//! What a proxy has to know of its own workload.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Inbound, InboundPort, Mesh, Protocol, ServiceName, cluster};
use crate::resource::InboundPolicy;

/// What the services say that select a workload by one of its ports.
#[derive(Default)]
struct Selected {
    protocols: Vec<Option<Protocol>>,
    services: Vec<ServiceName>,
    policy: Option<Arc<InboundPolicy>>,
}

pub(super) fn compile(mesh: &Mesh, instance: &str) -> Option<Inbound> {
    let workload = mesh.workloads.get(instance)?;
    let mut ports: BTreeMap<u16, Selected> = BTreeMap::new();
    for name in mesh.catalog.services_selecting(workload) {
        let Some(service) = mesh.catalog.service(&name) else {
            continue;
        };
        for port in &service.spec.ports {
            let Some(target) = cluster::target(&port.target_port, workload) else {
                continue;
            };
            let selected = ports.entry(target).or_default();
            let protocol = Protocol::of(port.app_protocol.as_ref());
            selected.protocols.push(protocol);
            if selected.services.last() != Some(&name) {
                selected.services.push(name.clone());
            }
            let policy = mesh.catalog.inbound_policies().on(service, port.port);
            selected.policy = selected.policy.take().or_else(|| policy.cloned());
        }
    }
    let ports = ports.into_iter().map(|(port, selected)| {
        // Where the services that name a protocol disagree, only the bytes can tell.
        let mut named = selected.protocols.into_iter().flatten();
        let first = named.next();
        let agreed = named.all(|protocol| Some(protocol) == first);
        InboundPort {
            port,
            protocol: first.filter(|_| agreed),
            services: selected.services,
            policy: selected.policy,
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
