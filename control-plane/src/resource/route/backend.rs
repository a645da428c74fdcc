//! References to backends.

use super::super::fields::{Field, Fields};
use super::super::names;
use super::{BACKEND_REFS_MAX, BackendKind, BackendRef, RouteKind, WEIGHT_MAX, filters};

/// Reads `backendRefs`.
pub(super) fn backend_refs(
    field: Option<Field<'_>>,
    kind: RouteKind,
    namespace: &str,
) -> Vec<BackendRef> {
    let items = field.map(|field| field.sequence(BACKEND_REFS_MAX));
    let items = items.unwrap_or_default();
    let read = |item: &Field<'_>| {
        let mut fields = item.mapping()?;
        let weight = match fields.take("weight") {
            Some(field) => field.integer(0..=WEIGHT_MAX),
            None => Some(1),
        };
        let filters = match fields.take("filters") {
            Some(field) if kind.is_http() => filters::filters(&field, kind, namespace),
            Some(field) => {
                field.problem("unknown field");
                Vec::new()
            }
            None => Vec::new(),
        };
        let backend = backend(&mut fields, namespace);
        fields.finish();
        Some(BackendRef {
            weight: weight.and_then(|weight| u32::try_from(weight).ok())?,
            filters,
            ..backend?
        })
    };
    items.iter().filter_map(read).collect()
}

/// Reads the fields of a BackendObjectReference; weight and filters are left at their defaults.
pub(super) fn backend(fields: &mut Fields<'_>, namespace: &str) -> Option<BackendRef> {
    let text = |field: Option<Field<'_>>, default: &str| match field {
        Some(field) => field.string(),
        None => Some(default.to_owned()),
    };
    let group = text(fields.take("group"), "");
    let kind = text(fields.take("kind"), "Service");
    let name = fields
        .require("name")
        .and_then(|field| field.checked(names::subdomain));
    let namespace = reference_namespace(fields, namespace);
    let kind = match (group?.as_str(), kind?.as_str()) {
        ("", "Service") => BackendKind::Service,
        (group, kind) => BackendKind::Other(format!("{group}/{kind}")),
    };
    let port = if kind == BackendKind::Service {
        fields.require("port").and_then(|field| field.port())
    } else {
        fields.take("port").map_or(Some(0), |field| field.port())
    };
    Some(BackendRef {
        kind,
        namespace: namespace?,
        name: name?,
        port: port?,
        weight: 1,
        filters: Vec::new(),
    })
}

/// Reads `namespace` of a reference.
pub(super) fn reference_namespace(fields: &mut Fields<'_>, default: &str) -> Option<String> {
    match fields.take("namespace") {
        Some(field) => field.checked(|name| names::label(name, false)),
        None => Some(default.to_owned()),
    }
}
