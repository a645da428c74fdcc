//! Decoding of header blocks (RFC 7541 3.2, 6).

use super::names::Names;
use super::static_table::ENTRIES;
use super::table::Table;
use super::{ENTRY_OVERHEAD, Error, Field, Line, Malformed, Name, TABLE_INITIAL, huffman, integer};
use crate::model::{Chunks, FieldValue};

/// A chunk of values that only their message holds. It is in memory as long as one of them is, so a
/// message holds one chunk at most beyond what it is made of.
const PASSING_CHUNK: usize = 2048;
/// A chunk of values of the table. Entries leave in the order in which they came, so all their chunks
/// together are at most twice the table's size and two chunks.
const KEPT_CHUNK: usize = 1024;
/// Decoded octets that room is kept for between blocks.
const SCRATCH_KEPT: usize = 4096;

/// One direction of a connection, as its receiver sees it. After an [`Error`] it must not be used
/// again.
#[derive(Debug)]
pub struct Decoder {
    table: Table<Entry>,
    table_max: usize,
    names: Names,
    passing: Chunks,
    kept: Chunks,
    scratch: Vec<u8>,
}

/// An entry of the dynamic table. What is malformed about it is kept in place of the octets: it is
/// malformed again each time, whether the whole entry or its name is referred to.
#[derive(Clone, Debug)]
struct Entry {
    name: Result<Name, Malformed>,
    name_len: usize,
    value: Result<FieldValue, Malformed>,
}

impl Entry {
    fn into_line(self) -> Result<Line<'static>, Malformed> {
        Ok(Line::Literal(Field {
            name: self.name?,
            value: self.value?,
        }))
    }

    fn lend(&self) -> Result<Line<'_>, Malformed> {
        match (&self.name, &self.value) {
            (Ok(name), Ok(value)) => Ok(Line::Indexed(name, value)),
            (Err(malformed), _) | (_, Err(malformed)) => Err(*malformed),
        }
    }
}

impl Decoder {
    /// `table_max` is the SETTINGS_HEADER_TABLE_SIZE that we announced, which no table size update
    /// may exceed. The table has the initial 4096 octets until the first one (RFC 9113 4.3.1), also
    /// when less was announced: until the peer has seen that, it is right to use them.
    pub fn new(table_max: usize) -> Self {
        Self {
            table: Table::new(TABLE_INITIAL),
            table_max,
            names: Names::default(),
            passing: Chunks::new(PASSING_CHUNK),
            kept: Chunks::new(KEPT_CHUNK),
            scratch: Vec::new(),
        }
    }

    /// Decodes a whole header block, all its fragments joined. `each` gets every field line in order,
    /// with its size as RFC 7541 4.1 counts it.
    pub fn decode(
        &mut self,
        block: &[u8],
        mut each: impl FnMut(Result<Line<'_>, Malformed>, usize),
    ) -> Result<(), Error> {
        let mut input = block;
        let mut updates_allowed = true;
        while let Some(first) = input.first() {
            match first {
                0x80.. => {
                    let index = integer::decode(&mut input, 7)?;
                    let (line, size) = self.indexed(index)?;
                    each(line, size);
                }
                0x40..0x80 => {
                    let (entry, size) = self.literal(&mut input, 6)?;
                    self.table.insert(entry.clone(), size);
                    each(entry.into_line(), size);
                }
                0x20..0x40 => {
                    if !updates_allowed {
                        return Err(Error::UpdateAfterField);
                    }
                    let max = integer::decode(&mut input, 5)?;
                    if max > self.table_max {
                        return Err(Error::UpdateTooLarge(max));
                    }
                    self.table.set_max(max);
                    continue;
                }
                0x10..0x20 => {
                    let (mut entry, size) = self.literal(&mut input, 4)?;
                    if let Ok(value) = &mut entry.value {
                        value.set_sensitive(true);
                    }
                    each(entry.into_line(), size);
                }
                0x00..0x10 => {
                    let (entry, size) = self.literal(&mut input, 4)?;
                    each(entry.into_line(), size);
                }
            }
            updates_allowed = false;
        }
        if self.scratch.len() > SCRATCH_KEPT {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    /// An indexed field line (RFC 7541 6.1), its size too.
    fn indexed(&self, index: usize) -> Result<(Result<Line<'_>, Malformed>, usize), Error> {
        let missing = Error::NoSuchIndex(index);
        let place = index.checked_sub(1).ok_or(missing)?;
        if let Some(entry) = ENTRIES.get(place) {
            let Field { name, value } = &entry.field;
            return Ok((Ok(Line::Indexed(name, value)), entry.size));
        }
        let (entry, size) = self.table.get(place - ENTRIES.len()).ok_or(missing)?;
        Ok((entry.lend(), *size))
    }

    /// A literal field line, whose name may be an index of `prefix` bits (RFC 7541 6.2).
    fn literal(&mut self, input: &mut &[u8], prefix: u32) -> Result<(Entry, usize), Error> {
        let index = integer::decode(input, prefix)?;
        let (name, name_len) = if index == 0 {
            let octets = string(input, &mut self.scratch)?;
            (self.names.name(octets), octets.len())
        } else {
            self.indexed_name(index)?
        };
        let octets = string(input, &mut self.scratch)?;
        let indexed = prefix == 6;
        let chunks = if indexed {
            &mut self.kept
        } else {
            &mut self.passing
        };
        let entry = Entry {
            name,
            name_len,
            value: value(octets, chunks),
        };
        Ok((entry, name_len + octets.len() + ENTRY_OVERHEAD))
    }

    fn indexed_name(&self, index: usize) -> Result<(Result<Name, Malformed>, usize), Error> {
        let missing = Error::NoSuchIndex(index);
        let place = index.checked_sub(1).ok_or(missing)?;
        if let Some(entry) = ENTRIES.get(place) {
            return Ok((Ok(entry.field.name.clone()), entry.name.len()));
        }
        let (entry, _) = self.table.get(place - ENTRIES.len()).ok_or(missing)?;
        Ok((entry.name.clone(), entry.name_len))
    }

    /// The dynamic table as RFC 7541 Appendix C prints it.
    #[cfg(test)]
    pub(super) fn contents(&self) -> (Vec<(String, String)>, usize) {
        self.table.contents(|entry| {
            let line = entry.lend().expect("no malformed entries");
            let Field { name, value } = line.into_field();
            (name, value.as_bytes().to_vec())
        })
    }
}

/// A string literal (RFC 7541 5.2), within the block or decoded into `scratch`.
fn string<'s, 'b: 's>(input: &mut &'b [u8], scratch: &'s mut Vec<u8>) -> Result<&'s [u8], Error> {
    let huffman = input.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer::decode(input, 7)?;
    let (octets, rest) = input.split_at_checked(length).ok_or(Error::Truncated)?;
    *input = rest;
    if huffman {
        huffman::decode(octets, scratch)
    } else {
        Ok(octets)
    }
}

/// The value that `octets` are (RFC 9113 8.2.1, RFC 9110 5.5).
fn value(octets: &[u8], chunks: &mut Chunks) -> Result<FieldValue, Malformed> {
    let blank = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
    if blank(octets.first()) || blank(octets.last()) {
        return Err(Malformed("a field value that begins or ends with a blank"));
    }
    FieldValue::made_of(octets, |octets| chunks.copy(octets))
        .map_err(|_| Malformed("a field value with a control character"))
}
