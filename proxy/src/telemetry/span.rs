//! A record as a span, by OpenTelemetry's semantic conventions for HTTP, RPC and network.

use std::str::FromStr;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::record::{ConnectionRecord, Direction, Party, Record, RequestRecord};
use super::trace;

/// gRPC codes that are the server's own failure (semantic conventions for gRPC, "gRPC Status");
/// to a client every code but OK is an error.
const GRPC_SERVER_ERRORS: [u16; 6] = [2, 4, 12, 13, 14, 15];

pub(super) fn from_record(record: &Record) -> SpanData {
    match record {
        Record::Request(request) => from_request(request),
        Record::Connection(connection) => from_connection(connection),
    }
}

fn from_request(record: &RequestRecord<'_>) -> SpanData {
    let path = record.path.split('?').next().unwrap_or_default();
    let rpc = record
        .grpc_status
        .and_then(|code| Some((code, path.strip_prefix('/')?.split_once('/')?)));
    let mut attributes = Attributes::default();
    let method = known_method(&record.method);
    attributes.set("http.request.method", method.unwrap_or("_OTHER"));
    if method.is_none() {
        let original = record.method.as_str().to_owned();
        attributes.set("http.request.method_original", original);
    }
    attributes.set("url.scheme", record.scheme);
    attributes.set("url.path", path.to_owned());
    if let Some(authority) = &record.authority {
        attributes.authority(authority, record.scheme);
        // What a client's span has to name. The query may hold secrets, and is left out.
        if record.direction == Direction::Outbound {
            let full = format!("{}://{authority}{path}", record.scheme);
            attributes.set("url.full", full);
        }
    }
    if record.status != 0 {
        attributes.set("http.response.status_code", i64::from(record.status));
    }
    attributes.set("network.protocol.name", "http");
    attributes.set("network.protocol.version", protocol_version(record.version));
    attributes.count("http.request.body.size", record.request_bytes);
    attributes.count("http.response.body.size", record.response_bytes);
    if record.retries > 0 {
        attributes.set("http.request.resend_count", i64::from(record.retries));
    }
    let mut name = method.unwrap_or("HTTP").to_owned();
    if let Some((code, (service, method))) = rpc {
        attributes.set("rpc.system", "grpc");
        attributes.set("rpc.service", service.to_owned());
        attributes.set("rpc.method", method.to_owned());
        attributes.set("rpc.grpc.status_code", i64::from(code));
        name = format!("{service}/{method}");
    }
    attributes.some("weft.route", record.route.as_deref().map(str::to_owned));
    attributes.sides(record.direction, record.upstream, record.downstream);
    attributes.mesh(&record.source, &record.destination, record.tls);
    attributes.some("weft.peer", record.peer.as_ref().map(ToString::to_string));
    attributes.some("weft.fault", record.fault.map(|fault| fault.reason()));
    let error = request_error(record);
    attributes.some("error.type", error.clone());
    build(
        record.direction,
        &record.context,
        name,
        (record.start, record.duration),
        attributes,
        error,
    )
}

fn from_connection(record: &ConnectionRecord) -> SpanData {
    let mut attributes = Attributes::default();
    attributes.set("network.transport", "tcp");
    attributes.set("weft.protocol", record.protocol.as_str());
    attributes.count("weft.bytes_up", record.bytes_up);
    attributes.count("weft.bytes_down", record.bytes_down);
    attributes.some("weft.route", record.route.as_deref().map(str::to_owned));
    attributes.sides(record.direction, record.upstream, record.downstream);
    attributes.mesh(&record.source, &record.destination, record.tls);
    attributes.some("weft.peer", record.peer.as_ref().map(ToString::to_string));
    attributes.some("weft.fault", record.fault.map(|fault| fault.reason()));
    let reset = record.reset.then(|| "reset".to_owned());
    let error = record.fault.map(|f| f.reason().to_owned()).or(reset);
    attributes.some("error.type", error.clone());
    build(
        record.direction,
        &record.context,
        record.protocol.as_str().to_owned(),
        (record.start, record.duration),
        attributes,
        error,
    )
}

fn build(
    direction: Direction,
    context: &trace::Context,
    name: String,
    (start, duration): (std::time::SystemTime, std::time::Duration),
    attributes: Attributes,
    error: Option<String>,
) -> SpanData {
    let state = context.tracestate.as_ref().and_then(|s| s.to_str().ok());
    let state = state.and_then(|s| TraceState::from_str(s).ok());
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(context.trace_id),
            SpanId::from_bytes(context.span_id),
            TraceFlags::SAMPLED,
            false,
            state.unwrap_or_default(),
        ),
        parent_span_id: context
            .parent_span_id
            .map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: context.parent_span_id.is_some(),
        span_kind: match direction {
            Direction::Inbound => SpanKind::Server,
            Direction::Outbound => SpanKind::Client,
        },
        name: name.into(),
        start_time: start,
        end_time: start + duration,
        attributes: attributes.0,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: error.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("weft-proxy")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

/// What `error.type` says, if this side's convention calls the request failed.
fn request_error(record: &RequestRecord<'_>) -> Option<String> {
    if let Some(fault) = record.fault {
        return Some(fault.reason().to_owned());
    }
    let client = record.direction == Direction::Outbound;
    if let Some(code) = record.grpc_status {
        let failed = if client {
            code != 0
        } else {
            GRPC_SERVER_ERRORS.contains(&code)
        };
        return failed.then(|| code.to_string());
    }
    let failed = record.status >= if client { 400 } else { 500 };
    failed.then(|| record.status.to_string())
}

/// Only these may stand in `http.request.method` (RFC 9110, RFC 5789).
fn known_method(method: &http::Method) -> Option<&'static str> {
    [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ]
    .into_iter()
    .find(|known| *known == method.as_str())
}

fn protocol_version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "0.9",
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.push(KeyValue::new(key, value));
    }

    fn some(&mut self, key: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    fn count(&mut self, key: &'static str, value: u64) {
        self.set(key, i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// The server that is asked, and its port: where none is named, the scheme's own.
    fn authority(&mut self, authority: &str, scheme: &str) {
        let Ok(authority) = authority.parse::<http::uri::Authority>() else {
            return;
        };
        let own = if scheme == "https" { 443 } else { 80 };
        let port = authority.port_u16().unwrap_or(own);
        self.set("server.address", authority.host().to_owned());
        self.set("server.port", i64::from(port));
    }

    /// The other end of the connection that this span is about, and whoever called.
    fn sides(
        &mut self,
        direction: Direction,
        upstream: Option<std::net::SocketAddr>,
        downstream: Option<std::net::SocketAddr>,
    ) {
        let other = match direction {
            Direction::Inbound => downstream,
            Direction::Outbound => upstream,
        };
        if let Some(address) = other {
            self.set("network.peer.address", address.ip().to_string());
            self.set("network.peer.port", i64::from(address.port()));
        }
        if let (Direction::Inbound, Some(address)) = (direction, downstream) {
            self.set("client.address", address.ip().to_string());
        }
    }

    fn mesh(&mut self, source: &Party<'_>, destination: &Party<'_>, tls: bool) {
        let full = |party: &Party<'_>| {
            let known = !party.workload.is_empty();
            known.then(|| format!("{}/{}", party.namespace, party.workload))
        };
        self.some("weft.source_workload", full(source));
        self.some("weft.destination_workload", full(destination));
        let service = destination.service.as_ref().map(ToString::to_string);
        self.some("weft.destination_service", service);
        self.set("weft.tls", tls);
    }
}
