//! Documents as `get` shows them: in Kubernetes' shape, with status.

use serde_json::{Value, json};

use crate::registry::Workload;
use crate::resource::{Resource, Route};
use crate::subscription::{Subscriptions, TimedParent};

/// Who wrote a status (GatewayController).
const CONTROLLER_NAME: &str = "weft.dev/control-plane";

/// A stored document with its status.
pub(super) fn with_status(resource: &Resource, subscriptions: &Subscriptions) -> Value {
    let mut document = resource.to_json();
    if let (Resource::Route(route), Value::Object(fields)) = (resource, &mut document) {
        let parents = subscriptions.route_status(&resource.key());
        let parents: Vec<Value> = parents
            .iter()
            .map(|parent| parent_status(route, parent))
            .collect();
        fields.insert("status".to_owned(), json!({ "parents": parents }));
    }
    document
}

fn parent_status(route: &Route, status: &TimedParent) -> Value {
    let mut parent = json!({
        "group": "",
        "kind": "Service",
        "namespace": status.parent.namespace,
        "name": status.parent.name,
    });
    if let Some(port) = status.parent.port {
        parent["port"] = json!(port);
    }
    if let Some(section) = &status.parent.section_name {
        parent["sectionName"] = json!(section);
    }
    let conditions = status.conditions.iter().map(|timed| {
        let condition = &timed.condition;
        json!({
            "type": condition.kind,
            "status": if condition.is_true { "True" } else { "False" },
            "reason": condition.reason,
            "message": condition.message,
            "observedGeneration": route.metadata.generation,
            "lastTransitionTime":
                humantime::format_rfc3339_seconds(timed.last_transition).to_string(),
        })
    });
    json!({
        "parentRef": parent,
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
