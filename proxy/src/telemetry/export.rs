//! What the control thread does for telemetry: it starts the access log's thread, makes spans of
//! sampled records, and sends them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use super::access_log;
use super::metrics::Metrics;
use super::options::{Protocol, SpanOptions, TelemetryOptions};
use super::record::Record;
use super::span;
use crate::bootstrap::AccessLog;

/// Spans of one export; more wait in the queue.
pub const BATCH_SPANS_MAX: usize = 512;
/// How long a span may wait for others before its batch is sent.
const BATCH_DELAY: Duration = Duration::from_secs(1);

/// A record on its way to the control thread, or the wish to know that all before it are out.
#[derive(Debug)]
pub(super) enum Queued {
    Record(Record),
    Flush(oneshot::Sender<()>),
}

/// The work behind a [`super::Telemetry`]; nothing is exported or written until it runs.
pub struct Exporter {
    options: TelemetryOptions,
    metrics: Arc<Metrics>,
    spans: mpsc::Receiver<Queued>,
    lines: mpsc::Receiver<Queued>,
}

impl Exporter {
    pub(super) fn new(
        options: TelemetryOptions,
        metrics: Arc<Metrics>,
        spans: mpsc::Receiver<Queued>,
        lines: mpsc::Receiver<Queued>,
    ) -> Self {
        Self {
            options,
            metrics,
            spans,
            lines,
        }
    }

    /// Exports spans until every handle is gone. Where nothing can be exported the queue is closed,
    /// so that records are dropped and counted at once.
    pub async fn run(self) {
        start_access_log(self.options.access_log, self.lines);
        let Some(spans) = &self.options.spans else {
            return;
        };
        match build_exporter(spans, &self.options) {
            Ok(exporter) => {
                info!(endpoint = spans.endpoint, protocol = ?spans.protocol, "exporting spans");
                let limit = spans.timeout;
                Batches::new(exporter, limit, self.metrics)
                    .export(self.spans)
                    .await;
            }
            Err(error) => {
                warn!(endpoint = spans.endpoint, %error, "no spans are exported: the exporter can't be built");
            }
        }
    }
}

fn start_access_log(form: AccessLog, lines: mpsc::Receiver<Queued>) {
    if form == AccessLog::Off {
        return;
    }
    let write = move || {
        if let Err(error) = access_log::write(form, lines, io::stdout().lock()) {
            warn!(%error, "the access log ends: standard output can't be written");
        }
    };
    let thread = std::thread::Builder::new().name("access-log".to_owned());
    if let Err(error) = thread.spawn(write) {
        warn!(%error, "no access log: its thread can't be started");
    }
}

/// Sends batches one after the other; what comes meanwhile waits in the bounded queue.
struct Batches {
    exporter: SpanExporter,
    limit: Duration,
    metrics: Arc<Metrics>,
    /// So that the log says when it changes, and not at each batch.
    failing: bool,
}

impl Batches {
    fn new(exporter: SpanExporter, limit: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            exporter,
            limit,
            metrics,
            failing: false,
        }
    }

    async fn export(mut self, mut queue: mpsc::Receiver<Queued>) {
        while let Some(first) = queue.recv().await {
            let (mut spans, mut flushes) = (Vec::new(), Vec::new());
            let deadline = Instant::now() + BATCH_DELAY;
            let mut next = Some(first);
            while let Some(queued) = next {
                match queued {
                    Queued::Record(record) => spans.push(span::from_record(&record)),
                    Queued::Flush(done) => flushes.push(done),
                }
                if spans.len() >= BATCH_SPANS_MAX || !flushes.is_empty() {
                    break;
                }
                next = timeout_at(deadline, queue.recv()).await.ok().flatten();
            }
            if !spans.is_empty() {
                self.send(spans).await;
            }
            for done in flushes {
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
            }
        }
    }

    async fn send(&mut self, spans: Vec<SpanData>) {
        let count = spans.len() as u64;
        let outcome = match timeout(self.limit, self.exporter.export(spans)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {:?}", self.limit)),
        };
        match outcome {
            Ok(()) => {
                if self.failing {
                    info!("the collector takes spans again");
                }
                self.failing = false;
            }
            Err(error) => {
                let dropped = &self.metrics.spans_dropped;
                dropped.fetch_add(count, Ordering::Relaxed);
                if !self.failing {
                    warn!(%error, "the collector takes no spans; they are dropped and counted in weft_spans_dropped_total");
                }
                self.failing = true;
            }
        }
    }
}

fn build_exporter(
    spans: &SpanOptions,
    options: &TelemetryOptions,
) -> Result<SpanExporter, ExporterBuildError> {
    let builder = SpanExporter::builder();
    let mut exporter = match spans.protocol {
        Protocol::Grpc => builder
            .with_tonic()
            .with_endpoint(&spans.endpoint)
            .with_timeout(spans.timeout)
            .build()?,
        Protocol::HttpProtobuf => builder
            .with_http()
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_endpoint(&spans.endpoint)
            .with_timeout(spans.timeout)
            .build()?,
    };
    exporter.set_resource(&resource(spans, options));
    Ok(exporter)
}

/// The variables win over what weft knows, and the service's own variable over the list.
fn resource(spans: &SpanOptions, options: &TelemetryOptions) -> Resource {
    let mut attributes = BTreeMap::from([
        ("service.name".to_owned(), options.workload.clone()),
        ("service.namespace".to_owned(), options.namespace.clone()),
        (
            "weft.service_account".to_owned(),
            options.service_account.clone(),
        ),
    ]);
    attributes.extend(spans.attributes.iter().cloned());
    if let Some(name) = &spans.service_name {
        attributes.insert("service.name".to_owned(), name.clone());
    }
    let pairs = attributes.into_iter().map(|(k, v)| KeyValue::new(k, v));
    Resource::builder_empty().with_attributes(pairs).build()
}
