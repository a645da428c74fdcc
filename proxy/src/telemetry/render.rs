//! The metrics in Prometheus' text format (version 0.0.4).

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use super::metrics::{DURATION_BOUNDS, Kind, Labels, Metrics, Numbers, Side};
use super::{Direction, Gauges, process};
use crate::model::Fault;

/// What a label says that no record filled in.
const UNKNOWN: &str = "";
/// What every label says in the series that takes what came after the limit.
const OTHER: &str = "other";

pub(super) fn render(metrics: &Metrics, gauges: Option<&Gauges>) -> String {
    let (mut requests, mut connections) = (Vec::new(), Vec::new());
    for series in metrics.all() {
        let labels = series.labels();
        let of_kind = match labels.kind {
            Kind::Request => &mut requests,
            Kind::Connection => &mut connections,
        };
        of_kind.push((label_text(&labels), series.numbers()));
    }
    for of_kind in [&mut requests, &mut connections] {
        of_kind.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
    let mut page = Page(String::with_capacity(16 * 1024));
    page.requests(&requests);
    page.connections(&connections);
    page.proxy(metrics);
    page.state(gauges);
    page.process();
    page.0
}

type Labelled = (String, Numbers);

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = if labels.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{labels}}} {value}")
        };
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        series: &[Labelled],
        value: impl Fn(&Numbers) -> u64,
    ) {
        self.family(name, "counter", help);
        for (labels, numbers) in series {
            self.sample(name, labels, value(numbers));
        }
    }

    fn requests(&mut self, series: &[Labelled]) {
        self.counters(
            "weft_requests_total",
            "Requests that are over.",
            series,
            |n| n.count,
        );
        self.durations(series);
        self.counters(
            "weft_request_bytes_total",
            "Bytes of request bodies.",
            series,
            |n| n.bytes_up,
        );
        self.counters(
            "weft_response_bytes_total",
            "Bytes of response bodies.",
            series,
            |n| n.bytes_down,
        );
        self.counters(
            "weft_retries_total",
            "Attempts after a request's first.",
            series,
            |n| n.retries,
        );
    }

    fn durations(&mut self, series: &[Labelled]) {
        let name = "weft_request_duration_seconds";
        self.family(
            name,
            "histogram",
            "From a request's head to the end of its response.",
        );
        for (labels, numbers) in series {
            let mut below = 0;
            for (bucket, bound) in numbers.duration_buckets.iter().zip(DURATION_BOUNDS) {
                below += bucket;
                let _ = writeln!(self.0, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
            }
            below += numbers.duration_buckets[DURATION_BOUNDS.len()];
            let seconds = numbers.duration_nanoseconds as f64 / 1e9;
            let _ = writeln!(self.0, "{name}_bucket{{{labels},le=\"+Inf\"}} {below}");
            let _ = writeln!(self.0, "{name}_sum{{{labels}}} {seconds}");
            let _ = writeln!(self.0, "{name}_count{{{labels}}} {below}");
        }
    }

    fn connections(&mut self, series: &[Labelled]) {
        self.counters(
            "weft_tcp_connections_total",
            "Connections of opaque bytes that are over.",
            series,
            |n| n.count,
        );
        let name = "weft_tcp_bytes_total";
        self.family(
            name,
            "counter",
            "Bytes of such connections, up from the one who connected, down to it.",
        );
        for (labels, numbers) in series {
            let way = |way: &str| format!("{labels},way=\"{way}\"");
            self.sample(name, &way("up"), numbers.bytes_up);
            self.sample(name, &way("down"), numbers.bytes_down);
        }
    }

    fn proxy(&mut self, metrics: &Metrics) {
        let open = "weft_connections_open";
        self.family(open, "gauge", "Downstream connections that are open now.");
        for direction in Direction::ALL {
            let labels = format!("direction=\"{}\"", direction.as_str());
            self.sample(open, &labels, metrics.connections_open(direction));
        }
        let refused = "weft_refused_total";
        self.family(
            refused,
            "counter",
            "Connections closed before a request or a byte of theirs was forwarded.",
        );
        for (direction, fault) in Direction::ALL
            .into_iter()
            .flat_map(|d| Fault::ALL.map(|f| (d, f)))
        {
            let count = metrics.refused(direction, fault);
            if count > 0 {
                let (direction, fault) = (direction.as_str(), fault.reason());
                let labels = format!("direction=\"{direction}\",fault=\"{fault}\"");
                self.sample(refused, &labels, count);
            }
        }
        self.concurrency(metrics);
        let answers = "weft_rate_limit_answers_total";
        self.family(answers, "counter", "Answers of rate limit servers.");
        let seen = metrics.rate_limit_answers.lock();
        for (answer, count) in &*seen.unwrap_or_else(PoisonError::into_inner) {
            self.sample(answers, &format!("answer=\"{answer}\""), count);
        }
        let checks = "weft_health_checks_total";
        self.family(checks, "counter", "Health checks of endpoints.");
        for (result, count) in ["failed", "passed"].iter().zip(&metrics.health_checks) {
            self.sample(checks, &format!("result=\"{result}\""), load(count));
        }
        self.single(
            "weft_series_overflow_total",
            "counter",
            "Records counted as `other`, because too many label sets were in use.",
            load(&metrics.overflow),
        );
        self.single(
            "weft_spans_dropped_total",
            "counter",
            "Sampled spans that reached no collector.",
            load(&metrics.spans_dropped),
        );
        self.single(
            "weft_access_log_dropped_total",
            "counter",
            "Access log lines dropped because standard output was too slow.",
            load(&metrics.access_log_dropped),
        );
    }

    /// Each port's numbers, of all workers together.
    fn concurrency(&mut self, metrics: &Metrics) {
        let mut ports = BTreeMap::<u16, [u64; 3]>::new();
        let seen = metrics.concurrency.lock();
        for ((port, _), numbers) in &*seen.unwrap_or_else(PoisonError::into_inner) {
            let sum = ports.entry(*port).or_default();
            for (sum, number) in sum.iter_mut().zip(numbers) {
                *sum += number;
            }
        }
        let families = [
            (
                "weft_concurrency_limit",
                "gauge",
                "Requests at once that serve the application on a port best, as found out.",
            ),
            (
                "weft_concurrency_in_flight",
                "gauge",
                "Requests that the application has not begun to answer.",
            ),
            (
                "weft_concurrency_exceeded_total",
                "counter",
                "Requests beyond the limit that were let in, because it is not enforced.",
            ),
        ];
        for (index, (name, kind, help)) in families.into_iter().enumerate() {
            self.family(name, kind, help);
            for (port, numbers) in &ports {
                self.sample(name, &format!("port=\"{port}\""), numbers[index]);
            }
        }
    }

    fn state(&mut self, gauges: Option<&Gauges>) {
        if let Some(gauges) = gauges {
            if let Some(expiry) = (gauges.certificate_not_after)() {
                let seconds = expiry
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs());
                self.single(
                    "weft_certificate_not_after_seconds",
                    "gauge",
                    "When this proxy's certificate expires, in seconds since 1970.",
                    seconds,
                );
            }
            self.single(
                "weft_discovery_connected",
                "gauge",
                "1 while the control plane is connected.",
                u8::from((gauges.discovery_connected)()),
            );
        }
        self.family("weft_build_info", "gauge", "Always 1.");
        let labels = concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"");
        self.sample("weft_build_info", labels, 1);
    }

    fn process(&mut self) {
        if let Some(seconds) = process::cpu_seconds() {
            self.single(
                "process_cpu_seconds_total",
                "counter",
                "Processor time of this process, user and system.",
                seconds,
            );
        }
        if let Some(bytes) = process::resident_bytes() {
            self.single(
                "process_resident_memory_bytes",
                "gauge",
                "Memory of this process that is resident.",
                bytes,
            );
        }
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn label_text(labels: &Labels<'_>) -> String {
    let mut text = format!("direction=\"{}\"", labels.direction.as_str());
    let mut push = |name: &str, value: &str| {
        let value = if labels.overflow { OTHER } else { value };
        let _ = write!(text, ",{name}=\"{}\"", escape(value));
    };
    let number = |n: Option<u16>| n.map_or(UNKNOWN.to_owned(), |n| n.to_string());
    push("source_workload", labels.source.workload);
    push("source_namespace", namespace(&labels.source));
    let service = labels.destination.service;
    push("destination_service", service.map_or(UNKNOWN, |s| s.name()));
    push("destination_workload", labels.destination.workload);
    push("destination_namespace", namespace(&labels.destination));
    push("route", labels.route);
    if labels.kind == Kind::Request {
        push("status", &number(Some(labels.status)));
        push("grpc_status", &number(labels.grpc_status));
    }
    push("fault", labels.fault.map_or(UNKNOWN, Fault::reason));
    push("tls", if labels.tls { "true" } else { "false" });
    text
}

/// A service's namespace stands for its workloads', where none was picked.
fn namespace<'r>(side: &Side<'r>) -> &'r str {
    match side.service {
        Some(service) if side.namespace.is_empty() => service.namespace(),
        _ => side.namespace,
    }
}

fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text
}
