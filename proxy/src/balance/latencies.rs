//! How long answers of a cluster took lately.

use std::cell::{Cell, RefCell};
use std::time::Duration;

/// Latencies that are kept; the oldest goes.
const KEPT_MAX: usize = 256;
/// Fewer say nothing.
const KNOWN_MIN: usize = 50;
/// New ones after which they are put in order again.
const STALE_AFTER: usize = 32;

/// The last latencies, and what was found when they were put in order.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    kept: RefCell<Vec<Duration>>,
    next: Cell<usize>,
    /// Percentile, its value, and how many came since.
    found: Cell<Option<(u32, Duration, usize)>>,
}

impl Latencies {
    pub(super) fn add(&self, latency: Duration) {
        let mut kept = self.kept.borrow_mut();
        let next = self.next.get();
        if kept.len() < KEPT_MAX {
            kept.push(latency);
        } else {
            kept[next] = latency;
        }
        self.next.set((next + 1) % KEPT_MAX);
        if let Some((percentile, value, since)) = self.found.get() {
            let fresh = (since < STALE_AFTER).then_some((percentile, value, since + 1));
            self.found.set(fresh);
        }
    }

    /// What so many of a hundred are below; nothing while too few are known.
    pub(super) fn percentile(&self, percentile: u32) -> Option<Duration> {
        if let Some((of, value, _)) = self.found.get()
            && of == percentile
        {
            return Some(value);
        }
        let mut sorted = self.kept.borrow().clone();
        if sorted.len() < KNOWN_MIN {
            return None;
        }
        let index = (sorted.len() * percentile as usize / 100).min(sorted.len() - 1);
        let (_, value, _) = sorted.select_nth_unstable(index);
        let value = *value;
        self.found.set(Some((percentile, value, 0)));
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_the_last_ones() {
        let latencies = Latencies::default();
        let add = |milliseconds: u64| latencies.add(Duration::from_millis(milliseconds));
        (0..49).for_each(add);
        assert_eq!(latencies.percentile(95), None);
        add(49);
        assert_eq!(latencies.percentile(95), Some(Duration::from_millis(47)));
        assert_eq!(latencies.percentile(50), Some(Duration::from_millis(25)));
        (0..1000).for_each(|_| add(7));
        assert_eq!(latencies.percentile(95), Some(Duration::from_millis(7)));
        // What is rare doesn't move it.
        (0..10).for_each(|_| add(1000));
        assert_eq!(latencies.percentile(95), Some(Duration::from_millis(7)));
    }
}
