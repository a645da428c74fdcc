//! References between resources.

use std::collections::HashMap;
use std::sync::Arc;

use super::{BackendKind, Key, Kind, Origin, Problem, Resource, Route, Service, ServiceKind};

/// Checks that routes name ports which their Services have. A Service of `new` counts before the
/// one that `stored` finds. A Service that exists nowhere is no problem here but a condition of the
/// route's status, as in Gateway API.
pub fn check_references(
    new: &[(Origin, Resource)],
    stored: impl Fn(&Key) -> Option<Arc<Resource>>,
) -> Vec<Problem> {
    let services: HashMap<Key, &Service> = new
        .iter()
        .filter_map(|(_, resource)| match resource {
            Resource::Service(service) => Some((resource.key(), service)),
            _ => None,
        })
        .collect();
    let lookup = |namespace: &str, name: &str| {
        let key = Key::new(Kind::Service, namespace, name);
        match services.get(&key) {
            Some(service) => Some((*service).clone()),
            None => match stored(&key)?.as_ref() {
                Resource::Service(service) => Some(service.clone()),
                _ => None,
            },
        }
    };
    new.iter()
        .filter_map(|(origin, resource)| match resource {
            Resource::Route(route) => Some((origin, route)),
            _ => None,
        })
        .flat_map(|(origin, route)| {
            let key = Key::new(
                route.kind.object_kind(),
                &route.metadata.namespace,
                &route.metadata.name,
            );
            wrong_ports(route, &lookup)
                .into_iter()
                .map(move |(field, reason)| Problem {
                    file: origin.file.clone(),
                    document: origin.document,
                    object: Some(key.clone()),
                    field,
                    reason,
                    line: origin.line,
                })
        })
        .collect()
}

fn wrong_ports(
    route: &Route,
    lookup: &dyn Fn(&str, &str) -> Option<Service>,
) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    for (index, parent) in route.parent_refs.iter().enumerate() {
        let Some(service) = lookup(&parent.namespace, &parent.name) else {
            continue;
        };
        if let Some(port) = parent.port
            && let Some(reason) = missing_port(&service, port)
        {
            wrong.push((format!("spec.parentRefs[{index}].port"), reason));
        }
        if let Some(section) = &parent.section_name
            && !service.spec.ports.iter().any(|port| &port.name == section)
        {
            let field = format!("spec.parentRefs[{index}].sectionName");
            let reason = format!("Service {} has no port named {section:?}", name(&service));
            wrong.push((field, reason));
        }
    }
    for (rule_index, rule) in route.rules.iter().enumerate() {
        for (index, backend) in rule.backend_refs.iter().enumerate() {
            if backend.kind == BackendKind::Service
                && let Some(service) = lookup(&backend.namespace, &backend.name)
                && let Some(reason) = missing_port(&service, backend.port)
            {
                let field = format!("spec.rules[{rule_index}].backendRefs[{index}].port");
                wrong.push((field, reason));
            }
        }
    }
    wrong
}

/// Why a service can't be called by a port. An external service without ports is called by any.
fn missing_port(service: &Service, port: u16) -> Option<String> {
    let any =
        matches!(service.spec.kind, ServiceKind::ExternalName(_)) && service.spec.ports.is_empty();
    if any || service.spec.port(port).is_some() {
        return None;
    }
    let ports: Vec<String> = service
        .spec
        .ports
        .iter()
        .map(|port| port.port.to_string())
        .collect();
    let has = if ports.is_empty() {
        "it has none".to_owned()
    } else {
        format!("it has {}", ports.join(", "))
    };
    Some(format!(
        "Service {} has no port {port}; {has}",
        name(service)
    ))
}

fn name(service: &Service) -> String {
    format!("{}/{}", service.metadata.namespace, service.metadata.name)
}
