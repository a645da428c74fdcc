//! What a load saw, as one JSON document.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// Failures that are kept word for word, with the time they came at.
const SAMPLES_MAX: usize = 20;

/// The counts of a load, filled while it runs.
#[derive(Default)]
pub struct Report {
    /// Latencies count from then on; before, connections are being opened.
    settled: Duration,
    total: u64,
    latencies: Vec<u32>,
    status: BTreeMap<u16, u64>,
    split: BTreeMap<String, u64>,
    faults: BTreeMap<String, u64>,
    failures: BTreeMap<String, u64>,
    samples: Vec<Sample>,
    late: u64,
}

#[derive(Serialize)]
struct Sample {
    at_seconds: f64,
    kind: String,
    detail: String,
}

/// What came of one request.
pub enum Outcome {
    /// A whole answer.
    Answer {
        status: u16,
        /// Value of the header to split by.
        split: Option<String>,
        /// Value of `weft-fault`.
        fault: Option<String>,
    },
    /// A connection without HTTP that did what it was for.
    Done,
    /// No whole answer.
    Failure { kind: &'static str, detail: String },
}

#[derive(Serialize)]
struct Document<'a> {
    seconds: f64,
    total: u64,
    /// Answers of 2xx and 3xx, and what was done without HTTP.
    ok: u64,
    /// Everything else: other statuses, and requests without a whole answer.
    failed: u64,
    failures: &'a BTreeMap<String, u64>,
    status: &'a BTreeMap<u16, u64>,
    faults: &'a BTreeMap<String, u64>,
    split: &'a BTreeMap<String, u64>,
    /// Requests that began over 100 ms after their time, because every connection was busy. Their
    /// latency counts from the time they were due.
    late: u64,
    latency_microseconds: Latency,
    samples: &'a [Sample],
}

#[derive(Serialize)]
struct Latency {
    p50: u32,
    p90: u32,
    p99: u32,
    p999: u32,
    max: u32,
}

impl Report {
    /// A report whose latencies are those of requests due at `settled` or later.
    pub fn settled_at(settled: Duration) -> Self {
        Self {
            settled,
            ..Self::default()
        }
    }

    /// Counts one request that was due at `at` (since the start) and took `latency` from then.
    pub fn add(&mut self, at: Duration, waited: Duration, latency: Duration, outcome: Outcome) {
        let latency = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        self.total += 1;
        if at >= self.settled {
            self.latencies.push(latency);
        }
        self.late += u64::from(waited > Duration::from_millis(100));
        let (kind, detail) = match outcome {
            Outcome::Answer {
                status,
                split,
                fault,
            } => {
                *self.status.entry(status).or_default() += 1;
                if let Some(split) = split {
                    *self.split.entry(split).or_default() += 1;
                }
                let detail = fault.clone().unwrap_or_default();
                if let Some(fault) = fault {
                    *self.faults.entry(fault).or_default() += 1;
                }
                if (200..400).contains(&status) {
                    return;
                }
                (format!("status_{status}"), detail)
            }
            Outcome::Done => return,
            Outcome::Failure { kind, detail } => (kind.to_owned(), detail),
        };
        *self.failures.entry(kind.clone()).or_default() += 1;
        if self.samples.len() < SAMPLES_MAX {
            let at_seconds = at.as_secs_f64();
            self.samples.push(Sample {
                at_seconds,
                kind,
                detail,
            });
        }
    }

    /// The document, once the load is over.
    pub fn render(&mut self, lasted: Duration) -> serde_json::Result<String> {
        self.latencies.sort_unstable();
        let failed = self.failures.values().sum();
        serde_json::to_string(&Document {
            seconds: lasted.as_secs_f64(),
            total: self.total,
            ok: self.total - failed,
            failed,
            failures: &self.failures,
            status: &self.status,
            faults: &self.faults,
            split: &self.split,
            late: self.late,
            latency_microseconds: Latency {
                p50: self.percentile(500),
                p90: self.percentile(900),
                p99: self.percentile(990),
                p999: self.percentile(999),
                max: self.percentile(1000),
            },
            samples: &self.samples,
        })
    }

    /// By nearest rank; 0 when nothing was counted.
    fn percentile(&self, per_mille: usize) -> u32 {
        let rank = (self.latencies.len() * per_mille).div_ceil(1000);
        let at = rank.saturating_sub(1);
        self.latencies.get(at).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_nearest_rank() {
        let mut report = Report::default();
        for n in 1..=1000_u64 {
            let outcome = Outcome::Answer {
                status: if n == 7 { 503 } else { 200 },
                split: None,
                fault: None,
            };
            report.add(
                Duration::ZERO,
                Duration::ZERO,
                Duration::from_micros(n),
                outcome,
            );
        }
        let document = report.render(Duration::from_secs(1)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!(value["latency_microseconds"]["p50"], 500);
        assert_eq!(value["latency_microseconds"]["p99"], 990);
        assert_eq!(value["latency_microseconds"]["max"], 1000);
        assert_eq!(value["ok"], 999);
        assert_eq!(value["failures"]["status_503"], 1);
    }
}
