//! What each revision changed, kept so that it can be shown and taken back. A record is written in the
//! transaction of the change it tells of, so neither is ever there without the other.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Action, Change};
use crate::resource::{Key, Kind, Resource, from_stored};

/// Revisions that are kept; the oldest is forgotten for one more.
pub const HISTORY_REVISIONS_MAX: u64 = 200;
/// Bytes that the records take together; the oldest are forgotten for what is more. A revision that is
/// larger by itself leaves nothing before it to go back to.
pub const HISTORY_BYTES_MAX: u64 = 64 << 20;

/// What made a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Apply,
    Delete,
    /// To what this revision was.
    Rollback(u64),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apply => f.write_str("apply"),
            Self::Delete => f.write_str("delete"),
            Self::Rollback(revision) => write!(f, "rollback to {revision}"),
        }
    }
}

/// A revision that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    pub revision: u64,
    pub at: SystemTime,
    /// As [`Cause`] writes it.
    pub cause: String,
    pub changes: Vec<(Key, Action)>,
}

/// A revision with what its objects were before it.
pub(super) struct Record {
    pub revision: Revision,
    pub before: Vec<(Key, Option<Resource>)>,
}

/// The record of a revision, as it is stored.
pub(super) fn write(changes: &[Change], cause: Cause, at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let changes = changes.iter().map(|change| {
        let action = match (&change.before, &change.after) {
            (_, None) => Action::Deleted,
            (None, Some(_)) => Action::Created,
            (Some(_), Some(_)) => Action::Configured,
        };
        let key = &change.key;
        json!({
            "key": [key.kind.as_str(), key.namespace, key.name],
            "action": action.as_str(),
            "before": change.before.as_ref().map(|before| before.to_json()),
        })
    });
    let changes: Vec<Value> = changes.collect();
    json!({"unix_seconds": seconds, "cause": cause.to_string(), "changes": changes}).to_string()
}

/// Reads what [`write()`] wrote; the error says what is wrong with it.
pub(super) fn read(revision: u64, text: &str) -> Result<Record, String> {
    let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let seconds = document["unix_seconds"].as_u64().unwrap_or_default();
    let mut record = Record {
        revision: Revision {
            revision,
            at: UNIX_EPOCH + Duration::from_secs(seconds),
            cause: document["cause"].as_str().unwrap_or_default().to_owned(),
            changes: Vec::new(),
        },
        before: Vec::new(),
    };
    for change in document["changes"].as_array().into_iter().flatten() {
        let part = |index: usize| change["key"][index].as_str().unwrap_or_default();
        let kind = Kind::parse(part(0)).ok_or_else(|| format!("{} is no kind", part(0)))?;
        let key = Key::new(kind, part(1), part(2));
        let action = Action::ALL
            .into_iter()
            .find(|action| Some(action.as_str()) == change["action"].as_str())
            .ok_or("an action is missing or unknown")?;
        let before = match &change["before"] {
            Value::Null => None,
            before => Some(from_stored(&before.to_string())?),
        };
        record.revision.changes.push((key.clone(), action));
        record.before.push((key, before));
    }
    Ok(record)
}

/// What every object that changed since was at a revision; nothing stands for its absence. The records
/// are those of all later revisions.
pub(super) fn state_before(records: Vec<Record>) -> Vec<(Key, Option<Arc<Resource>>)> {
    let mut records = records;
    records.sort_by_key(|record| record.revision.revision);
    let mut state: BTreeMap<Key, Option<Arc<Resource>>> = BTreeMap::new();
    for (key, before) in records.into_iter().flat_map(|record| record.before) {
        // The first change since says what was there before any.
        state.entry(key).or_insert(before.map(Arc::new));
    }
    state.into_iter().collect()
}
