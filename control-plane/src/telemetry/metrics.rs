//! Metrics, counted with atomics and written as Prometheus text.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of a histogram's buckets, in seconds.
const BUCKETS: [f64; 10] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Only goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// How long things took.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    sum_microseconds: AtomicU64,
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    pub proxies_connected: Gauge,
    pub store_revision: Gauge,
    pub pushes: Counter,
    pub resources_pushed: Counter,
    pub resources_rejected: Counter,
    pub certificates_issued: Counter,
    pub certificates_refused: Counter,
    pub connections: Gauge,
    pub handshakes_failed: Counter,
    pub compile_seconds: Histogram,
    pub push_seconds: Histogram,
}

impl Counter {
    pub fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Gauge {
    pub fn set(&self, value: usize) {
        self.set_u64(value as u64);
    }

    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn subtract(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub fn set_u64(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Histogram {
    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let index = BUCKETS.iter().position(|bound| seconds <= *bound);
        if let Some(index) = index {
            self.buckets[index].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.sum_microseconds
            .fetch_add(microseconds, Ordering::Relaxed);
    }
}

impl Metrics {
    /// All of it in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let gauges = [
            (
                "weft_proxies_connected",
                "Proxies that are connected.",
                &self.proxies_connected,
            ),
            (
                "weft_connections",
                "TCP connections that are open.",
                &self.connections,
            ),
            (
                "weft_store_revision",
                "Revision of the store in force.",
                &self.store_revision,
            ),
        ];
        for (name, help, gauge) in gauges {
            write_value(&mut text, name, help, "gauge", &gauge.0);
        }
        let counters = [
            ("weft_pushes_total", "Pushes sent to proxies.", &self.pushes),
            (
                "weft_pushed_resources_total",
                "Resources in pushes.",
                &self.resources_pushed,
            ),
            (
                "weft_rejected_resources_total",
                "Resources that proxies rejected (NACK).",
                &self.resources_rejected,
            ),
            (
                "weft_certificates_issued_total",
                "X509-SVIDs issued to proxies.",
                &self.certificates_issued,
            ),
            (
                "weft_certificates_refused_total",
                "Requests for an X509-SVID refused.",
                &self.certificates_refused,
            ),
            (
                "weft_handshakes_failed_total",
                "TLS handshakes that failed.",
                &self.handshakes_failed,
            ),
        ];
        for (name, help, counter) in counters {
            write_value(&mut text, name, help, "counter", &counter.0);
        }
        let histograms = [
            (
                "weft_compile_seconds",
                "Time to compile what changed, one round.",
                &self.compile_seconds,
            ),
            (
                "weft_push_seconds",
                "Time from a resource's change to a proxy's acknowledgement.",
                &self.push_seconds,
            ),
        ];
        for (name, help, histogram) in histograms {
            write_histogram(&mut text, name, help, histogram);
        }
        text
    }
}

fn write_value(text: &mut String, name: &str, help: &str, kind: &str, value: &AtomicU64) {
    let value = value.load(Ordering::Relaxed);
    let _ = write!(
        text,
        "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
    );
}

fn write_histogram(text: &mut String, name: &str, help: &str, histogram: &Histogram) {
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} histogram\n");
    let mut cumulated = 0;
    for (bound, bucket) in BUCKETS.iter().zip(&histogram.buckets) {
        cumulated += bucket.load(Ordering::Relaxed);
        let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {cumulated}");
    }
    let count = histogram.count.load(Ordering::Relaxed);
    let sum = Duration::from_micros(histogram.sum_microseconds.load(Ordering::Relaxed));
    let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}");
    let _ = writeln!(
        text,
        "{name}_sum {}\n{name}_count {count}",
        sum.as_secs_f64()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_prometheus_text() {
        let metrics = Metrics::default();
        metrics.pushes.add(3);
        metrics.compile_seconds.observe(Duration::from_millis(2));
        metrics.compile_seconds.observe(Duration::from_secs(60));
        let text = metrics.render();
        for line in [
            "# TYPE weft_pushes_total counter",
            "weft_pushes_total 3",
            "weft_compile_seconds_bucket{le=\"0.001\"} 0",
            "weft_compile_seconds_bucket{le=\"0.005\"} 1",
            "weft_compile_seconds_bucket{le=\"+Inf\"} 2",
            "weft_compile_seconds_sum 60.002",
            "weft_compile_seconds_count 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
