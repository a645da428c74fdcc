//! From the bytes of files to resources and problems.

use std::fmt;

use super::{Key, Resource};

/// A file as it was read.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the user named it, `-` for standard input.
    pub name: String,
    pub content: Vec<u8>,
}

/// Where a resource was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub file: String,
    /// From 1.
    pub document: u32,
    /// Of the document's first line, from 1.
    pub line: u32,
}

/// Something that is wrong with a document, or a notice about one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// From 1; 0 when the problem is the whole file's.
    pub document: u32,
    /// The object, as far as the document says which.
    pub object: Option<Key>,
    /// `spec.ports[0].port`; empty when the problem is the whole document's.
    pub field: String,
    pub reason: String,
    /// From 1; 0 when unknown.
    pub line: u32,
}

/// What is in a set of files. When there are problems nothing of it may be applied.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    pub resources: Vec<(Origin, Resource)>,
    /// Notices: documents and references of kinds that weft leaves alone.
    pub skipped: Vec<Problem>,
    pub problems: Vec<Problem>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.document > 0 {
            write!(f, ": document {}", self.document)?;
        }
        if let Some(object) = &self.object {
            write!(f, " ({object})")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Parses and validates every document of every source. Documents without a namespace get
/// `default_namespace`.
pub fn parse(sources: &[Source], default_namespace: &str) -> Parsed {
    let _ = (sources, default_namespace);
    todo!()
}
