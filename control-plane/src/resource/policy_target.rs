//! Whom a policy of Gateway API is for: Services of its own namespace, whole or by a port's name, and of some
//! policies routes, whole or by a rule's name (LocalPolicyTargetReferenceWithSectionName).

use serde_json::{Value, json};

use super::fields::{Field, Fields};
use super::names;
use super::route::{GATEWAY_GROUP, RouteKind};

/// Targets of a policy; more are refused (Gateway API's limit for policies).
pub(super) const TARGET_REFS_MAX: usize = 16;

/// A Service of the policy's namespace, or one port of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceTarget {
    pub name: String,
    /// Name of a port; absent: every port that no other policy is for by its name.
    pub section_name: Option<String>,
}

impl ServiceTarget {
    pub(super) fn to_json(&self) -> Value {
        let mut out = json!({"group": "", "kind": "Service", "name": self.name});
        if let Some(section) = &self.section_name {
            out["sectionName"] = section.as_str().into();
        }
        out
    }
}

/// An HTTPRoute or a GRPCRoute of the policy's namespace, or one rule of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteTarget {
    pub kind: RouteKind,
    pub name: String,
    /// Name of a rule; absent: every rule that no other policy is for by its name.
    pub section_name: Option<String>,
}

impl RouteTarget {
    pub(super) fn to_json(&self) -> Value {
        let kind = self.kind.object_kind().as_str();
        let mut out = json!({"group": GATEWAY_GROUP, "kind": kind, "name": self.name});
        if let Some(section) = &self.section_name {
            out["sectionName"] = section.as_str().into();
        }
        out
    }
}

/// Whom a policy is for that may be for routes too.
#[derive(Debug, Default)]
pub(super) struct Targets {
    pub services: Vec<ServiceTarget>,
    pub routes: Vec<RouteTarget>,
}

/// Reads `targetRefs` of a policy for Services: at least one, each once.
pub(super) fn targets(fields: &mut Fields<'_>) -> Option<Vec<ServiceTarget>> {
    Some(read(fields, false)?.services)
}

/// Reads `targetRefs` of a policy for Services or routes: at least one, each once.
pub(super) fn targets_or_routes(fields: &mut Fields<'_>) -> Option<Targets> {
    read(fields, true)
}

fn read(fields: &mut Fields<'_>, with_routes: bool) -> Option<Targets> {
    let field = fields.require("targetRefs")?;
    let items = field.sequence(TARGET_REFS_MAX);
    if items.is_empty() {
        field.problem("at least one target is needed");
    }
    let mut targets = Targets::default();
    for item in &items {
        let is_new = match target(item, with_routes) {
            None => continue,
            Some(Target::Service(target)) => put(&mut targets.services, target),
            Some(Target::Route(target)) => put(&mut targets.routes, target),
        };
        if !is_new {
            item.problem("the same target is named twice");
        }
    }
    Some(targets)
}

fn put<T: PartialEq>(targets: &mut Vec<T>, target: T) -> bool {
    let is_new = !targets.contains(&target);
    targets.push(target);
    is_new
}

enum Target {
    Service(ServiceTarget),
    Route(RouteTarget),
}

fn target(item: &Field<'_>, with_routes: bool) -> Option<Target> {
    let mut fields = item.mapping()?;
    let reference = local_reference(&mut fields);
    let section_name = fields
        .take("sectionName")
        .map(|field| field.checked(names::subdomain));
    fields.finish();
    let (group, kind, name) = reference?;
    let section_name = match section_name {
        Some(section) => Some(section?),
        None => None,
    };
    let route = |kind| RouteTarget {
        kind,
        name: name.clone(),
        section_name: section_name.clone(),
    };
    match (group.as_str(), kind.as_str()) {
        (GATEWAY_GROUP, "HTTPRoute") if with_routes => Some(Target::Route(route(RouteKind::Http))),
        (GATEWAY_GROUP, "GRPCRoute") if with_routes => Some(Target::Route(route(RouteKind::Grpc))),
        ("", "Service") => Some(Target::Service(ServiceTarget { name, section_name })),
        _ if with_routes => {
            let routes = "or an HTTPRoute or a GRPCRoute (group \"gateway.networking.k8s.io\")";
            item.problem(format!("must be a Service (group \"\"), {routes}"));
            None
        }
        _ => {
            item.problem("must be a Service (group \"\")");
            None
        }
    }
}

/// Reads group, kind and name of an object of the same namespace.
pub(super) fn local_reference(fields: &mut Fields<'_>) -> Option<(String, String, String)> {
    let group = fields.require("group").and_then(|field| field.string());
    let kind = fields.require("kind").and_then(|field| field.string());
    let name = fields
        .require("name")
        .and_then(|field| field.checked(names::subdomain));
    Some((group?, kind?, name?))
}
