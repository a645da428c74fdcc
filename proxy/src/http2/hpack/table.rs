//! The dynamic table (RFC 7541 2.3.2, 4).

use std::collections::VecDeque;

/// Entries in the order of their arrival, each with its size; what must be dropped is the oldest.
#[derive(Debug)]
pub(super) struct Table<T> {
    entries: VecDeque<(T, usize)>,
    size: usize,
    max: usize,
}

impl<T> Table<T> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max,
        }
    }

    /// What the sizes of all entries together stay at or below.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Changes the maximum and evicts what no longer fits (RFC 7541 4.3).
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
        self.evict_to(max);
    }

    /// Adds an entry as the newest (RFC 7541 4.4); one that is larger than the table only empties it.
    pub(super) fn insert(&mut self, entry: T, size: usize) {
        self.evict_to(self.max.saturating_sub(size));
        if size <= self.max {
            self.size += size;
            self.entries.push_back((entry, size));
        }
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            let Some((_, dropped)) = self.entries.pop_front() else {
                return;
            };
            self.size -= dropped;
        }
    }

    /// The entry and its size that `age` younger ones came after.
    pub(super) fn get(&self, age: usize) -> Option<&(T, usize)> {
        let from_oldest = self.entries.len().checked_sub(age)?.checked_sub(1)?;
        self.entries.get(from_oldest)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries, the newest first, and the sizes of all together.
    #[cfg(test)]
    pub(super) fn contents(
        &self,
        field: impl Fn(&T) -> (super::Name, Vec<u8>),
    ) -> (Vec<(String, String)>, usize) {
        let text = |(entry, _): &(T, usize)| {
            let (name, value) = field(entry);
            let value = String::from_utf8_lossy(&value).into();
            (name.as_str().to_owned(), value)
        };
        (self.entries.iter().rev().map(text).collect(), self.size)
    }
}
