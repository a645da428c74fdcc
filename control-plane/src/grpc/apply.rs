//! `Apply` and `Delete`: documents into the store, all of a request's or none.

use std::collections::HashMap;

use tonic::Status;
use weft_proto::v1alpha1 as wire;

use crate::resource::{self, Key, Kind, Origin, Resource, check_references};
use crate::store::{self, Action, Store};

fn sources(sources: Vec<wire::Source>) -> Vec<resource::Source> {
    let sources = sources.into_iter();
    sources
        .map(|source| resource::Source {
            name: source.name,
            content: source.content.to_vec(),
        })
        .collect()
}

pub(super) fn apply(
    store: &Store,
    request: wire::ApplyRequest,
) -> Result<wire::ApplyResponse, Status> {
    let mut parsed = resource::parse(&sources(request.sources), &request.namespace);
    let snapshot = store.snapshot();
    if parsed.problems.is_empty() {
        parsed.problems = check_references(&parsed.resources, |key| snapshot.get(key));
    }
    let skipped = parsed.skipped.into_iter().map(problem).collect();
    if !parsed.problems.is_empty() {
        return Ok(wire::ApplyResponse {
            revision: snapshot.revision,
            changes: Vec::new(),
            skipped,
            problems: parsed.problems.into_iter().map(problem).collect(),
        });
    }
    let origins: HashMap<Key, Origin> = parsed
        .resources
        .iter()
        .map(|(origin, resource)| (resource.key(), origin.clone()))
        .collect();
    let resources: Vec<Resource> = parsed.resources.into_iter().map(|(_, r)| r).collect();
    let applied = if request.dry_run {
        store.apply_dry(resources)
    } else {
        store.apply(resources)
    };
    match applied {
        Ok(applied) => Ok(wire::ApplyResponse {
            skipped,
            ..changed(&applied)
        }),
        Err(store::Error::Conflict { key, field, reason }) => {
            let origin = origins.get(&key);
            Ok(wire::ApplyResponse {
                revision: snapshot.revision,
                changes: Vec::new(),
                skipped,
                problems: vec![wire::Problem {
                    file: origin.map(|origin| origin.file.clone()).unwrap_or_default(),
                    document: origin.map_or(0, |origin| origin.document),
                    object: Some(object(&key)),
                    field,
                    reason,
                    line: origin.map_or(0, |origin| origin.line),
                }],
            })
        }
        Err(error) => Err(store_failed(&error)),
    }
}

pub(super) fn delete(
    store: &Store,
    request: wire::DeleteRequest,
) -> Result<wire::ApplyResponse, Status> {
    use wire::delete_request::What;
    let snapshot = store.snapshot();
    let keys = match request.what {
        None => return Err(Status::invalid_argument("nothing was named to be deleted")),
        Some(What::Object(name)) => {
            let key = Key::new(parse_kind(&name.kind)?, name.namespace, name.name);
            if snapshot.get(&key).is_none() {
                return Err(Status::not_found(format!(
                    "there is no {} {} in namespace {}",
                    key.kind, key.name, key.namespace
                )));
            }
            vec![key]
        }
        Some(What::Sources(named)) => {
            let parsed = resource::parse(&sources(named.sources), &request.namespace);
            if !parsed.problems.is_empty() {
                return Ok(wire::ApplyResponse {
                    revision: snapshot.revision,
                    changes: Vec::new(),
                    skipped: parsed.skipped.into_iter().map(problem).collect(),
                    problems: parsed.problems.into_iter().map(problem).collect(),
                });
            }
            let named = parsed.resources.iter();
            named.map(|(_, resource)| resource.key()).collect()
        }
    };
    if request.dry_run {
        let action = |key: &Key| match snapshot.get(key) {
            Some(_) => Action::Deleted,
            None => Action::Unchanged,
        };
        return Ok(changed(&store::Applied {
            revision: snapshot.revision,
            changes: keys.iter().map(|key| (key.clone(), action(key))).collect(),
        }));
    }
    let deleted = store.delete(keys).map_err(|error| store_failed(&error))?;
    Ok(changed(&deleted))
}

pub(super) fn store_failed(error: &store::Error) -> Status {
    tracing::error!(%error, "the store failed");
    Status::unavailable(format!("the store failed, nothing was changed: {error}"))
}

pub(super) fn changed(applied: &store::Applied) -> wire::ApplyResponse {
    let changes = applied.changes.iter().map(|(key, action)| wire::Change {
        object: Some(object(key)),
        action: action.as_str().to_owned(),
    });
    wire::ApplyResponse {
        revision: applied.revision,
        changes: changes.collect(),
        skipped: Vec::new(),
        problems: Vec::new(),
    }
}

pub(super) fn object(key: &Key) -> wire::ObjectName {
    wire::ObjectName {
        kind: key.kind.to_string(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

fn problem(problem: resource::Problem) -> wire::Problem {
    wire::Problem {
        file: problem.file,
        document: problem.document,
        object: problem.object.as_ref().map(object),
        field: problem.field,
        reason: problem.reason,
        line: problem.line,
    }
}

pub(super) fn parse_kind(text: &str) -> Result<Kind, Status> {
    Kind::parse(text).ok_or_else(|| {
        let known = Kind::ALL.map(Kind::plural).join(", ");
        Status::invalid_argument(format!(
            "there is no kind {text:?}; there are {known} and workloads"
        ))
    })
}
