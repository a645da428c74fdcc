//! What the proxy tells of its traffic: metrics, spans and the access log.
//!
//! Data-plane threads hand in records ([`RequestRecord`], [`ConnectionRecord`]) and go on: a record
//! of a known series costs some atomic additions, and where a queue is full the record is dropped
//! and counted. Spans are made and sent on the control thread, by [`Exporter::run`]; the access log is
//! written by a thread of its own, because standard output may block.

mod access_log;
mod clock;
mod export;
pub mod log;
mod metrics;
mod options;
mod process;
mod record;
mod render;
mod sampler;
mod span;
pub mod trace;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::model::{Fault, Fields};
use export::Queued;
use metrics::Metrics;
use record::Record;

pub use crate::bootstrap::AccessLog;
pub use clock::wall_clock;
pub use export::Exporter;
pub use metrics::ConnectionGauge;
pub use options::{InvalidOption, Protocol, SpanOptions, TelemetryOptions};
pub use record::{ConnectionRecord, Direction, Party, RequestCount, RequestRecord};
pub use sampler::Sampler;

/// Sampled records that wait for export; one more is dropped and counted in
/// `weft_spans_dropped_total`.
pub const SPANS_QUEUED_MAX: usize = 4_096;
/// Records that wait for the access log; one more is dropped and counted in
/// `weft_access_log_dropped_total`.
pub const LINES_QUEUED_MAX: usize = 8_192;

/// How long [`Telemetry::flush`] waits; what is queued then is lost with the process.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The handle that every room has; a clone is one reference more.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    metrics: Arc<Metrics>,
    sampler: Sampler,
    /// None where no collector is named.
    spans: Option<mpsc::Sender<Queued>>,
    /// None where the access log is off.
    lines: Option<mpsc::Sender<Queued>>,
    gauges: OnceLock<Gauges>,
}

/// State of other rooms that the metrics page shows.
pub struct Gauges {
    /// When the proxy's certificate expires; none while it has none.
    pub certificate_not_after: Box<dyn Fn() -> Option<SystemTime> + Send + Sync>,
    /// Whether the stream to the control plane is up.
    pub discovery_connected: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Telemetry {
    /// The handle, and the work that the control thread does for it.
    pub fn new(options: TelemetryOptions) -> (Telemetry, Exporter) {
        let metrics = Arc::new(Metrics::new(metrics::SERIES_MAX));
        let (spans, span_records) = mpsc::channel(SPANS_QUEUED_MAX);
        let (lines, line_records) = mpsc::channel(LINES_QUEUED_MAX);
        let inner = Inner {
            metrics: metrics.clone(),
            sampler: options.sampler,
            spans: options.spans.is_some().then_some(spans),
            lines: (options.access_log != AccessLog::Off).then_some(lines),
            gauges: OnceLock::new(),
        };
        let exporter = Exporter::new(options, metrics, span_records, line_records);
        (Telemetry(Arc::new(inner)), exporter)
    }

    /// The trace of a request (or, with no headers, of a connection), with a span of our own.
    pub fn begin(&self, headers: &Fields) -> trace::Context {
        trace::Context::begin(headers, self.0.sampler)
    }

    /// Counts a request that is over, and queues its span and its line.
    pub fn finish_request(&self, record: RequestRecord<'_>) {
        if self.count_request(&record.count(), record.context.sampled) {
            self.tell_of_request(record);
        }
    }

    /// Counts a request that is over. The answer is whether it has to be told of: few are, so the rest of most records
    /// needn't be put together.
    pub fn count_request(&self, request: &RequestCount<'_>, sampled: bool) -> bool {
        self.0.metrics.add_request(request);
        self.wants(sampled)
    }

    /// Queues the span and the line of a request that was counted.
    pub fn tell_of_request(&self, record: RequestRecord<'_>) {
        let sampled = record.context.sampled;
        self.queue(sampled, Record::Request(Arc::new(record.into_owned())));
    }

    /// Counts a connection that is over, and queues its span and its line.
    pub fn finish_connection(&self, record: ConnectionRecord) {
        self.0.metrics.add_connection(&record);
        let sampled = record.context.sampled;
        if self.wants(sampled) {
            self.queue(sampled, Record::Connection(Arc::new(record)));
        }
    }

    /// Counts a connection that got no further than its acceptance or its handshake.
    pub fn refused(&self, direction: Direction, fault: Fault) {
        self.0.metrics.add_refused(direction, fault);
    }

    /// Counts a health check that an endpoint passed, or did not.
    pub fn health_checked(&self, passed: bool) {
        let counts = &self.0.metrics.health_checks;
        counts[usize::from(passed)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a question to a rate limit server: `pass`, `over_limit` or `unknown`.
    pub fn server_asked(&self, answer: &'static str) {
        let asked = &self.0.metrics.rate_limit_answers;
        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked.entry(answer).or_default() += 1;
    }

    /// Takes note of what a worker sees of an application's port: how many requests at once serve it best, how
    /// many there are, and how many there were beyond that while it isn't kept.
    pub fn concurrency(&self, worker: usize, port: u16, numbers: [u64; 3]) {
        let seen = &self.0.metrics.concurrency;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert((port, worker), numbers);
    }

    /// Counts a downstream connection as open until the guard is dropped.
    pub fn connection_opened(&self, direction: Direction) -> ConnectionGauge {
        self.0.metrics.open_connection(direction)
    }

    /// Says where certificate and discovery state are to be read; the first call holds.
    pub fn set_gauges(&self, gauges: Gauges) {
        let _ = self.0.gauges.set(gauges);
    }

    /// The metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        render::render(&self.0.metrics, self.0.gauges.get())
    }

    /// Waits until what is queued now is out, though no longer than [`FLUSH_TIMEOUT`].
    pub async fn flush(&self) {
        let flush_all = async {
            for queue in [&self.0.spans, &self.0.lines].into_iter().flatten() {
                let (done, flushed) = oneshot::channel();
                if queue.send(Queued::Flush(done)).await.is_ok() {
                    // An error says that the other side ended; then there is nothing to wait for.
                    let _ = flushed.await;
                }
            }
        };
        if timeout(FLUSH_TIMEOUT, flush_all).await.is_err() {
            tracing::warn!("spans or access log lines were still queued at the end");
        }
    }

    fn wants(&self, sampled: bool) -> bool {
        self.0.lines.is_some() || (sampled && self.0.spans.is_some())
    }

    fn queue(&self, sampled: bool, record: Record) {
        let metrics = &self.0.metrics;
        if let Some(spans) = self.0.spans.as_ref().filter(|_| sampled)
            && spans.try_send(Queued::Record(record.clone())).is_err()
        {
            metrics.spans_dropped.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(lines) = &self.0.lines
            && lines.try_send(Queued::Record(record)).is_err()
        {
            metrics.access_log_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telemetry")
    }
}
