//! Failures that were tried again already, so that retries don't multiply over the depth of a call tree: whoever
//! calls us is told that another attempt was made below, and spares us his own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

/// How long a trace's failure is remembered: as long as a call above it may still be waiting, mostly.
const KEPT: Duration = Duration::from_secs(10);
/// Traces remembered; with more, a failure is forgotten and may be tried again above.
const TRACES_MAX: usize = 8192;

/// Traces in which a call of our workload failed for good. Cloning shares it, over all workers. It is looked at
/// only when something fails.
#[derive(Clone, Debug, Default)]
pub struct Spent(Arc<Mutex<HashMap<[u8; 16], Instant, RandomState>>>);

impl Spent {
    /// A call of this trace failed, and no further attempt is made here.
    pub fn insert(&self, trace_id: [u8; 16], now: Instant) {
        let mut traces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if traces.len() >= TRACES_MAX {
            traces.retain(|_, at| now.saturating_duration_since(*at) < KEPT);
        }
        if traces.len() < TRACES_MAX {
            traces.insert(trace_id, now);
        }
    }

    /// Whether such a call was made for this trace.
    pub fn contains(&self, trace_id: &[u8; 16], now: Instant) -> bool {
        let traces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = traces.get(trace_id);
        at.is_some_and(|at| now.saturating_duration_since(*at) < KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_remembered_for_a_while_and_not_too_many() {
        let (spent, now) = (Spent::default(), Instant::now());
        let trace = |number: usize| (number as u128).to_be_bytes();
        spent.insert(trace(1), now);
        assert!(spent.clone().contains(&trace(1), now + KEPT / 2));
        assert!(!spent.contains(&trace(1), now + KEPT));
        assert!(!spent.contains(&trace(2), now));
        for number in 0..2 * TRACES_MAX {
            spent.insert(trace(number), now);
        }
        assert!(!spent.contains(&trace(TRACES_MAX), now));
        spent.insert(trace(TRACES_MAX), now + KEPT);
        assert!(spent.contains(&trace(TRACES_MAX), now + KEPT));
        assert_eq!(spent.0.lock().unwrap().len(), 1);
    }
}
