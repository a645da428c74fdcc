//! Outlier detection: who serves worse than the others is left out for a while, longer each time. It is
//! passive: requests of users say it, none is made for it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Instant;

use super::Loads;
use super::load::{Load, Window};
use crate::model::{Cluster, OutlierDetection};

/// Answers since the last comparison that an endpoint must have to be compared.
const ANSWERS_MIN: u32 = 10;
/// Endpoints that can be compared, at least; among fewer nobody is an outlier.
const COMPARED_MIN: usize = 3;
/// Latencies below this are nobody's trouble, however the others do.
const LATENCY_MIN: f64 = 0.001;

/// Who of a cluster is left out, seen by one worker.
#[derive(Debug)]
pub(super) struct Outliers {
    ejected: RefCell<Vec<(Arc<str>, Instant)>>,
    compared: Cell<Instant>,
}

impl Outliers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            ejected: RefCell::default(),
            compared: Cell::new(now),
        }
    }

    /// Leaves an endpoint out, if that many may be.
    pub(super) fn eject(
        &self,
        policy: &OutlierDetection,
        (id, load): (&Arc<str>, &Load),
        endpoints: usize,
        now: Instant,
    ) {
        let mut ejected = self.ejected.borrow_mut();
        ejected.retain(|(_, until)| now < *until);
        let most = (endpoints * policy.ejected_percent_max as usize / 100).max(1);
        // The only one there is, is nobody's outlier.
        if endpoints < 2 || ejected.len() >= most || ejected.iter().any(|(other, _)| other == id) {
            return;
        }
        let times = load.ejections.get() + 1;
        load.ejections.set(times);
        load.failures.set(0);
        let pause = policy.ejection_time.saturating_mul(times);
        let until = now + pause.min(policy.ejection_time_max);
        load.spare(until);
        ejected.push((id.clone(), until));
    }

    /// Compares the endpoints with each other, once an interval. Says whether it was done.
    pub(super) fn compare(&self, cluster: &Cluster, loads: &Loads, now: Instant) -> bool {
        let policy = &cluster.policy.outliers;
        if !policy.compares() {
            return false;
        }
        let since = now.saturating_duration_since(self.compared.get());
        if since < policy.interval {
            return false;
        }
        self.compared.set(now);
        let mut seen = Vec::new();
        for endpoint in cluster.endpoints.iter() {
            let Some(load) = loads.get(&endpoint.id) else {
                continue;
            };
            let window = load.window.get();
            if window.answers >= ANSWERS_MIN {
                load.window.set(Window::default());
                seen.push((&endpoint.id, load.clone(), window));
            }
        }
        if seen.len() < COMPARED_MIN {
            return false;
        }
        let windows: Vec<Window> = seen.iter().map(|(_, _, window)| *window).collect();
        let bars = Bars::of(policy, &windows);
        for (id, load, window) in &seen {
            if bars.is_outlier(*window) {
                self.eject(policy, (id, load), cluster.endpoints.len(), now);
            } else if !load.is_ill(now) {
                load.ejections.set(load.ejections.get().saturating_sub(1));
            }
        }
        true
    }
}

/// What sets an outlier apart.
struct Bars {
    success_rate_min: f64,
    latency_max: f64,
}

impl Bars {
    fn of(policy: &OutlierDetection, windows: &[Window]) -> Self {
        let count = windows.len() as f64;
        let mean = windows.iter().map(|one| success_rate(*one)).sum::<f64>() / count;
        let squares = windows
            .iter()
            .map(|one| (success_rate(*one) - mean).powi(2));
        let deviation = (squares.sum::<f64>() / count).sqrt();
        let mut latencies: Vec<f64> = windows.iter().map(|one| latency(*one)).collect();
        latencies.sort_by(f64::total_cmp);
        let median = latencies[(latencies.len() - 1) / 2].max(LATENCY_MIN);
        let only_if = |factor: f64, bar: f64, never: f64| if factor > 0.0 { bar } else { never };
        Self {
            success_rate_min: only_if(
                policy.success_rate_deviations,
                mean - policy.success_rate_deviations * deviation,
                0.0,
            ),
            latency_max: only_if(
                policy.latency_factor,
                median * policy.latency_factor,
                f64::INFINITY,
            ),
        }
    }

    fn is_outlier(&self, window: Window) -> bool {
        success_rate(window) < self.success_rate_min || latency(window) > self.latency_max
    }
}

fn success_rate(window: Window) -> f64 {
    1.0 - f64::from(window.failures) / f64::from(window.answers.max(1))
}

fn latency(window: Window) -> f64 {
    window.seconds / f64::from(window.answers.max(1))
}
