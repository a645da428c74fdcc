//! A small OpenTelemetry collector inside the demo: takes spans by OTLP over gRPC and keeps those of
//! the one trace that is looked up.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span as WireSpan;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::trace::Span;
use crate::cli::{Failure, Outcome};

/// Spans that are kept; more are dropped.
const SPANS_MAX: usize = 1000;

#[derive(Default)]
struct Kept {
    /// Lower-case hexadecimal.
    trace_id: String,
    spans: Vec<Span>,
}

/// The collector while it runs.
pub(super) struct Collector {
    kept: Arc<Mutex<Kept>>,
    server: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Collector {
    pub async fn start(address: SocketAddr) -> Outcome<Self> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| Failure::failed(format!("can't listen on {address}: {error}")))?;
        let kept = Arc::new(Mutex::new(Kept::default()));
        let service = TraceServiceServer::new(Receiver(kept.clone()));
        let serving = Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async {
            // It ends with the demo; a failure shows as a trace without spans.
            let _ = serving.await;
        });
        Ok(Self { kept, server })
    }

    /// From now on keeps the spans of this trace.
    pub fn look_up(&self, trace_id: &str) {
        *lock(&self.kept) = Kept {
            trace_id: trace_id.to_owned(),
            spans: Vec::new(),
        };
    }

    /// The spans that have come so far.
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.kept).spans.clone()
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Receiver(Arc<Mutex<Kept>>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = lock(&self.0);
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|resource| resource.attributes);
            let service = text(&attributes.unwrap_or_default(), "service.name");
            let spans = resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans);
            for span in spans {
                if hex(&span.trace_id) == kept.trace_id && kept.spans.len() < SPANS_MAX {
                    kept.spans.push(decode(&service, span));
                }
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn decode(service: &str, span: WireSpan) -> Span {
    let pair = |pair: &KeyValue| Some((pair.key.clone(), plain(pair.value.as_ref()?)?));
    Span {
        service: service.to_owned(),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        attributes: span.attributes.iter().filter_map(pair).collect(),
        server: span.kind() == SpanKind::Server,
        name: span.name,
        start_nanoseconds: span.start_time_unix_nano,
        end_nanoseconds: span.end_time_unix_nano,
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|pair| pair.key == key);
    found
        .and_then(|pair| plain(pair.value.as_ref()?))
        .unwrap_or_default()
}

fn plain(value: &AnyValue) -> Option<String> {
    match value.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
