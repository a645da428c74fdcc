//! `ReferenceGrant` (gateway.networking.k8s.io): what may be referred to from other namespaces.

use serde_json::{Value, json};

use super::fields::{Field, Fields};
use super::{Metadata, names};

/// Entries of `from` and of `to`; more are refused (Gateway API's limit).
const ENTRIES_MAX: usize = 16;

/// Everything in `from` may refer to everything in `to`, which is of the grant's own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceGrant {
    pub metadata: Metadata,
    pub from: Vec<GrantFrom>,
    pub to: Vec<GrantTo>,
}

/// Who may refer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantFrom {
    pub group: String,
    pub kind: String,
    pub namespace: String,
}

/// What may be referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantTo {
    pub group: String,
    pub kind: String,
    /// Absent: every object of the kind.
    pub name: Option<String>,
}

impl ReferenceGrant {
    /// Whether a route of this kind and namespace may refer to a Service.
    pub fn allows(&self, kind: &str, namespace: &str, service: &str) -> bool {
        let from = self.from.iter().any(|from| {
            from.group == "gateway.networking.k8s.io"
                && from.kind == kind
                && from.namespace == namespace
        });
        let to = self.to.iter().any(|to| {
            let names = to.name.as_deref().is_none_or(|name| name == service);
            to.group.is_empty() && to.kind == "Service" && names
        });
        from && to
    }

    pub(super) fn to_json(&self) -> Value {
        let from = self.from.iter().map(
            |from| json!({"group": from.group, "kind": from.kind, "namespace": from.namespace}),
        );
        let to = self.to.iter().map(|to| {
            let mut out = json!({"group": to.group, "kind": to.kind});
            if let Some(name) = &to.name {
                out["name"] = name.as_str().into();
            }
            out
        });
        json!({"from": from.collect::<Vec<_>>(), "to": to.collect::<Vec<_>>()})
    }
}

/// Reads `spec`.
pub(super) fn decode(metadata: Metadata, document: &mut Fields<'_>) -> Option<ReferenceGrant> {
    let mut fields = document.require("spec")?.mapping()?;
    let (from, to) = (fields.require("from"), fields.require("to"));
    fields.finish();
    Some(ReferenceGrant {
        metadata,
        from: entries(&from?, |fields, group, kind| {
            let namespace = fields
                .require("namespace")
                .and_then(|field| field.checked(|name| names::label(name, false)));
            Some(GrantFrom {
                group,
                kind,
                namespace: namespace?,
            })
        }),
        to: entries(&to?, |fields, group, kind| {
            let name = fields
                .take("name")
                .map(|field| field.checked(names::subdomain));
            Some(GrantTo {
                group,
                kind,
                name: match name {
                    Some(name) => Some(name?),
                    None => None,
                },
            })
        }),
    })
}

fn entries<T>(
    field: &Field<'_>,
    read: impl Fn(&mut Fields<'_>, String, String) -> Option<T>,
) -> Vec<T> {
    let items = field.sequence(ENTRIES_MAX);
    if items.is_empty() {
        field.problem("at least one entry is needed");
    }
    let read = items.iter().filter_map(|item| {
        let mut fields = item.mapping()?;
        let group = fields.require("group").and_then(|field| field.string());
        let kind = fields.require("kind").and_then(|field| field.string());
        let (group, kind) = (group?, kind?);
        let entry = read(&mut fields, group, kind);
        fields.finish();
        entry
    });
    read.collect()
}
