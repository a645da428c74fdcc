//! Routes: the rules attached to a port of a service, in Gateway API's order of precedence.

use std::cmp::Reverse;
use std::time::SystemTime;

use super::status::{backend_problem, is_attached};
use super::{Mesh, Protocol, Route, Rule, ServiceName, ServicePort, WeightedCluster};
use crate::resource::{HttpRoute, HttpRouteMatch, PathMatch, ServiceKind};

pub(super) fn compile(mesh: &Mesh, name: &ServicePort) -> Option<Route> {
    let service = mesh.catalog.service(&name.service)?;
    let port = service.spec.port(name.port);
    let any_port =
        matches!(service.spec.kind, ServiceKind::ExternalName(_)) && service.spec.ports.is_empty();
    if port.is_none() && !any_port {
        return None;
    }
    let mut rules: Vec<(Precedence, Rule)> = Vec::new();
    for route in mesh.catalog.routes_of(&name.service) {
        let mut parents = route.spec.parent_refs.iter();
        if parents.any(|parent| is_attached(route, parent, service, name.port)) {
            rules.extend(expand(mesh, route));
        }
    }
    rules.sort_by(|(a, _), (b, _)| a.cmp(b));
    Some(Route {
        name: name.clone(),
        protocol: port.and_then(|port| Protocol::of(port.app_protocol.as_ref())),
        rules: rules.into_iter().map(|(_, rule)| rule).collect(),
        default_cluster: name.clone(),
    })
}

/// The order in which matches are tried, least first (HTTPRouteRule, "precedence"): exact path, then
/// regular expression (Gateway API leaves its place open; it says more than a prefix does), then the
/// longest prefix; a method; most headers; then the oldest route, by name, by rule, by match.
type Precedence = (
    u8,
    Reverse<usize>,
    bool,
    Reverse<usize>,
    Option<SystemTime>,
    (String, String),
    u32,
    u32,
);

fn expand(mesh: &Mesh, route: &HttpRoute) -> Vec<(Precedence, Rule)> {
    let metadata = &route.metadata;
    let mut expanded = Vec::new();
    for (rule_index, rule) in (0..).zip(&route.spec.rules) {
        let backends: Vec<WeightedCluster> = rule
            .backend_refs
            .iter()
            .map(|backend| WeightedCluster {
                cluster: ServiceName::new(&backend.namespace, &backend.name).port(backend.port),
                weight: backend.weight,
                invalid: backend_problem(&mesh.catalog, route, backend)
                    .map(|problem| problem.reason.to_owned()),
            })
            .collect();
        for (match_index, matches) in (0..).zip(&rule.matches) {
            let precedence = (
                path_rank(matches),
                Reverse(path_length(matches)),
                matches.method.is_none(),
                Reverse(matches.headers.len()),
                metadata.creation_timestamp,
                (metadata.namespace.clone(), metadata.name.clone()),
                rule_index,
                match_index,
            );
            let rule = Rule {
                route: format!("HTTPRoute/{}/{}", metadata.namespace, metadata.name),
                rule: rule_index,
                rule_name: rule.name.clone(),
                match_index,
                matches: matches.clone(),
                backends: backends.clone(),
            };
            expanded.push((precedence, rule));
        }
    }
    expanded
}

fn path_rank(matches: &HttpRouteMatch) -> u8 {
    match matches.path {
        PathMatch::Exact(_) => 0,
        PathMatch::Regex(_) => 1,
        PathMatch::Prefix(_) => 2,
    }
}

fn path_length(matches: &HttpRouteMatch) -> usize {
    match &matches.path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Regex(path) => {
            path.chars().count()
        }
    }
}
