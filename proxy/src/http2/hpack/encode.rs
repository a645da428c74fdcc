//! Encoding of header blocks (RFC 7541 6), and what is worth a place in the peer's table.

use bytes::{Bytes, BytesMut};
use http::HeaderName;

use super::lookup::{Lookup, Recent, hash};
use super::static_table::{self, ENTRIES, Policy};
use super::table::Table;
use super::{ENTRY_OVERHEAD, Name, TABLE_INITIAL, huffman, integer};
use crate::model::{Chunks, FieldValue};

/// Most of a peer's table that is used; what it allows beyond is not, for what repeats on a connection
/// fits here and we have to keep a copy of it.
pub const OWN_TABLE_MAX: usize = 4096;
/// Share of the table that one entry may take; a larger one is sent as a literal each time, because it
/// would drive out too much that is worth more.
const ENTRY_SHARE: usize = 4;
/// Octets below which a cookie could be guessed (RFC 7541 7.1.3).
const SHORT_COOKIE: usize = 20;
/// A chunk of the table's values; see the decoder's for how much they pin together.
const KEPT_CHUNK: usize = 1024;

/// The first bits of the representations of RFC 7541 6, and the bits that are left for an integer.
const INDEXED: (u8, u32) = (0x80, 7);
const ADDED: (u8, u32) = (0x40, 6);
const UPDATE: (u8, u32) = (0x20, 5);
const NEVER_INDEXED: (u8, u32) = (0x10, 4);
const NOT_ADDED: (u8, u32) = (0x00, 4);
/// The same for strings (RFC 7541 5.2).
const HUFFMAN_STRING: (u8, u32) = (0x80, 7);
const PLAIN_STRING: (u8, u32) = (0x00, 7);

/// Fields of a block that are remembered for the next one.
const BEFORE_MAX: usize = 16;

/// Which whole entry a field was sent as.
#[derive(Clone, Copy, Debug)]
enum Sent {
    /// By its index.
    Static(usize),
    /// By the number that it was inserted under.
    Dynamic(u32),
}

/// One direction of a connection, as its sender sees it.
///
/// A value enters the table when it is sent for the second time within a short while, so that those
/// that occur once never drive out those that repeat: what is the same in each message is one octet
/// from the third on. A name whose values never repeat enters in the same way.
#[derive(Debug)]
pub struct Encoder {
    table: Table<Entry>,
    /// The number that the next entry is inserted under.
    next: u32,
    lookup: Lookup,
    recent: Recent,
    /// How each field of the last block was sent, in their order: mostly the next block has the same ones.
    before: [Option<Sent>; BEFORE_MAX],
    /// Fields of this block so far.
    position: usize,
    kept: Chunks,
    peer_max: usize,
    /// The smallest and the last maximum since the last block, if there was any.
    update: Option<(usize, usize)>,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    value: Bytes,
}

/// A name that is about to be sent.
struct Subject<'a> {
    name: &'a str,
    hash: u32,
    /// Its first entry in the static table.
    index: Option<usize>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// For a peer whose table has the protocol's initial size of 4096 octets (RFC 9113 6.5.2).
    pub fn new() -> Self {
        Self {
            table: Table::new(TABLE_INITIAL.min(OWN_TABLE_MAX)),
            next: 0,
            lookup: Lookup::new(),
            recent: Recent::new(),
            before: [None; BEFORE_MAX],
            position: 0,
            kept: Chunks::new(KEPT_CHUNK),
            peer_max: TABLE_INITIAL,
            update: None,
        }
    }

    /// Takes the peer's SETTINGS_HEADER_TABLE_SIZE. The next block begins with the table size update
    /// that it demands; of several values the smallest and the last (RFC 7541 4.2).
    pub fn set_peer_max(&mut self, max: usize) {
        if self.peer_max == max {
            return;
        }
        self.peer_max = max;
        let max = max.min(OWN_TABLE_MAX);
        let smallest = self.update.map_or(max, |(smallest, _)| smallest.min(max));
        self.update = Some((smallest, max));
    }

    /// Begins a block; to be called before its first field.
    pub fn begin(&mut self, out: &mut BytesMut) {
        self.position = 0;
        let Some((smallest, last)) = self.update.take() else {
            return;
        };
        if smallest < last {
            self.table.set_max(smallest);
            put(out, UPDATE, smallest);
        }
        self.table.set_max(last);
        put(out, UPDATE, last);
    }

    /// Appends a pseudo-header field.
    pub fn pseudo(&mut self, out: &mut BytesMut, name: &Name, value: &[u8]) {
        let position = self.next_position();
        if let Some(index) = self.as_before(position, |known| known == name, value) {
            return put(out, INDEXED, index);
        }
        let index = match name {
            Name::Authority => Some(1),
            Name::Method => Some(2),
            Name::Path => Some(4),
            Name::Scheme => Some(6),
            Name::Status => Some(8),
            Name::Protocol | Name::Regular(..) => None,
        };
        let text = name.as_str();
        let subject = Subject {
            name: text,
            hash: hash(0, text.as_bytes()),
            index,
        };
        let sent = self.line(out, &subject, value, || name.clone());
        self.remember(position, sent);
    }

    /// Appends a regular field.
    pub fn field(&mut self, out: &mut BytesMut, name: &HeaderName, value: &FieldValue) {
        self.octets(out, name, value.as_bytes(), value.is_sensitive());
    }

    /// The same for a value that is no [`FieldValue`]. A `sensitive` one never enters a table.
    pub fn octets(
        &mut self,
        out: &mut BytesMut,
        name: &HeaderName,
        octets: &[u8],
        sensitive: bool,
    ) {
        let position = self.next_position();
        let same = |known: &Name| matches!(known, Name::Regular(known, _) if known == name);
        if !sensitive && let Some(index) = self.as_before(position, same, octets) {
            return put(out, INDEXED, index);
        }
        let text = name.as_str();
        let hash = hash(0, text.as_bytes());
        let (index, policy) = static_table::known(text, hash);
        let subject = Subject {
            name: text,
            hash,
            index,
        };
        let secret = match policy {
            Policy::Secret => true,
            Policy::Cookie => octets.len() < SHORT_COOKIE,
            Policy::Usual | Policy::Changing => false,
        };
        let sent = if secret || sensitive {
            self.literal(out, NEVER_INDEXED, &subject, octets);
            None
        } else if policy == Policy::Changing {
            self.changing(out, subject, octets, name);
            None
        } else {
            self.line(out, &subject, octets, || Name::regular(name.clone()))
        };
        self.remember(position, sent);
    }

    fn next_position(&mut self) -> usize {
        let position = self.position;
        self.position += 1;
        position
    }

    fn remember(&mut self, position: usize, sent: Option<Sent>) {
        if let Some(before) = self.before.get_mut(position) {
            *before = sent;
        }
    }

    /// The index of the entry that the field of this position was in the last block, if that has this value and a
    /// name that is the same. What may not stand in a table never got into one, so nothing else is asked.
    fn as_before(
        &self,
        position: usize,
        is_same: impl Fn(&Name) -> bool,
        value: &[u8],
    ) -> Option<usize> {
        let (index, name, known) = match (*self.before.get(position)?)? {
            Sent::Static(index) => {
                let field = &ENTRIES.get(index - 1)?.field;
                (index, &field.name, field.value.as_bytes())
            }
            Sent::Dynamic(number) => {
                let age = age(self.next, number);
                let (entry, _) = self.table.get(age)?;
                (ENTRIES.len() + 1 + age, &entry.name, &*entry.value)
            }
        };
        (known == value && is_same(name)).then_some(index)
    }

    /// Appends a field line that may be in a table or come into it, under the name that `owned` gives. Returns which
    /// whole entry stands for it now.
    fn line(
        &mut self,
        out: &mut BytesMut,
        subject: &Subject<'_>,
        value: &[u8],
        owned: impl FnOnce() -> Name,
    ) -> Option<Sent> {
        let in_static = subject.index.and_then(|i| static_table::find(i, value));
        if let Some(index) = in_static {
            put(out, INDEXED, index);
            return Some(Sent::Static(index));
        }
        let size = subject.name.len() + value.len() + ENTRY_OVERHEAD;
        if size > self.table.max() / ENTRY_SHARE {
            self.literal(out, NOT_ADDED, subject, value);
            return None;
        }
        let hash = hash(subject.hash, value);
        let same = |entry: &Entry| entry.value == value && entry.name.as_str() == subject.name;
        if let Some(number) = self.find(hash, same) {
            put(out, INDEXED, self.index(number));
            return Some(Sent::Dynamic(number));
        }
        if !self.recent.again(hash) {
            self.literal(out, NOT_ADDED, subject, value);
            return None;
        }
        self.name(out, ADDED, subject, put_short);
        put_short(out, value);
        let entry = Entry {
            name: owned(),
            value: self.kept.copy(value),
        };
        Some(Sent::Dynamic(self.insert(entry, size, hash, subject)))
    }

    /// Appends a field line whose next value is another one. What repeats is its name, so that enters the table, with
    /// the value that it happens to have.
    fn changing(
        &mut self,
        out: &mut BytesMut,
        mut subject: Subject<'_>,
        value: &[u8],
        name: &HeaderName,
    ) {
        let size = subject.name.len() + value.len() + ENTRY_OVERHEAD;
        let fits = size <= self.table.max() / ENTRY_SHARE;
        subject.index = subject.index.or_else(|| self.find_name(&subject));
        if subject.index.is_some() || !fits || !self.recent.again(subject.hash) {
            return self.literal(out, NOT_ADDED, &subject, value);
        }
        self.literal(out, ADDED, &subject, value);
        let entry = Entry {
            name: Name::regular(name.clone()),
            value: self.kept.copy(value),
        };
        let hash = hash(subject.hash, value);
        self.insert(entry, size, hash, &subject);
    }

    /// The dynamic table, as the decoder has it.
    #[cfg(test)]
    pub(super) fn contents(&self) -> (Vec<(String, String)>, usize) {
        let field = |entry: &Entry| (entry.name.clone(), entry.value.to_vec());
        self.table.contents(field)
    }

    /// Adds an entry, and returns its number.
    fn insert(&mut self, entry: Entry, size: usize, hash: u32, subject: &Subject<'_>) -> u32 {
        self.table.insert(entry, size);
        let number = self.next;
        self.next = number.wrapping_add(1);
        let (next, len) = (self.next, self.table.len());
        // The entry itself is alive too, so its name does not take the place that it just got.
        let alive = |number: u32| age(next, number) < len;
        self.lookup.insert(hash, number, alive);
        if subject.index.is_none() {
            self.lookup.insert(subject.hash, number, alive);
        }
        number
    }

    /// The number of an entry with this hash for which `is_it` holds.
    fn find(&self, hash: u32, is_it: impl Fn(&Entry) -> bool) -> Option<u32> {
        self.lookup.find(hash, |number| {
            let entry = self.table.get(age(self.next, number));
            entry.is_some_and(|(entry, _)| is_it(entry))
        })
    }

    /// The index of the entry that was inserted under this number, and is there.
    fn index(&self, number: u32) -> usize {
        ENTRIES.len() + 1 + age(self.next, number)
    }

    /// The index of an entry of the dynamic table that has this name.
    fn find_name(&self, subject: &Subject<'_>) -> Option<usize> {
        let same = |entry: &Entry| entry.name.as_str() == subject.name;
        Some(self.index(self.find(subject.hash, same)?))
    }

    /// Appends a literal that mostly stays out of the table, as plain octets: coding them would cost more
    /// than it saves between two proxies of one cluster.
    fn literal(&self, out: &mut BytesMut, form: (u8, u32), subject: &Subject<'_>, value: &[u8]) {
        self.name(out, form, subject, put_plain);
        put_plain(out, value);
    }

    /// Appends a literal's beginning: the index of its name, or the name as a string.
    fn name(
        &self,
        out: &mut BytesMut,
        form: (u8, u32),
        subject: &Subject<'_>,
        put_string: fn(&mut BytesMut, &[u8]),
    ) {
        match subject.index.or_else(|| self.find_name(subject)) {
            Some(index) => put(out, form, index),
            None => {
                put(out, form, 0);
                put_string(out, subject.name.as_bytes());
            }
        }
    }
}

/// How many entries came after the one with this number; far too many for one that is gone.
fn age(next: u32, number: u32) -> usize {
    next.wrapping_sub(number).wrapping_sub(1) as usize
}

fn put(out: &mut BytesMut, (flags, prefix): (u8, u32), integer: usize) {
    integer::encode(out, flags, prefix, integer);
}

fn put_plain(out: &mut BytesMut, octets: &[u8]) {
    put(out, PLAIN_STRING, octets.len());
    out.extend_from_slice(octets);
}

/// Appends a string in the shorter of its two forms.
fn put_short(out: &mut BytesMut, octets: &[u8]) {
    let coded = huffman::encoded_len(octets);
    if coded < octets.len() {
        put(out, HUFFMAN_STRING, coded);
        huffman::encode(octets, out);
    } else {
        put_plain(out, octets);
    }
}
