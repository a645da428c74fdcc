//! Rate limits: a bucket of tokens for each key, filled evenly.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::model::RateLimit;

/// Keys of one limit that have a bucket of their own; a new one has the place of those that are full again. When
/// none is, all new ones share one bucket.
pub(super) const KEYS_MAX: usize = 10_000;
/// How often full buckets are looked for at most.
const SWEEP_MIN: Duration = Duration::from_secs(1);

/// When a bucket is empty, kept as the time at which it will be full again: one number says all (GCRA, ITU-T
/// I.371). A bucket that is full is no bucket.
type Full = Instant;

/// The buckets of one rate limit, of one worker.
#[derive(Debug)]
pub(super) struct Buckets {
    full: HashMap<u64, Full, RandomState>,
    /// Of all keys that have no bucket of their own.
    shared: Option<Full>,
    swept: Instant,
}

impl Buckets {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            full: HashMap::default(),
            shared: None,
            swept: now,
        }
    }

    /// Takes a token, or says when there will be one.
    pub(super) fn take(
        &mut self,
        key: u64,
        limit: &RateLimit,
        workers: u32,
        now: Instant,
    ) -> Result<(), Duration> {
        let is_new = !self.full.contains_key(&key);
        if is_new && self.full.len() >= KEYS_MAX {
            self.sweep(now);
        }
        if is_new && self.full.len() >= KEYS_MAX {
            let taken = take(self.shared, limit, workers, now);
            return taken.map(|full| self.shared = Some(full));
        }
        let full = take(self.full.get(&key).copied(), limit, workers, now)?;
        self.full.insert(key, full);
        Ok(())
    }

    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) >= SWEEP_MIN {
            self.swept = now;
            self.full.retain(|_, full| *full > now);
        }
    }
}

/// When the bucket is full after a token was taken, or how long there is none. Each of `workers` workers has its
/// part of the tokens.
fn take(
    full: Option<Full>,
    limit: &RateLimit,
    workers: u32,
    now: Instant,
) -> Result<Full, Duration> {
    // The time in which one token comes.
    let each = limit
        .interval
        .mul_f64(f64::from(workers) / f64::from(limit.requests.max(1)));
    let burst = limit.burst.div_ceil(workers).max(1);
    let after = full.map_or(now, |full| full.max(now)) + each;
    let most = now + each.saturating_mul(burst);
    if after > most {
        return Err(after - most);
    }
    Ok(after)
}
