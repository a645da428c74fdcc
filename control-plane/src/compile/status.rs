//! The conditions of a route: whether each parent takes it, and whether its references resolve (Gateway
//! API, RouteConditionType and RouteConditionReason). Those of policies are beside.

mod policy;

use super::attachment::{conflict, has_frontend, names_port, takes_any_port};
use super::backend_tls::spoken;
use super::{Catalog, Protocol, ServiceName};
use crate::resource::{BackendKind, BackendRef, Key, Kind, ParentRef, Route};

/// A condition in Kubernetes' sense, without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs` or `PartiallyInvalid`.
    pub kind: &'static str,
    pub is_true: bool,
    pub reason: &'static str,
    pub message: String,
}

/// What conditions are given by: a route's parent, a policy's ancestor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub group: &'static str,
    /// `Service`, `HTTPRoute`, `GRPCRoute`, `Namespace` or `Mesh`.
    pub kind: &'static str,
    /// Empty for what has none.
    pub namespace: String,
    pub name: String,
    pub port: Option<u16>,
    pub section_name: Option<String>,
}

/// The conditions that one subject gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusEntry {
    pub subject: Subject,
    pub conditions: Vec<Condition>,
}

/// Why a reference does not resolve.
pub(super) struct BackendProblem {
    pub reason: &'static str,
    pub message: String,
}

/// The status of a route or a policy, an entry for each parent or target in the document's order; none of
/// what isn't there, or has no status.
pub fn status(catalog: &Catalog, key: &Key) -> Option<Vec<StatusEntry>> {
    let name = (key.namespace.clone(), key.name.clone());
    match key.kind {
        Kind::OutboundPolicy => {
            let policy = catalog.outbound_policies().get(&name)?;
            Some(policy::outbound(catalog, policy))
        }
        Kind::BackendTlsPolicy => {
            let policy = catalog.backend_tls_policies().get(&name)?;
            Some(policy::backend_tls(catalog, policy))
        }
        Kind::TrafficPolicy => policy::of_services(catalog, catalog.traffic_policies(), &name),
        Kind::InboundPolicy => policy::of_services(catalog, catalog.inbound_policies(), &name),
        Kind::FaultInjectionPolicy => {
            let policies = catalog.fault_injection_policies();
            let mut entries = policy::of_services(catalog, policies, &name)?;
            entries.extend(policy::of_routes(catalog, policies.get(&name)?));
            Some(entries)
        }
        Kind::BackendTrafficPolicy => {
            policy::of_services(catalog, catalog.backend_traffic_policies(), &name)
        }
        _ => Some(route_status(catalog, catalog.route(key)?)),
    }
}

fn route_status(catalog: &Catalog, route: &Route) -> Vec<StatusEntry> {
    let resolved = resolved_refs(catalog, route);
    let partially_invalid = partially_invalid(catalog, route);
    let parents = route.parent_refs.iter();
    parents
        .map(|parent| {
            let mut conditions = vec![accepted(catalog, route, parent), resolved.clone()];
            conditions.extend(partially_invalid.clone());
            let subject = Subject {
                group: "",
                kind: "Service",
                namespace: parent.namespace.clone(),
                name: parent.name.clone(),
                port: parent.port,
                section_name: parent.section_name.clone(),
            };
            StatusEntry {
                subject,
                conditions,
            }
        })
        .collect()
}

fn accepted(catalog: &Catalog, route: &Route, parent: &ParentRef) -> Condition {
    let condition = |is_true, reason, message| Condition {
        kind: "Accepted",
        is_true,
        reason,
        message,
    };
    let name = ServiceName::new(&parent.namespace, &parent.name);
    let Some(service) = catalog.service(&name) else {
        let message = format!("there is no Service {name}");
        return condition(false, "NoMatchingParent", message);
    };
    if !has_frontend(service) {
        let message = format!(
            "Service {name} is headless: it has no address of its own that a route could be attached to"
        );
        return condition(false, "UnsupportedValue", message);
    }
    if takes_any_port(service) {
        return condition(true, "Accepted", format!("attached to Service {name}"));
    }
    let ports = service.spec.ports.iter().map(|port| port.port);
    let attached: Vec<u16> = ports
        .filter(|port| names_port(parent, service, *port))
        .collect();
    if attached.is_empty() {
        let message = format!("Service {name} has no port that the parentRef names");
        return condition(false, "NoMatchingParent", message);
    }
    let conflicts = attached.iter().filter_map(|port| {
        let reason = conflict(catalog, route, service, *port)?;
        Some(format!("port {port}: {reason}"))
    });
    let conflicts: Vec<String> = conflicts.collect();
    if conflicts.len() == attached.len() {
        return condition(false, "Conflicted", conflicts.join("; "));
    }
    let clients = match route.metadata.namespace == parent.namespace {
        true => String::new(),
        false => format!(", for clients of namespace {}", route.metadata.namespace),
    };
    let but = match conflicts.is_empty() {
        true => String::new(),
        false => format!("; not everywhere: {}", conflicts.join("; ")),
    };
    let message = format!("attached to Service {name}{clients}{but}");
    condition(true, "Accepted", message)
}

fn resolved_refs(catalog: &Catalog, route: &Route) -> Condition {
    let mut problems = route
        .backends()
        .filter_map(|backend| backend_problem(catalog, route, backend));
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

/// Said where some rules can serve nobody and others can.
fn partially_invalid(catalog: &Catalog, route: &Route) -> Option<Condition> {
    let is_dead = |backends: &[BackendRef]| {
        let mut backends = backends.iter();
        let dead = |backend: &BackendRef| backend_problem(catalog, route, backend).is_some();
        backends.len() > 0 && backends.all(dead)
    };
    let dead = (0..)
        .zip(&route.rules)
        .filter(|(_, rule)| is_dead(&rule.backend_refs));
    let dead: Vec<String> = dead
        .map(|(index, rule): (usize, _)| match &rule.name {
            Some(name) => format!("{index} ({name})"),
            None => index.to_string(),
        })
        .collect();
    if dead.is_empty() || dead.len() == route.rules.len() {
        return None;
    }
    Some(Condition {
        kind: "PartiallyInvalid",
        is_true: true,
        reason: "UnsupportedValue",
        message: format!(
            "Dropped Rule: no backend of rule {} resolves, requests that match are answered with 500",
            dead.join(", ")
        ),
    })
}

/// Why a backendRef doesn't resolve, in the words of the `ResolvedRefs` condition.
pub(super) fn backend_problem(
    catalog: &Catalog,
    route: &Route,
    backend: &BackendRef,
) -> Option<BackendProblem> {
    let problem = |reason, message| Some(BackendProblem { reason, message });
    if let BackendKind::Other(kind) = &backend.kind {
        return problem("InvalidKind", format!("a backend can't be a {kind}"));
    }
    let name = ServiceName::new(&backend.namespace, &backend.name);
    if !may_refer(catalog, route, backend) {
        return problem(
            "RefNotPermitted",
            format!("no ReferenceGrant allows a reference to Service {name} of another namespace"),
        );
    }
    let Some(service) = catalog.service(&name) else {
        return problem("BackendNotFound", format!("there is no Service {name}"));
    };
    let Some(port) = service.spec.port(backend.port) else {
        if takes_any_port(service) {
            return None;
        }
        return problem(
            "BackendNotFound",
            format!("Service {name} has no port {}", backend.port),
        );
    };
    let speaks = spoken(catalog, service, port);
    if route.kind.is_http() && matches!(speaks, Some(Protocol::Tcp | Protocol::Tls)) {
        return problem(
            "UnsupportedProtocol",
            format!(
                "port {} of Service {name} does not speak HTTP: its appProtocol says so",
                backend.port
            ),
        );
    }
    None
}

/// Another namespace has to allow it, but for the namespaces of the route's own parents: clients reach
/// those services without the route (GEP-1294).
fn may_refer(catalog: &Catalog, route: &Route, backend: &BackendRef) -> bool {
    let own = &route.metadata.namespace;
    let mut parents = route.parent_refs.iter();
    let mut grants = catalog.grants_of(&backend.namespace);
    let kind = route.kind.object_kind().as_str();
    backend.namespace == *own
        || parents.any(|parent| parent.namespace == backend.namespace)
        || grants.any(|grant| grant.allows(kind, own, &backend.name))
}
