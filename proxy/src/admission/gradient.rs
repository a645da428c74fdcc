//! How many requests an application serves best at once, found out by how long it takes: while more at once take
//! no longer, more are let in; once they wait for each other, fewer.
//!
//! What an answer takes when nobody waits is the base. It is learnt while few are on their way, and when there is
//! no such time for long, by letting in half as many for a moment (a probe): what got no faster by that wasn't
//! waiting. The limit follows the base divided by what is seen now (a gradient), as TCP Vegas' window does.

use std::time::{Duration, Instant};

/// Answers in a window, at least; a window lasts until there are as many.
const ANSWERS_MIN: usize = 50;
/// The same for a window of a probe, whose finding stays for long.
const ANSWERS_PROBE: usize = 200;
/// Answers of a window that are looked at: the last ones.
const ANSWERS_MAX: usize = 256;
/// Shortest window.
const WINDOW_MIN: Duration = Duration::from_millis(100);
/// Longest time that a window is made longer for slow answers.
const WINDOW_LONG: Duration = Duration::from_secs(2);
/// Answers may take this many times the base before fewer are let in.
const TOLERANCE: f64 = 1.4;
/// Up to this many times the base nobody waits.
const FAST: f64 = 1.25;
/// Growth of the limit in a window while nobody waits.
const GROWTH: f64 = 1.1;
/// What of a window's findings is taken over at once.
const SMOOTHING: f64 = 0.2;
/// The same for the base.
const BASE_SMOOTHING: f64 = 0.1;
/// How old the base may get before it is probed.
const BASE_AGE_MAX: Duration = Duration::from_secs(30);
/// A probe goes on while halving makes answers faster than this share of what they were.
const PROBE_GAIN: f64 = 0.75;
/// The first limit.
const START: f64 = 20.0;

/// The limit for one application port, seen by one worker.
#[derive(Debug)]
pub(super) struct Gradient {
    limit: f64,
    /// Seconds; nothing before the first window.
    base: Option<f64>,
    /// When the base was seen with few on their way.
    confirmed: Option<Instant>,
    probe: Option<Probe>,
    window: Window,
}

#[derive(Debug)]
struct Window {
    start: Instant,
    /// Seconds, the oldest overwritten first.
    answers: Box<[f32; ANSWERS_MAX]>,
    count: usize,
    /// Most requests at once.
    peak: u32,
}

/// Half as many as usual are let in.
#[derive(Clone, Copy, Debug)]
struct Probe {
    limit: f64,
    /// What answers took before, in seconds.
    before: f64,
    /// Those let in before the probe are out.
    settled: bool,
}

/// Between which the limit stays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub min: u32,
    pub max: u32,
}

impl Window {
    fn new(start: Instant) -> Self {
        Self {
            start,
            answers: Box::new([0.0; ANSWERS_MAX]),
            count: 0,
            peak: 0,
        }
    }

    fn median(&self) -> f64 {
        let mut seen = *self.answers;
        let seen = &mut seen[..self.count.min(ANSWERS_MAX)];
        seen.sort_unstable_by(f32::total_cmp);
        f64::from(seen[seen.len() / 2])
    }
}

impl Gradient {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            limit: START,
            base: None,
            confirmed: None,
            probe: None,
            window: Window::new(now),
        }
    }

    /// How many may be on their way at once, now.
    pub(super) fn limit(&self, bounds: Bounds) -> u32 {
        let limit = self.probe.map_or(self.limit, |probe| probe.limit);
        (limit as u32).clamp(bounds.min, bounds.max)
    }

    /// One more is on its way: so many are.
    pub(super) fn started(&mut self, in_flight: u32) {
        self.window.peak = self.window.peak.max(in_flight);
    }

    /// An answer came. `enforced` says that the limit is kept, so that a probe tells something.
    pub(super) fn answered(
        &mut self,
        latency: Duration,
        in_flight: u32,
        (bounds, enforced): (Bounds, bool),
        now: Instant,
    ) {
        let limit = self.limit(bounds);
        if let Some(probe) = &mut self.probe {
            if !probe.settled && in_flight <= limit {
                probe.settled = true;
                self.window = Window::new(now);
                return;
            }
            // It was let in before, and waited for those that were too many.
            if !probe.settled
                || now
                    .checked_sub(latency)
                    .is_some_and(|at| at < self.window.start)
            {
                return;
            }
        }
        let window = &mut self.window;
        window.answers[window.count % ANSWERS_MAX] = latency.as_secs_f32();
        window.count += 1;
        let enough = match self.probe {
            Some(_) => ANSWERS_PROBE,
            None => ANSWERS_MIN,
        };
        if window.count < enough {
            return;
        }
        let base = Duration::from_secs_f64(4.0 * self.base.unwrap_or_default());
        let length = WINDOW_MIN.max(base.min(WINDOW_LONG));
        if now.saturating_duration_since(window.start) >= length {
            let (seconds, peak) = (window.median().max(1e-6), window.peak);
            self.window = Window::new(now);
            self.window.peak = in_flight;
            self.conclude(seconds, peak, (bounds, enforced), now);
        }
    }

    /// What a window says of the limit.
    fn conclude(
        &mut self,
        seconds: f64,
        peak: u32,
        (bounds, enforced): (Bounds, bool),
        now: Instant,
    ) {
        if let Some(probe) = self.probe {
            return self.conclude_probe(probe, seconds, bounds, now);
        }
        let calm = f64::from(peak) * 2.0 <= self.limit;
        let base = self.base.get_or_insert(seconds);
        if self.confirmed.is_none() {
            *base = base.min(seconds);
        }
        if calm {
            *base += BASE_SMOOTHING * (seconds - *base);
            // Nothing is known of what would be with more, and of what would be with less.
            self.confirmed = Some(now);
            return;
        }
        let age = self.confirmed.map(|at| now.saturating_duration_since(at));
        if enforced && age.is_none_or(|age| age > BASE_AGE_MAX) {
            self.probe = Some(Probe {
                limit: (self.limit / 2.0).max(f64::from(bounds.min)),
                before: seconds,
                settled: false,
            });
            return;
        }
        let grown = if seconds <= FAST * *base {
            self.limit * GROWTH + 1.0
        } else {
            let gradient = (TOLERANCE * *base / seconds).clamp(0.5, 1.0);
            let next = self.limit * gradient + self.limit.sqrt() / 2.0;
            self.limit + SMOOTHING * (next - self.limit)
        };
        self.limit = grown.clamp(f64::from(bounds.min), f64::from(bounds.max));
    }

    /// Goes on with half of half, as long as that makes answers faster. Then nobody waited any more.
    fn conclude_probe(&mut self, probe: Probe, seconds: f64, bounds: Bounds, now: Instant) {
        let least = f64::from(bounds.min);
        let helps = seconds < PROBE_GAIN * probe.before;
        if helps {
            // So many were too many.
            self.limit = probe.limit;
        }
        if helps && probe.limit > least {
            self.probe = Some(Probe {
                limit: (probe.limit / 2.0).max(least),
                before: seconds,
                settled: false,
            });
            return;
        }
        self.probe = None;
        let before = self.base.filter(|_| self.confirmed.is_some());
        self.base = Some(before.map_or(seconds, |before| (before + seconds) / 2.0));
        self.confirmed = Some(now);
    }
}
