//! The resources of the mesh with a revision: applied and deleted atomically, durable before a call
//! returns, watched as a stream of changes. Beside them a small keyspace for other rooms' records.

mod disk;
mod history;
mod plan;
mod snapshot;
#[cfg(test)]
mod tests;
mod virtual_ip;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use tokio::sync::broadcast;

use disk::Disk;
pub use history::{Cause, HISTORY_BYTES_MAX, HISTORY_REVISIONS_MAX, Revision};
pub use plan::OBJECTS_MAX;
use plan::Plan;
pub use snapshot::Snapshot;

use crate::resource::{Key, Resource};

/// Changes that a watcher may lag behind before it has to start again from a snapshot.
pub const WATCH_BACKLOG: usize = 4096;

/// One object that changed. A revision may hold several, all sent before the next revision's.
#[derive(Clone, Debug)]
pub struct Change {
    pub revision: u64,
    pub key: Key,
    pub before: Option<Arc<Resource>>,
    pub after: Option<Arc<Resource>>,
}

/// What became of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Created,
    Configured,
    Unchanged,
    Deleted,
}

impl Action {
    /// Everything that can become of a document.
    pub(super) const ALL: [Self; 4] = [
        Self::Created,
        Self::Configured,
        Self::Unchanged,
        Self::Deleted,
    ];

    /// As the command line prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        }
    }
}

/// The outcome of an apply or a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Of the store after it; the same as before when nothing changed.
    pub revision: u64,
    /// One for each document, in order.
    pub changes: Vec<(Key, Action)>,
}

/// Why the store could not do what was asked. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another `weft serve` has this directory.
    #[error("{path} is in use by another weft serve: stop that one, or choose another --data-dir")]
    InUse { path: String },
    /// The directory or the file can't be made, read or written.
    #[error("{path}: {reason}")]
    Io { path: String, reason: String },
    /// What is stored can't be read back.
    #[error("{path}: the stored {what} is damaged: {reason}")]
    Damaged {
        path: String,
        what: String,
        reason: String,
    },
    /// A virtual IP that a document asks for is taken, or none is left.
    #[error("{key}: {field}: {reason}")]
    Conflict {
        key: Key,
        field: String,
        reason: String,
    },
    /// What a revision was is not known any more, or not yet.
    #[error("revision {revision} can't be restored: {reason}")]
    NotKept { revision: u64, reason: String },
    /// The store would hold more than [`OBJECTS_MAX`] objects.
    #[error("the store would hold more than {OBJECTS_MAX} objects; delete some first")]
    Full,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The store. Cloning shares it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    /// Held over every write, so that revisions are made one after the other.
    disk: Mutex<Disk>,
    now: ArcSwap<Snapshot>,
    changes: broadcast::Sender<Change>,
}

impl Store {
    /// Opens, or creates, the store in a directory. Makes the directory with mode 0700.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut disk = Disk::open(dir)?;
        let snapshot = disk.load()?;
        Ok(Self {
            shared: Arc::new(Shared {
                disk: Mutex::new(disk),
                now: ArcSwap::from_pointee(snapshot),
                changes: broadcast::Sender::new(WATCH_BACKLOG),
            }),
        })
    }

    /// The resources now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.now.load_full()
    }

    /// Creates or updates all of them, or none. Blocks on the disk.
    pub fn apply(&self, resources: Vec<Resource>) -> Result<Applied> {
        let mut disk = self.disk()?;
        let plan = plan::apply(&self.snapshot(), resources)?;
        self.commit(&mut disk, plan, Cause::Apply)
    }

    /// What [`Store::apply`] would do.
    pub fn apply_dry(&self, resources: Vec<Resource>) -> Result<Applied> {
        let now = self.snapshot();
        let plan = plan::apply(&now, resources)?;
        Ok(Applied {
            revision: now.revision,
            changes: plan.actions,
        })
    }

    /// Deletes all of them; a key that isn't there is `Unchanged`. Blocks on the disk.
    pub fn delete(&self, keys: Vec<Key>) -> Result<Applied> {
        let mut disk = self.disk()?;
        let plan = plan::delete(&self.snapshot(), keys);
        self.commit(&mut disk, plan, Cause::Delete)
    }

    /// What [`Store::delete`] would do.
    pub fn delete_dry(&self, keys: Vec<Key>) -> Applied {
        let now = self.snapshot();
        Applied {
            revision: now.revision,
            changes: plan::delete(&now, keys).actions,
        }
    }

    /// Makes everything what it was at a revision, as one new revision; or, with `dry_run`, only says
    /// what that would change. Blocks on the disk.
    pub fn rollback(&self, revision: u64, dry_run: bool) -> Result<Applied> {
        let mut disk = self.disk()?;
        let now = self.snapshot();
        let not_kept = |reason| Err(Error::NotKept { revision, reason });
        if revision > now.revision {
            return not_kept(format!("the store is at {}", now.revision));
        }
        let since = disk.history(revision + 1)?;
        let oldest = since
            .first()
            .map_or(now.revision + 1, |record| record.revision.revision);
        if revision < now.revision && oldest != revision + 1 {
            return not_kept(format!(
                "history is kept from {} on; see `weft history`",
                oldest - 1
            ));
        }
        let plan = plan::restore(&now, history::state_before(since))?;
        if dry_run {
            return Ok(Applied {
                revision: now.revision,
                changes: plan.actions,
            });
        }
        self.commit(&mut disk, plan, Cause::Rollback(revision))
    }

    /// The revisions that are kept, the newest first.
    pub fn history(&self) -> Result<Vec<Revision>> {
        let records = self.disk()?.history(0)?;
        let newest_first = records.into_iter().rev();
        Ok(newest_first.map(|record| record.revision).collect())
    }

    /// Every change from now on, in order. A receiver that gets `Lagged` starts again from
    /// [`Store::snapshot`]. To miss nothing, watch first and take the snapshot second; changes of a
    /// revision up to the snapshot's are then already in it.
    pub fn watch(&self) -> broadcast::Receiver<Change> {
        self.shared.changes.subscribe()
    }

    /// Writes a record of another room. Blocks on the disk.
    pub fn put_record(&self, table: &str, key: &str, value: &[u8]) -> Result<()> {
        self.disk()?.set_record(table, key, Some(value))
    }

    /// Reads a record.
    pub fn get_record(&self, table: &str, key: &str) -> Result<Option<Vec<u8>>> {
        self.disk()?.record(table, key)
    }

    /// Removes a record; true when there was one. Blocks on the disk.
    pub fn delete_record(&self, table: &str, key: &str) -> Result<bool> {
        let mut disk = self.disk()?;
        let there = disk.record(table, key)?.is_some();
        if there {
            disk.set_record(table, key, None)?;
        }
        Ok(there)
    }

    /// Every record of a table, ordered by key.
    pub fn list_records(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>> {
        self.disk()?.records(table)
    }

    /// Reads, changes and writes a record with no other write between. `change` gets what is there
    /// and gives what is to be there, or its own error, and then nothing is written. Blocks on the
    /// disk.
    pub fn update_record<E: From<Error>>(
        &self,
        table: &str,
        key: &str,
        change: impl FnOnce(Option<Vec<u8>>) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<(), E> {
        let mut disk = self.disk()?;
        let before = disk.record(table, key)?;
        let after = change(before)?;
        disk.set_record(table, key, after.as_deref())?;
        Ok(())
    }

    /// The disk for one use. After a failed write nobody knows whether that write is on the disk, so
    /// what is there now becomes the truth first.
    fn disk(&self) -> Result<MutexGuard<'_, Disk>> {
        let mut disk = match self.shared.disk.lock() {
            Ok(disk) => disk,
            // A panic amid a write leaves the disk in a whole state: redb's transaction is dropped.
            Err(poisoned) => poisoned.into_inner(),
        };
        if disk.is_closed() {
            let stored = disk.load()?;
            let changes = difference(&self.snapshot(), &stored);
            self.publish(stored, changes);
        }
        Ok(disk)
    }

    fn commit(&self, disk: &mut Disk, plan: Plan, cause: Cause) -> Result<Applied> {
        let revision = plan.next.revision;
        if !plan.changes.is_empty() {
            disk.commit(&plan.changes, revision, cause)?;
            self.publish(plan.next, plan.changes);
        }
        Ok(Applied {
            revision,
            changes: plan.actions,
        })
    }

    fn publish(&self, next: Snapshot, changes: Vec<Change>) {
        self.shared.now.store(Arc::new(next));
        for change in changes {
            // Nobody may be watching.
            let _ = self.shared.changes.send(change);
        }
    }
}

/// The changes that lead from one snapshot to another.
fn difference(from: &Snapshot, to: &Snapshot) -> Vec<Change> {
    let keys: BTreeSet<&Key> = from.keys().chain(to.keys()).collect();
    keys.into_iter()
        .map(|key| Change {
            revision: to.revision,
            key: key.clone(),
            before: from.get(key),
            after: to.get(key),
        })
        .filter(|change| change.before != change.after)
        .collect()
}
