//! Consistent hashing by a Maglev table (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
//! Balancer", 2016, section 3.4): a key keeps its endpoint as long as that one is there, whoever else comes or
//! goes, but for few. Endpoints take turns at the table's entries, each as often as it weighs.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::model::{Cluster, Endpoint};

/// Entries of the table, a prime: many more than endpoints, so that each has nearly its share. Four bytes each.
const ENTRIES: u64 = 65_537;
/// Weights are scaled down so that none is above this.
const TURNS_MAX: u64 = 64;

/// The endpoints of a cluster, by key.
#[derive(Debug)]
pub(super) struct Table {
    endpoints: Vec<Arc<Endpoint>>,
    entries: Vec<u32>,
}

/// The same for the same value, in every proxy and for ever.
pub fn key_hash(value: &impl Hash) -> u64 {
    FixedState::with_seed(0x7765_6674).hash_one(value)
}

/// The hash by which a client may name an endpoint.
pub fn endpoint_hash(id: &str) -> u64 {
    key_hash(&id)
}

struct Place {
    next: u64,
    skip: u64,
    turns: u64,
}

impl Table {
    pub(super) fn new(cluster: &Cluster) -> Self {
        let usable = cluster.endpoints.iter();
        let usable = usable.filter(|endpoint| endpoint.weight > 0);
        let endpoints: Vec<Arc<Endpoint>> = usable.take(ENTRIES as usize).cloned().collect();
        let heaviest = endpoints.iter().map(|one| u64::from(one.weight)).max();
        let heaviest = heaviest.unwrap_or(1);
        let lightest = endpoints.iter().map(|one| u64::from(one.weight)).min();
        let scale = heaviest.min(TURNS_MAX) / lightest.unwrap_or(1).max(1);
        let place = |endpoint: &Arc<Endpoint>| {
            let id: &str = &endpoint.id;
            let turns = u64::from(endpoint.weight) * scale.clamp(1, TURNS_MAX) / heaviest;
            Place {
                next: key_hash(&(id, 1_u8)) % ENTRIES,
                skip: key_hash(&(id, 2_u8)) % (ENTRIES - 1) + 1,
                turns: turns.max(1),
            }
        };
        let mut places: Vec<Place> = endpoints.iter().map(place).collect();
        let mut entries = vec![u32::MAX; ENTRIES as usize];
        let mut filled = 0;
        while filled < ENTRIES && !places.is_empty() {
            for (index, place) in places.iter_mut().enumerate() {
                for _ in 0..place.turns {
                    if filled == ENTRIES {
                        break;
                    }
                    while entries[place.next as usize] != u32::MAX {
                        place.next = (place.next + place.skip) % ENTRIES;
                    }
                    entries[place.next as usize] = index as u32;
                    filled += 1;
                }
            }
        }
        Self { endpoints, entries }
    }

    /// The endpoint of a key, then those that would be asked after it; the same one may come again.
    pub(super) fn of(&self, key: u64) -> impl Iterator<Item = &Arc<Endpoint>> {
        let first = key % ENTRIES;
        let entries = (0..ENTRIES).map(move |step| ((first + step) % ENTRIES) as usize);
        entries.filter_map(|entry| self.endpoints.get(self.entries[entry] as usize))
    }
}
