//! Reads the files that `-f` names.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::client::{Applied, Change};
use super::{Failure, Outcome, output};
use crate::resource::{SOURCE_BYTES_MAX, SOURCES_BYTES_MAX, Source};

/// Files that one command takes; a directory with more is refused.
const FILES_MAX: usize = 1000;

/// Reads files, directories (their .yaml, .yml and .json files, in order of name, not deeper) and
/// standard input (`-`).
pub(super) fn read(names: &[PathBuf]) -> Outcome<Vec<Source>> {
    let mut paths = Vec::new();
    for name in names {
        if name.is_dir() {
            paths.extend(documents_in(name)?);
        } else {
            paths.push(name.clone());
        }
    }
    if paths.len() > FILES_MAX {
        let found = paths.len();
        return Err(Failure::failed(format!(
            "{found} files, at most {FILES_MAX} are taken at once; apply them in parts"
        )));
    }
    let mut bytes = 0;
    let mut sources = Vec::new();
    for path in &paths {
        let source = read_one(path)?;
        bytes += source.content.len();
        if bytes > SOURCES_BYTES_MAX {
            return Err(Failure::failed(format!(
                "more than {SOURCES_BYTES_MAX} bytes together; apply the files in parts"
            )));
        }
        sources.push(source);
    }
    Ok(sources)
}

fn documents_in(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let failed = |error: io::Error| Failure::failed(format!("{}: {error}", dir.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        let reason = format!("{}: no .yaml, .yml or .json file in it", dir.display());
        return Err(Failure::Failed(reason));
    }
    Ok(found)
}

/// Reads one byte more than is taken, so that a file of any size is refused by its size and not held
/// in memory.
fn read_one(path: &Path) -> Outcome<Source> {
    let limit = SOURCE_BYTES_MAX as u64 + 1;
    let name = path.display().to_string();
    let mut content = Vec::new();
    let read = if name == "-" {
        io::stdin().lock().take(limit).read_to_end(&mut content)
    } else {
        fs::File::open(path).and_then(|file| {
            let size = file.metadata()?.len();
            if size > SOURCE_BYTES_MAX as u64 {
                let reason = format!(
                    "{size} bytes, at most {SOURCE_BYTES_MAX} are taken in one file; split it"
                );
                return Err(io::Error::other(reason));
            }
            file.take(limit).read_to_end(&mut content)
        })
    };
    match read {
        Ok(_) => Ok(Source { name, content }),
        Err(error) => Err(Failure::Failed(format!("{name}: {error}"))),
    }
}

/// Tells the notices and problems that were found; a failure when there are problems.
pub(super) fn tell(applied: &Applied) -> Outcome {
    for notice in &applied.skipped {
        output::complain(&format!("notice: {notice}"));
    }
    for problem in &applied.problems {
        output::complain(&format!("error: {problem}"));
    }
    if applied.problems.is_empty() {
        return Ok(());
    }
    output::complain("nothing was changed");
    Err(Failure::Told)
}

/// Prints a line for each object that was taken.
pub(super) fn print_changes(applied: &Applied, dry_run: bool) -> Outcome {
    let suffix = if dry_run { " (dry run)" } else { "" };
    let mut lines = String::new();
    for change in &applied.changes {
        let Change {
            kind,
            namespace,
            name,
            action,
        } = change;
        lines.push_str(&format!("{kind} {namespace}/{name} {action}{suffix}\n"));
    }
    output::print(&lines)
}
