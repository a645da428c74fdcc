//! Which routes take effect on a port of a service (GEP-1294). Those of the service's own namespace (its
//! producer's) are for every client; those of another namespace (a consumer's) for clients of that
//! namespace alone, which then see nothing of the producer's. Of the routes that are left those of the
//! most specific kind take effect; the others are in conflict with them.

use std::sync::Arc;

use super::policies::age;
use super::{Catalog, ServiceName};
use crate::resource::{ParentRef, Route, RouteKind, Service, ServiceKind};

/// The routes that take effect for clients of a namespace, all of one kind, ordered by name.
pub(super) fn effective<'c>(
    catalog: &'c Catalog,
    service: &Service,
    port: u16,
    client: &str,
) -> Vec<&'c Arc<Route>> {
    let own = &service.metadata.namespace;
    let consumer = match client == own {
        true => Vec::new(),
        false => group(catalog, service, port, client),
    };
    let attached = if consumer.is_empty() {
        group(catalog, service, port, own)
    } else {
        consumer
    };
    without_conflicts(attached)
}

/// Why a route that is attached to a port takes no effect there, if it doesn't.
pub(super) fn conflict(
    catalog: &Catalog,
    route: &Route,
    service: &Service,
    port: u16,
) -> Option<String> {
    let attached = group(catalog, service, port, &route.metadata.namespace);
    let winners = without_conflicts(attached);
    let is_own = |other: &&Arc<Route>| {
        other.kind == route.kind && other.metadata.name == route.metadata.name
    };
    if winners.iter().any(is_own) {
        return None;
    }
    let winner = winners.first()?;
    let kind = winner.kind.object_kind();
    let name = format!("{}/{}", winner.metadata.namespace, winner.metadata.name);
    Some(match winner.kind == route.kind {
        true => format!("{kind} {name} is older, and one {kind} takes a whole port"),
        false => format!("{kind} {name} is of a more specific kind"),
    })
}

/// Routes of one namespace that are attached to the port.
fn group<'c>(
    catalog: &'c Catalog,
    service: &Service,
    port: u16,
    namespace: &str,
) -> Vec<&'c Arc<Route>> {
    let metadata = &service.metadata;
    let name = ServiceName::new(&metadata.namespace, &metadata.name);
    let routes = catalog.routes_of(&name);
    let attached = routes.filter(|route| {
        let mut parents = route.parent_refs.iter();
        route.metadata.namespace == namespace
            && parents.any(|parent| names_port(parent, service, port))
    });
    attached.collect()
}

fn without_conflicts(mut attached: Vec<&Arc<Route>>) -> Vec<&Arc<Route>> {
    let Some(kind) = attached.iter().map(|route| route.kind).min() else {
        return attached;
    };
    attached.retain(|route| route.kind == kind);
    if kind == RouteKind::Tcp {
        attached.sort_by_key(|route| age(&route.metadata));
        attached.truncate(1);
    }
    attached
}

/// Whether a parent reference names this port of the service.
pub(super) fn names_port(parent: &ParentRef, service: &Service, port: u16) -> bool {
    let metadata = &service.metadata;
    let is_service = parent.namespace == metadata.namespace && parent.name == metadata.name;
    let is_port = parent.port.is_none_or(|number| number == port);
    let is_section = parent.section_name.as_ref().is_none_or(|section| {
        let found = service.spec.port(port);
        found.is_some_and(|found| found.name == *section)
    });
    is_service && is_port && is_section && has_frontend(service)
}

/// Whether a service can be called by its own name or address. A headless one is only a list of
/// endpoints (GEP-1294, "Allowed service types").
pub(super) fn has_frontend(service: &Service) -> bool {
    !service.spec.headless
}

/// Whether any port of the service can be called: an external one may list none.
pub(super) fn takes_any_port(service: &Service) -> bool {
    matches!(service.spec.kind, ServiceKind::ExternalName(_)) && service.spec.ports.is_empty()
}
