//! Whom a policy of Gateway API is for: Services of its own namespace, whole or by a port's name
//! (LocalPolicyTargetReferenceWithSectionName).

use serde_json::{Value, json};

use super::fields::{Field, Fields};
use super::names;

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

/// Reads `targetRefs`: at least one, each once.
pub(super) fn targets(fields: &mut Fields<'_>) -> Option<Vec<ServiceTarget>> {
    let field = fields.require("targetRefs")?;
    let items = field.sequence(TARGET_REFS_MAX);
    if items.is_empty() {
        field.problem("at least one target is needed");
    }
    let mut targets: Vec<ServiceTarget> = Vec::new();
    for item in &items {
        let Some(target) = target(item) else { continue };
        if targets.contains(&target) {
            item.problem("the same target is named twice");
        }
        targets.push(target);
    }
    Some(targets)
}

fn target(item: &Field<'_>) -> Option<ServiceTarget> {
    let mut fields = item.mapping()?;
    let reference = local_reference(&mut fields);
    let section_name = fields
        .take("sectionName")
        .map(|field| field.checked(names::subdomain));
    fields.finish();
    let (group, kind, name) = reference?;
    if (group.as_str(), kind.as_str()) != ("", "Service") {
        item.problem("must be a Service (group \"\")");
        return None;
    }
    Some(ServiceTarget {
        name,
        section_name: match section_name {
            Some(section) => Some(section?),
            None => None,
        },
    })
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
