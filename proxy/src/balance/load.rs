//! What a worker knows of an endpoint. It outlives a push: it is kept by the endpoint's name.

use std::cell::Cell;
use std::time::{Duration, Instant};

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
    left_out_until: Cell<Option<Instant>>,
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
            left_out_until: Cell::new(None),
            refusals: Cell::new(0),
            failures: Cell::new(0),
            ejections: Cell::new(0),
            latency: Cell::new((0.0, now)),
            window: Cell::new(Window::default()),
        }
    }

    pub(super) fn is_left_out(&self, now: Instant) -> bool {
        self.left_out_until.get().is_some_and(|until| now < until)
    }

    pub(super) fn leave_out(&self, until: Instant) {
        let later = self.left_out_until.get().map_or(until, |at| at.max(until));
        self.left_out_until.set(Some(later));
    }

    /// No connection could be made, or the wrong workload answered.
    pub(super) fn refused(&self, now: Instant) {
        let refusals = self.refusals.get().min(16);
        self.refusals.set(refusals + 1);
        let pause = REFUSED_MIN.saturating_mul(1 << refusals).min(REFUSED_MAX);
        self.leave_out(now + pause);
    }

    /// It answered, so it takes connections.
    pub(super) fn reached(&self) {
        if self.refusals.replace(0) > 0 {
            self.left_out_until.set(None);
        }
    }

    /// It asked to be left alone for a while.
    pub(super) fn pause(&self, pause: Duration, now: Instant) {
        self.leave_out(now + pause.min(PAUSE_MAX));
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

fn decay(passed: Duration) -> f64 {
    (-passed.as_secs_f64() / LATENCY_DECAY.as_secs_f64()).exp()
}
