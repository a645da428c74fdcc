//! The embedded backend: one redb file. A write is on the disk, fsync'ed, before it returns.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, WriteTransaction,
};

use super::history::{self, HISTORY_BYTES_MAX, HISTORY_REVISIONS_MAX, Record};
use super::{Cause, Change, Error, Result, Snapshot};
use crate::resource::{Key, from_stored};

const RESOURCES: TableDefinition<'_, &str, &str> = TableDefinition::new("resources");
const RECORDS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("records");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
/// A revision's record, see [`history`].
const HISTORY: TableDefinition<'_, u64, &str> = TableDefinition::new("history");
const REVISION: &str = "revision";
const HISTORY_BYTES: &str = "history_bytes";
const FILE_NAME: &str = "store.redb";

/// The file. After a failed write it is closed and opened again with the next use, because redb
/// refuses to go on with a file that it could not write.
pub(super) struct Disk {
    path: PathBuf,
    database: Option<Database>,
}

impl Disk {
    /// Opens or creates the file in `dir`, both for their owner alone.
    pub fn open(dir: &Path) -> Result<Self> {
        let io = |path: &Path, error: &std::io::Error| Error::Io {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(dir);
        made.map_err(|error| io(dir, &error))?;
        let owner_only = Permissions::from_mode(0o700);
        fs::set_permissions(dir, owner_only).map_err(|error| io(dir, &error))?;
        let path = dir.join(FILE_NAME);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        options.open(&path).map_err(|error| io(&path, &error))?;
        let mut disk = Self {
            path,
            database: None,
        };
        disk.database()?;
        Ok(disk)
    }

    /// Whether the file was closed by a failed write, so that memory may differ from it.
    pub fn is_closed(&self) -> bool {
        self.database.is_none()
    }

    /// Everything that is stored.
    pub fn load(&mut self) -> Result<Snapshot> {
        let path = self.shown();
        let damaged = |what: &str, reason: String| Error::Damaged {
            path: path.clone(),
            what: what.to_owned(),
            reason,
        };
        self.read(|transaction| {
            let mut snapshot = Snapshot::default();
            let counters = transaction.open_table(COUNTERS)?;
            snapshot.revision = counters.get(REVISION)?.map_or(0, |value| value.value());
            for row in transaction.open_table(RESOURCES)?.iter()? {
                let (key, value) = row?;
                match from_stored(value.value()) {
                    Ok(resource) => snapshot.set(resource.key(), Some(Arc::new(resource))),
                    Err(reason) => return Ok(Err(damaged(key.value(), reason))),
                }
            }
            Ok(Ok(snapshot))
        })?
    }

    /// Writes the objects that changed, the revision and its record, all or nothing.
    pub fn commit(&mut self, changes: &[Change], revision: u64, cause: Cause) -> Result<()> {
        let record = history::write(changes, cause, SystemTime::now());
        self.write(|transaction| {
            let mut resources = transaction.open_table(RESOURCES)?;
            for change in changes {
                let key = stored_key(&change.key);
                match &change.after {
                    Some(resource) => {
                        let document = resource.to_json().to_string();
                        resources.insert(key.as_str(), document.as_str())?;
                    }
                    None => {
                        resources.remove(key.as_str())?;
                    }
                }
            }
            let mut counters = transaction.open_table(COUNTERS)?;
            counters.insert(REVISION, revision)?;
            let mut kept = transaction.open_table(HISTORY)?;
            kept.insert(revision, record.as_str())?;
            let had = counters
                .get(HISTORY_BYTES)?
                .map_or(0, |value| value.value());
            let mut bytes = had + record.len() as u64;
            while bytes > HISTORY_BYTES_MAX || kept.len()? > HISTORY_REVISIONS_MAX {
                let Some((_, oldest)) = kept.pop_first()? else {
                    break;
                };
                bytes = bytes.saturating_sub(oldest.value().len() as u64);
            }
            counters.insert(HISTORY_BYTES, bytes)?;
            Ok(())
        })
    }

    /// The records of the revisions from `first` on that are kept, the oldest first.
    pub fn history(&mut self, first: u64) -> Result<Vec<Record>> {
        let path = self.shown();
        self.read(|transaction| {
            let mut records = Vec::new();
            for row in transaction.open_table(HISTORY)?.range(first..)? {
                let (revision, text) = row?;
                match history::read(revision.value(), text.value()) {
                    Ok(record) => records.push(record),
                    Err(reason) => {
                        return Ok(Err(Error::Damaged {
                            path: path.clone(),
                            what: format!("history of revision {}", revision.value()),
                            reason,
                        }));
                    }
                }
            }
            Ok(Ok(records))
        })?
    }

    pub fn record(&mut self, table: &str, key: &str) -> Result<Option<Vec<u8>>> {
        self.read(|transaction| {
            let records = transaction.open_table(RECORDS)?;
            let value = records.get((table, key))?;
            Ok(value.map(|value| value.value().to_vec()))
        })
    }

    /// Every record of a table, ordered by key.
    pub fn records(&mut self, table: &str) -> Result<Vec<(String, Vec<u8>)>> {
        self.read(|transaction| {
            let records = transaction.open_table(RECORDS)?;
            let mut found = Vec::new();
            for row in records.range((table, "")..)? {
                let (key, value) = row?;
                let (of, name) = key.value();
                if of != table {
                    break;
                }
                found.push((name.to_owned(), value.value().to_vec()));
            }
            Ok(found)
        })
    }

    /// Writes or removes one record.
    pub fn set_record(&mut self, table: &str, key: &str, value: Option<&[u8]>) -> Result<()> {
        self.write(|transaction| {
            let mut records = transaction.open_table(RECORDS)?;
            match value {
                Some(value) => records.insert((table, key), value)?,
                None => records.remove((table, key))?,
            };
            Ok(())
        })
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn database(&mut self) -> Result<&Database> {
        if self.database.is_none() {
            let opened = Database::create(&self.path).map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => Error::InUse { path: self.shown() },
                other => self.failed(other.into()),
            })?;
            create_tables(&opened).map_err(|error| self.failed(error))?;
            self.database = Some(opened);
        }
        match &self.database {
            Some(database) => Ok(database),
            None => Err(Error::InUse { path: self.shown() }),
        }
    }

    fn read<T>(
        &mut self,
        reading: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T> {
        let database = self.database()?;
        let read = database
            .begin_read()
            .map_err(redb::Error::from)
            .and_then(|transaction| reading(&transaction));
        self.outcome(read)
    }

    fn write(
        &mut self,
        writing: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<()> {
        let database = self.database()?;
        let written = write(database, writing);
        self.outcome(written)
    }

    fn outcome<T>(&mut self, outcome: Result<T, redb::Error>) -> Result<T> {
        outcome.map_err(|error| {
            self.database = None;
            self.failed(error)
        })
    }

    fn failed(&self, error: redb::Error) -> Error {
        let reason = match error {
            redb::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                "the disk is full; nothing was changed".to_owned()
            }
            other => other.to_string(),
        };
        Error::Io {
            path: self.shown(),
            reason,
        }
    }
}

fn create_tables(database: &Database) -> Result<(), redb::Error> {
    write(database, |transaction| {
        transaction.open_table(RESOURCES)?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(COUNTERS)?;
        transaction.open_table(HISTORY)?;
        Ok(())
    })
}

fn write(
    database: &Database,
    writing: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    writing(&transaction)?;
    transaction.commit()?;
    Ok(())
}

/// `/` is in no kind, namespace or name.
fn stored_key(key: &Key) -> String {
    key.to_string()
}
