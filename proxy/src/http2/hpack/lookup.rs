//! Finding an entry of the encoder's table, and remembering what was sent lately, by hashes.
//!
//! Nothing here is ever trusted: who finds an entry compares its octets, and who chooses values so
//! that their hashes collide gets longer blocks for it, never longer searches.

/// Places for entries; a table of 4096 octets has 128 at most, each with up to two hashes.
const SLOTS: usize = 256;
/// Neighbouring places that are searched for a hash.
const WINDOW: usize = 8;
/// Places for the hashes of what was sent lately.
const RECENT: usize = 64;
/// Places that one of them may be in.
const WAYS: usize = 8;

/// Goes on from `seed` (the name's hash, for a value; else zero) over all of `octets`.
pub(super) const fn hash(seed: u32, octets: &[u8]) -> u32 {
    /// An odd number whose bits look random, as rustc's own hash has it.
    const FACTOR: u64 = 0xf135_7aea_2e62_a9c5;
    let mut state = (seed as u64 ^ (octets.len() as u64) << 32).wrapping_mul(FACTOR);
    let mut rest = octets;
    while let Some((eight, after)) = rest.split_first_chunk::<8>() {
        state = (state.rotate_left(23) ^ u64::from_le_bytes(*eight)).wrapping_mul(FACTOR);
        rest = after;
    }
    let mut tail = 0;
    if let Some((four, after)) = rest.split_first_chunk::<4>() {
        tail = u32::from_le_bytes(*four) as u64;
        rest = after;
    }
    while let Some((octet, after)) = rest.split_first() {
        tail = tail << 8 | *octet as u64;
        rest = after;
    }
    state = (state.rotate_left(23) ^ tail).wrapping_mul(FACTOR);
    (state >> 32) as u32
}

/// Where the entries with certain hashes are, by the numbers that they were inserted under.
#[derive(Debug)]
pub(super) struct Lookup {
    /// Hash and number; nothing is ever removed, a number that is no longer alive is a free place.
    slots: Box<[(u32, u32); SLOTS]>,
}

impl Lookup {
    pub(super) fn new() -> Self {
        Self {
            slots: Box::new([(0, 0); SLOTS]),
        }
    }

    /// The number of an entry with this hash for which `is_it` holds.
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        (0..WINDOW).find_map(|step| {
            let (known, number) = self.slots[place(hash, step)];
            (known == hash && is_it(number)).then_some(number)
        })
    }

    /// Takes an entry in. Where its neighbourhood is full of others, one of them is found no more.
    pub(super) fn insert(&mut self, hash: u32, number: u32, alive: impl Fn(u32) -> bool) {
        let free = (0..WINDOW).find(|step| {
            let (known, other) = self.slots[place(hash, *step)];
            known == hash || !alive(other)
        });
        self.slots[place(hash, free.unwrap_or(0))] = (hash, number);
    }
}

const fn place(hash: u32, step: usize) -> usize {
    (hash as usize + step) % SLOTS
}

/// Which hashes were seen lately. Each has a set of places, where the newest drives out the oldest: two fields of every
/// block that had one place together would drive each other out for ever.
#[derive(Debug)]
pub(super) struct Recent([[u32; WAYS]; RECENT / WAYS]);

impl Recent {
    pub(super) fn new() -> Self {
        Self([[0; WAYS]; RECENT / WAYS])
    }

    /// Whether this was called with the same hash not long ago.
    pub(super) fn again(&mut self, hash: u32) -> bool {
        let set = &mut self.0[hash as usize % (RECENT / WAYS)];
        if set.contains(&hash) {
            return true;
        }
        set.rotate_right(1);
        set[0] = hash;
        false
    }
}
