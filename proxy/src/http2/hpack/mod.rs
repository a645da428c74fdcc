//! HPACK (RFC 7541): the compression of HTTP/2's field lines, without a network and without a clock.
//!
//! Both directions are written for the data path. A [`Decoder`] hands out values that are slices of
//! shared chunks and names that it has seen before, so that a usual block costs no allocation for
//! each field; an [`Encoder`] puts only what repeats into the peer's table, so that what repeats is
//! one octet and what doesn't is copied as it is.

mod decode;
mod encode;
mod huffman;
mod integer;
mod lookup;
mod names;
mod static_table;
mod table;
#[cfg(test)]
mod tests;

use http::HeaderName;

use crate::model::{FieldValue, Kinds};

pub use decode::Decoder;
pub use encode::{Encoder, OWN_TABLE_MAX};

/// A table's size before either side said anything about it (RFC 9113 6.5.2).
const TABLE_INITIAL: usize = 4096;

/// What an entry counts beyond its octets (RFC 7541 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// A field's name: one of the pseudo-header fields of RFC 9113 8.3 and RFC 8441 4, or a regular one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// `:method` (RFC 9113 8.3.1).
    Method,
    /// `:scheme` (RFC 9113 8.3.1).
    Scheme,
    /// `:authority` (RFC 9113 8.3.1).
    Authority,
    /// `:path` (RFC 9113 8.3.1).
    Path,
    /// `:protocol` (RFC 8441 4).
    Protocol,
    /// `:status` (RFC 9113 8.3.2).
    Status,
    /// Any name without a colon in front, with what it is: that is found out once for all the times that a table's
    /// entry stands for it.
    Regular(HeaderName, Kinds),
}

impl Name {
    /// A regular name.
    pub fn regular(name: HeaderName) -> Self {
        let kind = Kinds::of(name.as_str());
        Self::Regular(name, kind)
    }

    /// The name as it stands in a block.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Method => ":method",
            Self::Scheme => ":scheme",
            Self::Authority => ":authority",
            Self::Path => ":path",
            Self::Protocol => ":protocol",
            Self::Status => ":status",
            Self::Regular(name, _) => name.as_str(),
        }
    }
}

/// A decoded field line (RFC 7541 1.3). A value that came as never indexed (RFC 7541 6.2.3) is marked
/// sensitive, so that it goes on as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name, without upper case.
    pub name: Name,
    /// The value, without anything that RFC 9113 8.2.1 forbids.
    pub value: FieldValue,
}

/// A field line as a block says it.
#[derive(Clone, Debug)]
pub enum Line<'t> {
    /// An entry of a table, by its index (RFC 7541 6.1). Most lines of most blocks are such ones, so they are lent: who
    /// keeps one copies it to where it is kept, and nowhere else.
    Indexed(&'t Name, &'t FieldValue),
    /// A literal (RFC 7541 6.2).
    Literal(Field),
}

impl Line<'_> {
    /// The field, by itself.
    pub fn into_field(self) -> Field {
        match self {
            Self::Indexed(name, value) => Field {
                name: name.clone(),
                value: value.clone(),
            },
            Self::Literal(field) => field,
        }
    }
}

/// Why a block can't be decoded: a connection error of type COMPRESSION_ERROR (RFC 9113 4.3), because
/// from here on the two tables differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A representation goes on beyond the block (RFC 7541 5.1, 5.2).
    #[error("the header block ends inside a representation")]
    Truncated,
    /// An integer is larger or longer than any that means something (RFC 7541 5.1).
    #[error("an integer of the header block is too large")]
    IntegerTooLarge,
    /// An index is zero or beyond both tables (RFC 7541 2.3.3, 6.1).
    #[error("index {0} is in neither table")]
    NoSuchIndex(usize),
    /// A Huffman-coded string holds EOS (RFC 7541 5.2).
    #[error("a string holds the end-of-string symbol")]
    EndOfString,
    /// A Huffman-coded string ends with more than seven bits or others than EOS begins with
    /// (RFC 7541 5.2).
    #[error("a string's padding is not the beginning of end-of-string")]
    Padding,
    /// A table size update comes after a field line (RFC 7541 4.2).
    #[error("a table size update after a field line")]
    UpdateAfterField,
    /// A table size update is above what we announced (RFC 7541 6.3).
    #[error("a table size update to {0}, above what was announced")]
    UpdateTooLarge(usize),
}

/// What RFC 9113 8.2.1 or 8.3 forbids about a field line: the message is malformed, a stream error,
/// but the tables go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);
