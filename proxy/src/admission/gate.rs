//! Who is let in to an application, who waits, and who is sent away: as many as [`Gradient`] finds best at once,
//! the important before the others. The time is handed in, and a ticket is whatever the caller waits by.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::gradient::{Bounds, Gradient};
use crate::model::{Concurrency, Priority};

/// Classes of importance.
const CLASSES: usize = 3;
/// A queue that wasn't empty for this long stands: the application has more to do than it can, and waiting longer
/// helps nobody.
const STANDING: Duration = Duration::from_secs(1);
/// How much shorter the wait is in a queue that stands.
const STANDING_FACTOR: u32 = 25;

/// What becomes of one more request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Admitted,
    /// Until its ticket comes out of [`Gate::next`], at most this long.
    Waits(Duration),
    Refused,
}

/// One application port, seen by one worker.
#[derive(Debug)]
pub(super) struct Gate<T> {
    gradient: Gradient,
    in_flight: u32,
    queues: [VecDeque<T>; CLASSES],
    waiting: usize,
    /// Since when somebody of a class waits.
    queued_since: [Option<Instant>; CLASSES],
    /// How many would have had to wait, where the limit isn't kept.
    pub exceeded: u64,
}

impl<T> Gate<T> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            gradient: Gradient::new(now),
            in_flight: 0,
            queues: std::array::from_fn(|_| VecDeque::new()),
            waiting: 0,
            queued_since: [None; CLASSES],
            exceeded: 0,
        }
    }

    pub(super) fn limit(&self, policy: &Concurrency) -> u32 {
        self.gradient.limit(bounds(policy))
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// One more request; `ticket` is made when it has to wait.
    pub(super) fn arrive(
        &mut self,
        priority: Priority,
        policy: &Concurrency,
        now: Instant,
        ticket: impl FnOnce() -> T,
    ) -> Arrival {
        match self.enter(policy) {
            true => Arrival::Admitted,
            false => self.queue(priority, policy, now, ticket),
        }
    }

    /// Lets one more request in, where it doesn't have to wait.
    pub(super) fn enter(&mut self, policy: &Concurrency) -> bool {
        let is_full = self.in_flight >= self.limit(policy);
        if policy.enforced && (is_full || self.waiting > 0) {
            return false;
        }
        self.exceeded += u64::from(is_full);
        self.admit();
        true
    }

    fn admit(&mut self) {
        self.in_flight += 1;
        self.gradient.started(self.in_flight);
    }

    fn queue(
        &mut self,
        priority: Priority,
        policy: &Concurrency,
        now: Instant,
        ticket: impl FnOnce() -> T,
    ) -> Arrival {
        let class = class(priority);
        if self.waiting >= policy.pending_max as usize {
            // The least important that came last makes room, if there is one less important than this.
            let Some(lesser) = (0..class).find(|lesser| !self.queues[*lesser].is_empty()) else {
                return Arrival::Refused;
            };
            self.queues[lesser].pop_back();
            self.waiting -= 1;
        }
        self.queues[class].push_back(ticket());
        self.waiting += 1;
        let since = *self.queued_since[class].get_or_insert(now);
        let stands = now.saturating_duration_since(since) >= STANDING;
        Arrival::Waits(match stands {
            true => policy.queue_timeout / STANDING_FACTOR,
            false => policy.queue_timeout,
        })
    }

    /// The ticket of whoever is let in next, if there is room: he counts as let in. Tickets of those who gave up
    /// come out as well; for them [`Self::gone`] is to be called.
    pub(super) fn next(&mut self, policy: &Concurrency) -> Option<T> {
        if self.in_flight >= self.limit(policy) && policy.enforced {
            return None;
        }
        let class = (0..CLASSES)
            .rev()
            .find(|class| !self.queues[*class].is_empty())?;
        let ticket = self.queues[class].pop_front()?;
        self.waiting -= 1;
        if self.queues[class].is_empty() {
            self.queued_since[class] = None;
        }
        self.admit();
        Some(ticket)
    }

    /// Whoever was let in last had given up.
    pub(super) fn gone(&mut self) {
        self.in_flight -= 1;
    }

    /// Forgets tickets of those who gave up.
    pub(super) fn retain(&mut self, stays: impl Fn(&T) -> bool) {
        for (queue, since) in self.queues.iter_mut().zip(&mut self.queued_since) {
            queue.retain(&stays);
            if queue.is_empty() {
                *since = None;
            }
        }
        self.waiting = self.queues.iter().map(VecDeque::len).sum();
    }

    /// A request that was let in is over: answered after this long, or without an answer that says anything of
    /// how much the application has to do.
    pub(super) fn finished(
        &mut self,
        latency: Option<Duration>,
        policy: &Concurrency,
        now: Instant,
    ) {
        self.in_flight -= 1;
        if let Some(latency) = latency {
            let how = (bounds(policy), policy.enforced);
            self.gradient.answered(latency, self.in_flight, how, now);
        }
    }
}

fn bounds(policy: &Concurrency) -> Bounds {
    Bounds {
        min: policy.min,
        max: policy.max.max(policy.min),
    }
}

fn class(priority: Priority) -> usize {
    match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
    }
}
