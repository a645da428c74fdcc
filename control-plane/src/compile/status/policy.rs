//! The conditions of policies (Gateway API, PolicyConditionType and PolicyConditionReason).

use super::super::backend_tls;
use super::super::catalog::route_target;
use super::super::policies::{DocumentName, ServicePolicies, ServicePolicy};
use super::super::{Catalog, ServiceName};
use super::{Condition, StatusEntry, Subject};
use crate::resource::{
    BackendRoots, BackendTlsPolicy, FaultInjectionPolicy, OutboundPolicy, PolicyTarget,
    RouteTarget, Service, ServiceTarget,
};

fn accepted(result: Result<String, (&'static str, String)>) -> Condition {
    let is_true = result.is_ok();
    let (reason, message) = match result {
        Ok(message) => ("Accepted", message),
        Err(refused) => refused,
    };
    Condition {
        kind: "Accepted",
        is_true,
        reason,
        message,
    }
}

pub(super) fn outbound(catalog: &Catalog, policy: &OutboundPolicy) -> Vec<StatusEntry> {
    let namespace = &policy.metadata.namespace;
    let entry = |target: &PolicyTarget| {
        let first = catalog.outbound_policies().first(namespace, *target);
        let winner = first.filter(|first| first.metadata.name != policy.metadata.name);
        let (group, kind, name) = match target {
            PolicyTarget::Namespace => ("", "Namespace", namespace.as_str()),
            PolicyTarget::Mesh => ("weft.dev", "Mesh", "weft"),
        };
        let condition = accepted(match winner {
            None => Ok(format!("in force for {kind} {name}")),
            Some(winner) => Err((
                "Conflicted",
                format!(
                    "OutboundPolicy {} is older, and for the same",
                    winner.metadata.name
                ),
            )),
        });
        StatusEntry {
            subject: Subject {
                group,
                kind,
                namespace: String::new(),
                name: name.to_owned(),
                port: None,
                section_name: None,
            },
            conditions: vec![condition],
        }
    };
    policy.targets.iter().map(entry).collect()
}

pub(super) fn backend_tls(catalog: &Catalog, policy: &BackendTlsPolicy) -> Vec<StatusEntry> {
    let (roots, problems) = backend_tls::roots(catalog, policy);
    let is_dead = roots.is_empty() && policy.roots != BackendRoots::System;
    let messages: Vec<String> = problems.iter().map(|one| one.message.clone()).collect();
    let resolved = Condition {
        kind: "ResolvedRefs",
        is_true: problems.is_empty(),
        reason: problems.first().map_or("ResolvedRefs", |one| one.reason),
        message: match problems.is_empty() {
            true => "every caCertificateRef resolves".to_owned(),
            false => messages.join("; "),
        },
    };
    let policies = catalog.backend_tls_policies();
    let entry = |target: &ServiceTarget| {
        let attached = attached(catalog, policies, policy, target);
        let attached = attached.and_then(|attached| match is_dead {
            true => Err((
                "NoValidCACertificate",
                format!("no connection is made: {}", messages.join("; ")),
            )),
            false => Ok(attached),
        });
        StatusEntry {
            subject: subject(policy, target),
            conditions: vec![accepted(attached), resolved.clone()],
        }
    };
    policy.targets.iter().map(entry).collect()
}

/// Of policies that refer to nothing but Services.
pub(super) fn of_services<P: ServicePolicy>(
    catalog: &Catalog,
    policies: &ServicePolicies<P>,
    name: &DocumentName,
) -> Option<Vec<StatusEntry>> {
    let policy = policies.get(name)?;
    let entry = |target: &ServiceTarget| StatusEntry {
        subject: subject(&**policy, target),
        conditions: vec![accepted(attached(catalog, policies, policy, target))],
    };
    Some(policy.targets().iter().map(entry).collect())
}

/// What a FaultInjectionPolicy says of the routes that it is for.
pub(super) fn of_routes(catalog: &Catalog, policy: &FaultInjectionPolicy) -> Vec<StatusEntry> {
    let namespace = &policy.metadata.namespace;
    let attached = |target: &RouteTarget| {
        let key = route_target(namespace, target);
        let Some(route) = catalog.route(&key) else {
            return Err(("TargetNotFound", format!("there is no {key}")));
        };
        let section = target.section_name.as_deref();
        let mut rules = route.rules.iter();
        if let Some(section) = section
            && !rules.any(|rule| rule.name.as_deref() == Some(section))
        {
            let message = format!("{key} has no rule named {section:?}");
            return Err(("TargetNotFound", message));
        }
        match catalog.faults_of_route(&key, section) {
            Some(first) if first.metadata.name != policy.metadata.name => {
                let first = &first.metadata.name;
                Err(("Conflicted", format!("{first} is older, and for the same")))
            }
            _ => Ok(format!("attached to {key}")),
        }
    };
    let entry = |target: &RouteTarget| StatusEntry {
        subject: Subject {
            group: "gateway.networking.k8s.io",
            kind: target.kind.object_kind().as_str(),
            namespace: namespace.clone(),
            name: target.name.clone(),
            port: None,
            section_name: target.section_name.clone(),
        },
        conditions: vec![accepted(attached(target))],
    };
    policy.routes.iter().map(entry).collect()
}

fn subject(policy: &impl ServicePolicy, target: &ServiceTarget) -> Subject {
    Subject {
        group: "",
        kind: "Service",
        namespace: policy.metadata().namespace.clone(),
        name: target.name.clone(),
        port: None,
        section_name: target.section_name.clone(),
    }
}

/// Whether a policy is in force on one of its targets, in words, or why not.
fn attached<P: ServicePolicy>(
    catalog: &Catalog,
    policies: &ServicePolicies<P>,
    policy: &P,
    target: &ServiceTarget,
) -> Result<String, (&'static str, String)> {
    let name = ServiceName::new(&policy.metadata().namespace, &target.name);
    let Some(service) = catalog.service(&name) else {
        return Err(("TargetNotFound", format!("there is no Service {name}")));
    };
    let section = target.section_name.as_deref();
    if let Some(section) = section
        && !has_port(service, section)
    {
        let message = format!("Service {name} has no port named {section:?}");
        return Err(("TargetNotFound", message));
    }
    match policies.winner(policy, service, section) {
        None => Ok(format!("attached to Service {name}")),
        Some(winner) => Err((
            "Conflicted",
            format!("{} is older, and for the same", winner.metadata().name),
        )),
    }
}

fn has_port(service: &Service, name: &str) -> bool {
    service.spec.ports.iter().any(|port| port.name == name)
}
