//! The conditions of an HTTPRoute: whether each parent takes it, and whether its references resolve.

use super::{Catalog, ServiceName};
use crate::resource::{BackendKind, BackendRef, HttpRoute, ParentRef, Service, ServiceKind};

/// A condition in Kubernetes' sense, without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted` or `ResolvedRefs`.
    pub kind: &'static str,
    pub is_true: bool,
    pub reason: &'static str,
    pub message: String,
}

/// The conditions that one parent gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentStatus {
    pub parent: ParentRef,
    pub conditions: Vec<Condition>,
}

/// Why a reference does not resolve.
pub(super) struct BackendProblem {
    pub reason: &'static str,
    pub message: String,
}

/// The status of a route, one entry for each parent, in the document's order.
pub fn route_status(catalog: &Catalog, route: &HttpRoute) -> Vec<ParentStatus> {
    let resolved = resolved_refs(catalog, route);
    let parents = route.spec.parent_refs.iter();
    parents
        .map(|parent| ParentStatus {
            parent: parent.clone(),
            conditions: vec![accepted(catalog, route, parent), resolved.clone()],
        })
        .collect()
}

/// Whether a parent reference attaches its route to this port of the service.
pub(super) fn is_attached(
    route: &HttpRoute,
    parent: &ParentRef,
    service: &Service,
    port: u16,
) -> bool {
    let metadata = &service.metadata;
    let is_service = parent.namespace == metadata.namespace && parent.name == metadata.name;
    let is_producer = route.metadata.namespace == metadata.namespace;
    let is_port = parent.port.is_none_or(|number| number == port);
    let is_section = parent.section_name.as_ref().is_none_or(|section| {
        let found = service.spec.port(port);
        found.is_some_and(|found| found.name == *section)
    });
    is_service && is_producer && is_port && is_section
}

fn accepted(catalog: &Catalog, route: &HttpRoute, parent: &ParentRef) -> Condition {
    let condition = |is_true, reason, message| Condition {
        kind: "Accepted",
        is_true,
        reason,
        message,
    };
    let name = ServiceName::new(&parent.namespace, &parent.name);
    if route.metadata.namespace != parent.namespace {
        return condition(
            false,
            "UnsupportedValue",
            format!(
                "the route is of namespace {}, its parent of {}: only routes of the service's own namespace are supported",
                route.metadata.namespace, parent.namespace
            ),
        );
    }
    let Some(service) = catalog.service(&name) else {
        return condition(
            false,
            "NoMatchingParent",
            format!("there is no Service {name}"),
        );
    };
    let ports = service.spec.ports.iter();
    let mut attached = ports.filter(|port| is_attached(route, parent, service, port.port));
    let any_port =
        matches!(service.spec.kind, ServiceKind::ExternalName(_)) && service.spec.ports.is_empty();
    if attached.next().is_none() && !any_port {
        return condition(
            false,
            "NoMatchingParent",
            format!("Service {name} has no port that the parentRef names"),
        );
    }
    condition(true, "Accepted", format!("attached to Service {name}"))
}

fn resolved_refs(catalog: &Catalog, route: &HttpRoute) -> Condition {
    let backends = route.spec.rules.iter().flat_map(|rule| &rule.backend_refs);
    let mut problems = backends.filter_map(|backend| backend_problem(catalog, route, backend));
    let Some(first) = problems.next() else {
        return Condition {
            kind: "ResolvedRefs",
            is_true: true,
            reason: "ResolvedRefs",
            message: "every backendRef resolves".to_owned(),
        };
    };
    let mut messages = vec![first.message];
    for problem in problems {
        if !messages.contains(&problem.message) {
            messages.push(problem.message);
        }
    }
    Condition {
        kind: "ResolvedRefs",
        is_true: false,
        reason: first.reason,
        message: messages.join("; "),
    }
}

/// Why a backendRef doesn't resolve, in the words of the `ResolvedRefs` condition.
pub(super) fn backend_problem(
    catalog: &Catalog,
    route: &HttpRoute,
    backend: &BackendRef,
) -> Option<BackendProblem> {
    let problem = |reason, message| Some(BackendProblem { reason, message });
    if let BackendKind::Other(kind) = &backend.kind {
        return problem("InvalidKind", format!("a backend can't be a {kind}"));
    }
    let name = ServiceName::new(&backend.namespace, &backend.name);
    if backend.namespace != route.metadata.namespace {
        return problem(
            "RefNotPermitted",
            format!("no ReferenceGrant allows a reference to Service {name} of another namespace"),
        );
    }
    let Some(service) = catalog.service(&name) else {
        return problem("BackendNotFound", format!("there is no Service {name}"));
    };
    let any_port =
        matches!(service.spec.kind, ServiceKind::ExternalName(_)) && service.spec.ports.is_empty();
    if service.spec.port(backend.port).is_none() && !any_port {
        return problem(
            "BackendNotFound",
            format!("Service {name} has no port {}", backend.port),
        );
    }
    None
}
