//! `OutboundPolicy` (weft.dev/v1alpha1): what becomes of calls to what is no service of the mesh. Gateway
//! API has no field for it.

use serde_json::{Value, json};

use super::Metadata;
use super::fields::{Field, Fields};
use super::policy_target::{TARGET_REFS_MAX, local_reference};

/// The namespace whose policies may be for the whole mesh.
pub const SYSTEM_NAMESPACE: &str = "weft-system";
/// The name of the one mesh that a policy can be for.
const MESH_NAME: &str = "weft";

/// A choice for the workloads of a namespace, or for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundPolicy {
    pub metadata: Metadata,
    /// Never empty, each once.
    pub targets: Vec<PolicyTarget>,
    pub unknown_destinations: UnknownDestinations,
}

/// Whom a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyTarget {
    /// The workloads of the policy's own namespace.
    Namespace,
    /// Every workload, but for those whose namespace has a policy of its own.
    Mesh,
}

/// What becomes of calls to what is no service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownDestinations {
    Pass,
    Refuse,
}

impl UnknownDestinations {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "Pass",
            Self::Refuse => "Refuse",
        }
    }
}

impl OutboundPolicy {
    pub(super) fn to_json(&self) -> Value {
        let target = |target: &PolicyTarget| match target {
            PolicyTarget::Namespace => {
                json!({"group": "", "kind": "Namespace", "name": self.metadata.namespace})
            }
            PolicyTarget::Mesh => json!({"group": "weft.dev", "kind": "Mesh", "name": MESH_NAME}),
        };
        json!({
            "targetRefs": self.targets.iter().map(target).collect::<Vec<_>>(),
            "unknownDestinations": self.unknown_destinations.as_str(),
        })
    }
}

/// Reads `spec`.
pub(super) fn decode(metadata: Metadata, document: &mut Fields<'_>) -> Option<OutboundPolicy> {
    let mut fields = document.require("spec")?.mapping()?;
    let listed = fields.require("targetRefs");
    let choice =
        fields
            .require("unknownDestinations")
            .and_then(|field| match field.string()?.as_str() {
                "Pass" => Some(UnknownDestinations::Pass),
                "Refuse" => Some(UnknownDestinations::Refuse),
                other => {
                    field.problem(format!("{other:?} is none of Pass, Refuse"));
                    None
                }
            });
    fields.finish();
    let listed = listed?;
    let items = listed.sequence(TARGET_REFS_MAX);
    if items.is_empty() {
        listed.problem("at least one target is needed");
    }
    let mut targets: Vec<PolicyTarget> = Vec::new();
    for target in items
        .iter()
        .filter_map(|item| target(item, &metadata.namespace))
    {
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    Some(OutboundPolicy {
        metadata,
        targets,
        unknown_destinations: choice?,
    })
}

fn target(item: &Field<'_>, namespace: &str) -> Option<PolicyTarget> {
    let mut fields = item.mapping()?;
    let reference = local_reference(&mut fields);
    fields.finish();
    let (group, kind, name) = reference?;
    match (group.as_str(), kind.as_str(), name.as_str()) {
        ("", "Namespace", name) if name == namespace => Some(PolicyTarget::Namespace),
        ("", "Namespace", name) => {
            item.problem(format!(
                "a policy of namespace {namespace} can't be for namespace {name}: write it there"
            ));
            None
        }
        ("weft.dev", "Mesh", MESH_NAME) if namespace == SYSTEM_NAMESPACE => {
            Some(PolicyTarget::Mesh)
        }
        ("weft.dev", "Mesh", MESH_NAME) => {
            item.problem(format!(
                "only policies of namespace {SYSTEM_NAMESPACE} can be for the whole mesh"
            ));
            None
        }
        _ => {
            item.problem(
                "must be a Namespace (group \"\") or the Mesh weft (group weft.dev)".to_owned(),
            );
            None
        }
    }
}
