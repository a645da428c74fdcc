//! Reading `metadata` and giving it back.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::fields::Fields;
use super::{Kind, Metadata, names};

/// Labels and annotations together may take this much; more is refused, as in Kubernetes.
const ANNOTATION_BYTES_MAX: usize = 256 << 10;

/// Reads `metadata` of a document.
pub(super) fn decode(
    kind: Kind,
    document: &mut Fields<'_>,
    default_namespace: &str,
) -> Option<Metadata> {
    let mut fields = document.require("metadata")?.mapping()?;
    fields.ignore(&[
        "selfLink",
        "managedFields",
        "ownerReferences",
        "finalizers",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ]);
    fields.refuse(&["generateName"]);
    let name = fields.require("name").and_then(|field| {
        field.checked(|name| match kind {
            Kind::Service => names::label(name, true),
            _ => names::subdomain(name),
        })
    });
    let namespace = match fields.take("namespace") {
        Some(field) => field.checked(|name| names::label(name, false)),
        None => Some(default_namespace.to_owned()),
    };
    let labels = fields
        .take("labels")
        .map(|field| field.string_map(names::label_pair));
    let annotations = fields.take("annotations").map(|field| {
        let map = field.string_map(names::annotation_pair);
        let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > ANNOTATION_BYTES_MAX {
            field.problem(format!(
                "{bytes} bytes, at most {ANNOTATION_BYTES_MAX} are taken"
            ));
        }
        map
    });
    let server = server_fields(&mut fields);
    fields.finish();
    Some(Metadata {
        namespace: namespace?,
        name: name?,
        labels: labels.unwrap_or_default(),
        annotations: annotations.unwrap_or_default(),
        ..server
    })
}

/// What the store once filled in, in a document that was given back by `weft get`.
fn server_fields(fields: &mut Fields<'_>) -> Metadata {
    let count = |number: i64| u64::try_from(number).unwrap_or_default();
    Metadata {
        uid: fields
            .take("uid")
            .and_then(|field| field.string())
            .unwrap_or_default(),
        generation: fields
            .take("generation")
            .and_then(|field| field.integer(0..=i64::MAX))
            .map(count)
            .unwrap_or_default(),
        resource_version: fields
            .take("resourceVersion")
            .and_then(|field| field.string())
            .and_then(|text| text.parse().ok())
            .unwrap_or_default(),
        creation_timestamp: fields
            .take("creationTimestamp")
            .and_then(|field| field.string())
            .and_then(|text| humantime::parse_rfc3339(&text).ok()),
        ..Metadata::default()
    }
}

impl Metadata {
    pub(super) fn to_json(&self) -> Value {
        let mut out = json!({"name": self.name, "namespace": self.namespace});
        if !self.labels.is_empty() {
            out["labels"] = json!(self.labels);
        }
        if !self.annotations.is_empty() {
            out["annotations"] = json!(self.annotations);
        }
        if !self.uid.is_empty() {
            out["uid"] = self.uid.as_str().into();
            out["generation"] = self.generation.into();
            out["resourceVersion"] = self.resource_version.to_string().into();
        }
        if let Some(created) = self.creation_timestamp {
            out["creationTimestamp"] = rfc3339(created).into();
        }
        out
    }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
