//! The resources of the mesh with a revision: applied and deleted atomically, durable before a call
//! returns, watched as a stream of changes. Beside them a small keyspace for other rooms' records.

mod snapshot;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::broadcast;

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
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The store. Cloning shares it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<()>,
}

impl Store {
    /// Opens, or creates, the store in a directory. Makes the directory with mode 0700.
    pub fn open(dir: &Path) -> Result<Self> {
        let _ = dir;
        todo!()
    }

    /// The resources now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let _ = &self.inner;
        todo!()
    }

    /// Creates or updates all of them, or none. Blocks on the disk.
    pub fn apply(&self, resources: Vec<Resource>) -> Result<Applied> {
        let _ = resources;
        todo!()
    }

    /// What [`Store::apply`] would do.
    pub fn apply_dry(&self, resources: Vec<Resource>) -> Result<Applied> {
        let _ = resources;
        todo!()
    }

    /// Deletes all of them; a key that isn't there is `Unchanged`. Blocks on the disk.
    pub fn delete(&self, keys: Vec<Key>) -> Result<Applied> {
        let _ = keys;
        todo!()
    }

    /// Every change from now on, in order. A receiver that gets `Lagged` starts again from
    /// [`Store::snapshot`]. To miss nothing, watch first and take the snapshot second; changes of a
    /// revision up to the snapshot's are then already in it.
    pub fn watch(&self) -> broadcast::Receiver<Change> {
        todo!()
    }

    /// Writes a record of another room. Blocks on the disk.
    pub fn put_record(&self, table: &str, key: &str, value: &[u8]) -> Result<()> {
        let _ = (table, key, value);
        todo!()
    }

    /// Reads a record.
    pub fn get_record(&self, table: &str, key: &str) -> Result<Option<Vec<u8>>> {
        let _ = (table, key);
        todo!()
    }

    /// Removes a record; true when there was one. Blocks on the disk.
    pub fn delete_record(&self, table: &str, key: &str) -> Result<bool> {
        let _ = (table, key);
        todo!()
    }

    /// Every record of a table, ordered by key.
    pub fn list_records(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let _ = table;
        todo!()
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
        let _ = (table, key, change);
        todo!()
    }
}
