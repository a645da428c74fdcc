//! The budget for repetitions: a share of the requests of the last while, and a few in any case. Without
//! one, retries multiply the load of whoever is in trouble.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::model::RetryBudget;

/// Parts that the interval is counted in.
const PARTS: usize = 10;

/// What was sent to one cluster lately, by one worker.
#[derive(Debug)]
pub(super) struct Budget {
    counts: RefCell<Counts>,
}

#[derive(Debug)]
struct Counts {
    requests: [u32; PARTS],
    retries: [u32; PARTS],
    /// The part that is counted in now, and when it began.
    part: usize,
    since: Instant,
    /// When it was looked last whether that part is over.
    looked: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            counts: RefCell::new(Counts {
                requests: [0; PARTS],
                retries: [0; PARTS],
                part: 0,
                since: now,
                looked: now,
            }),
        }
    }

    /// Counts a request, not its repetitions.
    pub(super) fn request(&self, policy: &RetryBudget, now: Instant) {
        let mut counts = self.counts.borrow_mut();
        counts.turn(policy.interval, now);
        let part = counts.part;
        counts.requests[part] = counts.requests[part].saturating_add(1);
    }

    /// Takes one repetition, if there is one left. `workers` share what is allowed in any case.
    pub(super) fn take(&self, policy: &RetryBudget, workers: u32, now: Instant) -> bool {
        let mut counts = self.counts.borrow_mut();
        counts.turn(policy.interval, now);
        let sum = |parts: &[u32]| parts.iter().map(|part| u64::from(*part)).sum::<u64>();
        let share = sum(&counts.requests) * u64::from(policy.percent) / 100;
        let times = policy.interval.as_secs_f64() / policy.min_interval.as_secs_f64().max(0.001);
        let always = f64::from(policy.min_retries) * times / f64::from(workers.max(1));
        let allowed = share.max(always.ceil() as u64);
        if sum(&counts.retries) >= allowed {
            return false;
        }
        let part = counts.part;
        counts.retries[part] = counts.retries[part].saturating_add(1);
        true
    }
}

impl Counts {
    /// Forgets what is older than the interval.
    fn turn(&mut self, interval: Duration, now: Instant) {
        // Many requests share a look at the clock.
        if now == self.looked {
            return;
        }
        self.looked = now;
        let part = (interval / PARTS as u32).max(Duration::from_millis(1));
        let passed = now.saturating_duration_since(self.since);
        if passed < part {
            return;
        }
        let parts = passed.as_nanos() / part.as_nanos();
        for _ in 0..parts.min(PARTS as u128) {
            self.part = (self.part + 1) % PARTS;
            self.requests[self.part] = 0;
            self.retries[self.part] = 0;
        }
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_and_a_few_in_any_case() {
        let start = Instant::now();
        let policy = RetryBudget::default();
        // Requests one after the other at a rate, and as many repetitions asked for as there are.
        let check = |rate: u32, seconds: u32, workers: u32, expect: u32| {
            let budget = Budget::new(start);
            let mut taken = 0;
            for number in 0..rate * seconds {
                let now = start + Duration::from_secs(1) * number / rate;
                budget.request(&policy, now);
                taken += u32::from(budget.take(&policy, workers, now));
            }
            let most = expect + expect / 10;
            assert!(
                (expect..=most).contains(&taken),
                "{rate} {seconds}: {taken}"
            );
        };
        check(1000, 10, 1, 2000);
        check(1000, 60, 1, 12_000);
        check(20, 10, 1, 100);
        check(20, 10, 2, 50);
        check(5, 10, 1, 50);
    }

    #[test]
    fn what_is_long_ago_counts_no_more() {
        let start = Instant::now();
        let policy = RetryBudget {
            min_retries: 0,
            ..RetryBudget::default()
        };
        let budget = Budget::new(start);
        for _ in 0..100 {
            budget.request(&policy, start);
        }
        let left = |after: u64| {
            let now = start + Duration::from_secs(after);
            std::iter::repeat_with(|| budget.take(&policy, 1, now))
                .take_while(|taken| *taken)
                .count()
        };
        assert_eq!([left(0), left(5), left(30)], [20, 0, 0]);
    }
}
