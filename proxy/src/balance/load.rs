//! What a worker knows of an endpoint. It outlives a push: it is kept by the endpoint's name.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::model::HealthCheck;

/// An endpoint that takes no connection is left out this long; doubled each time, up to
/// [`REFUSED_MAX`], until it serves again.
pub(super) const REFUSED_MIN: Duration = Duration::from_millis(500);
/// See [`REFUSED_MIN`].
const REFUSED_MAX: Duration = Duration::from_secs(30);
/// How long a latency that was seen counts: after this time a third of it is left.
const LATENCY_DECAY: Duration = Duration::from_secs(10);
/// An endpoint is asked to wait (`retry-after`) no longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// One endpoint's state.
#[derive(Debug)]
pub(super) struct Load {
    pub outstanding: Cell<u32>,
    /// Since when it is known here.
    pub since: Instant,
    /// It takes no connections until then.
    unreachable_until: Cell<Option<Instant>>,
    /// It serves badly, or asked to be spared, until then.
    spared_until: Cell<Option<Instant>>,
    check: Cell<Check>,
    /// Connections that it did not take, in a row.
    refusals: Cell<u32>,
    /// Failures in a row.
    pub failures: Cell<u32>,
    /// How often it was found to be an outlier, without a time of good service between.
    pub ejections: Cell<u32>,
    /// Seconds, decaying from its peaks, and when it was last looked at.
    latency: Cell<(f64, Instant)>,
    pub window: Cell<Window>,
}

/// What health checks said.
#[derive(Clone, Copy, Debug, Default)]
struct Check {
    /// When the next one is due; not before the first is planned.
    due: Option<Instant>,
    is_running: bool,
    /// How the last one ended, and how many before it ended the same way.
    passed: bool,
    in_a_row: u32,
    /// It gets nothing.
    is_unhealthy: bool,
}

/// What was seen since endpoints were last compared.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    pub answers: u32,
    pub failures: u32,
    pub seconds: f64,
}

impl Load {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            outstanding: Cell::new(0),
            since: now,
            unreachable_until: Cell::new(None),
            spared_until: Cell::new(None),
            check: Cell::new(Check::default()),
            refusals: Cell::new(0),
            failures: Cell::new(0),
            ejections: Cell::new(0),
            latency: Cell::new((0.0, now)),
            window: Cell::new(Window::default()),
        }
    }

    /// Whether it gets nothing for now. In a panic only those are left out that take no connection.
    pub(super) fn is_left_out(&self, now: Instant, panics: bool) -> bool {
        let until = self.unreachable_until.get();
        until.is_some_and(|until| now < until) || (!panics && self.is_ill(now))
    }

    /// Whether it is thought not to serve well, though it may be reached.
    pub(super) fn is_ill(&self, now: Instant) -> bool {
        self.check.get().is_unhealthy || self.spared_until.get().is_some_and(|until| now < until)
    }

    /// Leaves it out until then.
    pub(super) fn spare(&self, until: Instant) {
        let later = self.spared_until.get().map_or(until, |at| at.max(until));
        self.spared_until.set(Some(later));
    }

    /// Whether it is to be asked now how it is; then it counts as asked.
    pub(super) fn is_check_due(&self, first: Instant, now: Instant) -> bool {
        let mut check = self.check.get();
        let due = *check.due.get_or_insert(first);
        let is_due = !check.is_running && due <= now;
        check.is_running |= is_due;
        self.check.set(check);
        is_due
    }

    /// It answered a check, or did not.
    pub(super) fn checked(&self, passed: bool, policy: &HealthCheck, now: Instant) {
        let mut check = self.check.get();
        check.is_running = false;
        check.due = Some(now + policy.interval);
        check.in_a_row = if passed == check.passed {
            check.in_a_row + 1
        } else {
            1
        };
        check.passed = passed;
        let needed = if passed {
            policy.healthy_threshold
        } else {
            policy.unhealthy_threshold
        };
        if check.in_a_row >= needed {
            check.is_unhealthy = !passed;
            check.in_a_row = needed;
        }
        self.check.set(check);
    }

    /// Whether health checks say that it doesn't serve.
    pub(super) fn is_unhealthy(&self) -> bool {
        self.check.get().is_unhealthy
    }

    /// Nobody asks how it is any more, so that what was heard counts for nothing.
    pub(super) fn forget_checks(&self) {
        self.check.set(Check::default());
    }

    /// No connection could be made, or the wrong workload answered.
    pub(super) fn refused(&self, now: Instant) {
        let refusals = self.refusals.get().min(16);
        self.refusals.set(refusals + 1);
        let pause = REFUSED_MIN.saturating_mul(1 << refusals).min(REFUSED_MAX);
        self.unreachable_until.set(Some(now + pause));
    }

    /// It answered, so it takes connections.
    pub(super) fn reached(&self) {
        if self.refusals.replace(0) > 0 {
            self.unreachable_until.set(None);
        }
    }

    /// It asked to be left alone for a while.
    pub(super) fn pause(&self, pause: Duration, now: Instant) {
        self.spare(now + pause.min(PAUSE_MAX));
    }

    /// Takes a latency in: the whole of one that is above what is expected, and a share of one below.
    pub(super) fn learn(&self, latency: Duration, now: Instant) {
        let seconds = latency.as_secs_f64();
        let (before, _) = self.latency.get();
        let expected = self.latency(now);
        let after = if seconds >= expected {
            seconds
        } else {
            let weight = decay(now.saturating_duration_since(self.latency.get().1));
            before * weight + seconds * (1.0 - weight)
        };
        self.latency.set((after, now));
    }

    /// Counts an answer for the next comparison.
    pub(super) fn count(&self, latency: Duration, failed: bool) {
        let mut window = self.window.get();
        window.answers = window.answers.saturating_add(1);
        window.failures += u32::from(failed);
        window.seconds += latency.as_secs_f64();
        self.window.set(window);
    }

    /// The seconds that an answer is expected to take.
    pub(super) fn latency(&self, now: Instant) -> f64 {
        let (seconds, at) = self.latency.get();
        seconds * decay(now.saturating_duration_since(at))
    }

    /// What of its share a new endpoint has.
    pub(super) fn share(&self, slow_start: Duration, now: Instant) -> f64 {
        let known = now.saturating_duration_since(self.since);
        if known >= slow_start {
            return 1.0;
        }
        (known.as_secs_f64() / slow_start.as_secs_f64()).max(0.1)
    }
}

/// What is left of 1 after a time: 1 / (1 + t/16)^16, which is within 3 % of e^-t for the first [`LATENCY_DECAY`] and
/// falls somewhat slower later. The exponential function alone would have every sidecar load the library of
/// mathematics, a third of a MiB.
fn decay(passed: Duration) -> f64 {
    let base = 1.0 + passed.as_secs_f64() / (16.0 * LATENCY_DECAY.as_secs_f64());
    let squared = base * base;
    let fourth = squared * squared;
    let eighth = fourth * fourth;
    1.0 / (eighth * eighth)
}
