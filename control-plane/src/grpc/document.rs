//! Documents as `get` shows them: in Kubernetes' shape, with status.

use serde_json::{Value, json};

use crate::compile::Subject;
use crate::registry::Workload;
use crate::resource::Resource;
use crate::subscription::{Subscriptions, TimedEntry};

/// Who wrote a status (GatewayController).
const CONTROLLER_NAME: &str = "weft.dev/control-plane";

/// A stored document with its status.
pub(super) fn with_status(resource: &Resource, subscriptions: &Subscriptions) -> Value {
    let mut document = resource.to_json();
    let (list, subject) = match resource {
        Resource::Route(_) => ("parents", "parentRef"),
        Resource::BackendTlsPolicy(_)
        | Resource::TrafficPolicy(_)
        | Resource::FaultInjectionPolicy(_)
        | Resource::InboundPolicy(_)
        | Resource::BackendTrafficPolicy(_)
        | Resource::OutboundPolicy(_) => ("ancestors", "ancestorRef"),
        _ => return document,
    };
    let entries = subscriptions.status(&resource.key());
    let generation = resource.metadata().generation;
    let entries: Vec<Value> = entries
        .iter()
        .map(|entry| status_entry(entry, subject, generation))
        .collect();
    document["status"] = json!({ list: entries });
    document
}

fn status_entry(status: &TimedEntry, field: &str, generation: u64) -> Value {
    let Subject {
        group,
        kind,
        namespace,
        name,
        port,
        section_name,
    } = &status.subject;
    let mut subject = json!({"group": group, "kind": kind, "name": name});
    if !namespace.is_empty() {
        subject["namespace"] = json!(namespace);
    }
    if let Some(port) = port {
        subject["port"] = json!(port);
    }
    if let Some(section) = section_name {
        subject["sectionName"] = json!(section);
    }
    let conditions = status.conditions.iter().map(|timed| {
        let condition = &timed.condition;
        json!({
            "type": condition.kind,
            "status": if condition.is_true { "True" } else { "False" },
            "reason": condition.reason,
            "message": condition.message,
            "observedGeneration": generation,
            "lastTransitionTime":
                humantime::format_rfc3339_seconds(timed.last_transition).to_string(),
        })
    });
    json!({
        field: subject,
        "controllerName": CONTROLLER_NAME,
        "conditions": conditions.collect::<Vec<_>>(),
    })
}

/// A connected workload as a document.
pub(super) fn workload(workload: &Workload) -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "Workload",
        "metadata": {
            "name": &*workload.name,
            "namespace": workload.namespace(),
            "labels": workload.labels,
            "uid": &*workload.instance,
        },
        "spec": {
            "instance": &*workload.instance,
            "spiffeId": workload.spiffe_id.to_string(),
            "address": workload.address.to_string(),
            "inboundPort": workload.inbound_port,
            "namedPorts": workload.named_ports,
            "zone": &*workload.zone,
        },
        "status": {
            "portsUp": workload.ports_up,
            "draining": workload.draining,
        },
    })
}
