//! Files of the data directory: written whole or not at all, private where they must be.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::Error;

/// Permission bits of a file that only its owner reads.
pub const PRIVATE: u32 = 0o600;
/// Permission bits of a file that anybody may read.
pub const PUBLIC: u32 = 0o644;

/// Creates `path` and its parents with 0700 where they are missing.
pub fn create_directory(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::File {
            doing: "create the data directory",
            path: path.to_owned(),
            source,
            advice: "choose another with --data-dir, or make its parent writable",
        })
}

/// Replaces a file as a whole: a reader, or a start after a crash, sees the old or the new content.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let temporary = path.with_extension("new");
    let written = (|| {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::File::open(directory)?.sync_all()
    })();
    written.map_err(|source| Error::File {
        doing: "write",
        path: path.to_owned(),
        source,
        advice: "the data directory must be writable and have space left",
    })
}

/// The content, or `None` where there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File {
            doing: "read",
            path: path.to_owned(),
            source,
            advice: "the user that runs `weft serve` must own the data directory",
        }),
    }
}

/// Refuses a key that others on the machine can read.
pub fn require_private(path: &Path) -> Result<(), Error> {
    let metadata = fs::metadata(path).map_err(|source| Error::File {
        doing: "read the permissions of",
        path: path.to_owned(),
        source,
        advice: "the user that runs `weft serve` must own the data directory",
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::Content {
        path: path.to_owned(),
        reason: format!("the key is readable by others (mode {mode:04o})"),
        advice: "if nobody else can have read it, `chmod 600` it; otherwise start with a new data directory",
    })
}
