//! `History` and `Rollback`.

use std::time::UNIX_EPOCH;

use tonic::Status;
use weft_proto::v1alpha1 as wire;

use super::apply::{changed, object, store_failed};
use crate::store::{Error, Revision, Store};

pub(super) fn list(store: &Store) -> Result<wire::HistoryResponse, Status> {
    let revisions = store.history().map_err(|error| store_failed(&error))?;
    Ok(wire::HistoryResponse {
        revisions: revisions.into_iter().map(revision).collect(),
    })
}

fn revision(revision: Revision) -> wire::Revision {
    let since = revision.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let changes = revision.changes.iter();
    let changes = changes.map(|(key, action)| wire::Change {
        object: Some(object(key)),
        action: action.as_str().to_owned(),
    });
    wire::Revision {
        revision: revision.revision,
        unix_seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        changes: changes.collect(),
        cause: revision.cause,
    }
}

pub(super) fn rollback(
    store: &Store,
    request: &wire::RollbackRequest,
) -> Result<wire::ApplyResponse, Status> {
    match store.rollback(request.revision, request.dry_run) {
        Ok(applied) => Ok(changed(&applied)),
        Err(error @ (Error::NotKept { .. } | Error::Conflict { .. } | Error::Full)) => {
            Err(Status::failed_precondition(error.to_string()))
        }
        Err(error) => Err(store_failed(&error)),
    }
}
