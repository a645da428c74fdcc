use std::borrow::Cow;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

use super::*;
use crate::model::{FieldValue, ServiceName, Text};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn telemetry(spans: Option<SpanOptions>) -> (Telemetry, Exporter) {
    Telemetry::new(TelemetryOptions {
        workload: "web-1".to_owned(),
        namespace: "shop".to_owned(),
        service_account: "web".to_owned(),
        access_log: AccessLog::Off,
        sampler: Sampler::parent_based(0.0),
        spans,
    })
}

fn spans_to(endpoint: String, protocol: Protocol) -> SpanOptions {
    SpanOptions {
        endpoint,
        protocol,
        timeout: Duration::from_secs(5),
        service_name: None,
        attributes: vec![("team".to_owned(), "web".to_owned())],
    }
}

fn request<'r>(telemetry: &Telemetry, route: &'r str) -> RequestRecord<'r> {
    let mut headers = Fields::new();
    headers.set(
        "traceparent".parse().unwrap(),
        FieldValue::from_static(TRACEPARENT),
    );
    RequestRecord {
        direction: Direction::Outbound,
        context: telemetry.begin(&headers),
        start: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        duration: Duration::from_micros(1500),
        method: http::Method::GET,
        scheme: "http",
        authority: Some(Cow::Owned(Text::from_static("orders:80"))),
        path: Cow::Owned(Text::from_static("/list?token=secret")),
        version: http::Version::HTTP_11,
        status: 503,
        grpc_status: None,
        fault: Some(Fault::NoEndpoint),
        source: Party {
            namespace: Cow::Owned("shop".into()),
            workload: Cow::Owned("web-1".into()),
            service: None,
        },
        destination: Party {
            service: Some(Cow::Owned(ServiceName::new("shop", "orders").unwrap())),
            ..Party::default()
        },
        route: Some(route.into()),
        peer: None,
        tls: true,
        request_bytes: 3,
        response_bytes: 5,
        retries: 2,
        upstream: None,
        downstream: Some("127.0.0.1:5000".parse().unwrap()),
    }
}

fn connection(telemetry: &Telemetry) -> ConnectionRecord {
    ConnectionRecord {
        route: None,
        direction: Direction::Inbound,
        context: telemetry.begin(&Fields::new()),
        start: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        duration: Duration::from_secs(2),
        protocol: crate::model::Protocol::Tcp,
        fault: None,
        source: Party::default(),
        destination: Party::default(),
        peer: Some("spiffe://weft.local/ns/shop/sa/web".parse().unwrap()),
        tls: true,
        bytes_up: 7,
        bytes_down: 11,
        upstream: None,
        downstream: None,
        reset: true,
    }
}

#[test]
fn the_page_counts_what_was_recorded() {
    let (telemetry, _exporter) = telemetry(None);
    telemetry.finish_request(request(&telemetry, "to-orders"));
    let elsewhere = telemetry.clone();
    std::thread::spawn(move || elsewhere.finish_request(request(&elsewhere, "to-orders")))
        .join()
        .unwrap();
    telemetry.finish_connection(connection(&telemetry));
    telemetry.refused(Direction::Inbound, Fault::PeerIdentity);
    let open = telemetry.connection_opened(Direction::Inbound);
    telemetry.set_gauges(Gauges {
        certificate_not_after: Box::new(|| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(9))),
        discovery_connected: Box::new(|| true),
    });
    let page = telemetry.render();
    let has = |line: &str| assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    let labels = r#"direction="outbound",source_workload="web-1",source_namespace="shop",destination_service="orders",destination_workload="",destination_namespace="shop",route="to-orders",status="503",grpc_status="",fault="no_endpoint",tls="true""#;
    has(&format!("weft_requests_total{{{labels}}} 2"));
    has(&format!("weft_retries_total{{{labels}}} 4"));
    has(&format!("weft_request_bytes_total{{{labels}}} 6"));
    has(&format!("weft_response_bytes_total{{{labels}}} 10"));
    let duration = "weft_request_duration_seconds";
    has(&format!("{duration}_bucket{{{labels},le=\"0.001\"}} 0"));
    has(&format!("{duration}_bucket{{{labels},le=\"0.0025\"}} 2"));
    has(&format!("{duration}_bucket{{{labels},le=\"+Inf\"}} 2"));
    has(&format!("{duration}_sum{{{labels}}} 0.003"));
    has(&format!("{duration}_count{{{labels}}} 2"));
    assert!(page.contains("fault=\"\",tls=\"true\",way=\"up\"} 7\n"));
    assert!(page.contains("fault=\"\",tls=\"true\",way=\"down\"} 11\n"));
    has("weft_refused_total{direction=\"inbound\",fault=\"peer_identity\"} 1");
    has("weft_connections_open{direction=\"inbound\"} 1");
    has("weft_certificate_not_after_seconds 9");
    has("weft_discovery_connected 1");
    assert!(page.contains("process_resident_memory_bytes "));
    drop(open);
    let closed = "weft_connections_open{direction=\"inbound\"} 0\n";
    assert!(telemetry.render().contains(closed));
}

#[test]
fn what_threads_count_at_once_is_added_up() {
    let (telemetry, _exporter) = telemetry(None);
    let (threads, each) = (4, 5_000);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let telemetry = telemetry.clone();
            scope.spawn(move || {
                for _ in 0..each {
                    telemetry.finish_request(request(&telemetry, "to-orders"));
                }
            });
        }
    });
    let page = telemetry.render();
    let counted = page
        .lines()
        .find(|line| line.starts_with("weft_requests_total{"));
    let counted = counted.and_then(|line| line.rsplit(' ').next());
    assert_eq!(counted, Some(&*(threads * each).to_string()));
}

#[test]
fn a_thread_whose_table_was_full_counts_on_where_it_was() {
    let (telemetry, _exporter) = telemetry(None);
    let first = || telemetry.finish_request(request(&telemetry, "first"));
    first();
    for n in 0..metrics::THREAD_SERIES_MAX {
        telemetry.finish_request(request(&telemetry, &n.to_string()));
    }
    first();
    let page = telemetry.render();
    let counted = page
        .lines()
        .find(|line| line.starts_with("weft_requests_total{") && line.contains("route=\"first\""));
    assert!(counted.is_some_and(|line| line.ends_with(" 2")), "{page}");
}

#[test]
fn every_family_is_declared_once_and_every_sample_has_one() {
    let (telemetry, _exporter) = telemetry(None);
    telemetry.finish_request(request(&telemetry, "a\"b\\c\nd"));
    let page = telemetry.render();
    assert!(page.contains(r#"route="a\"b\\c\nd""#), "{page}");
    let mut families: Vec<&str> = Vec::new();
    for line in page.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let family = declared.split(' ').next().unwrap();
            assert!(!families.contains(&family), "{family} twice");
            families.push(family);
        } else if !line.starts_with('#') {
            let family = families.last().unwrap();
            assert!(line.starts_with(family), "{line} under {family}");
        }
    }
}

#[test]
fn no_sample_stands_on_the_page_twice() {
    let (telemetry, _exporter) = telemetry(None);
    for route in ["first", "second"] {
        telemetry.finish_request(request(&telemetry, route));
        telemetry.finish_connection(ConnectionRecord {
            route: Some(route.into()),
            ..connection(&telemetry)
        });
    }
    let page = telemetry.render();
    let mut seen = std::collections::BTreeSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (sample, _) = line.rsplit_once(' ').unwrap();
        assert!(seen.insert(sample), "{sample} twice");
    }
    let counted = |route| {
        seen.iter()
            .any(|sample| sample.starts_with("weft_tcp_bytes_total{") && sample.contains(route))
    };
    assert!(
        counted("route=\"first\"") && counted("route=\"second\""),
        "{page}"
    );
}

#[test]
fn series_are_bounded() {
    let (telemetry, _exporter) = telemetry(None);
    let more = 50;
    for _ in 0..2 {
        for n in 0..metrics::SERIES_MAX + more {
            telemetry.finish_request(request(&telemetry, &n.to_string()));
        }
    }
    let page = telemetry.render();
    let series = page
        .lines()
        .filter(|l| l.starts_with("weft_requests_total{"));
    assert_eq!(series.count(), metrics::SERIES_MAX + 1);
    let other = page
        .lines()
        .find(|l| l.starts_with("weft_requests_total{") && l.contains("route=\"other\""))
        .unwrap();
    assert!(other.ends_with(&format!(" {}", 2 * more)), "{other}");
    assert!(page.contains(&format!("weft_series_overflow_total {}\n", 2 * more)));
}

#[test]
fn what_was_counted_last_is_counted_by_the_same_labels_and_the_same_page_only() {
    let (one, _exporter) = telemetry(None);
    let (other, _exporter) = telemetry(None);
    for (telemetry, route) in [
        (&one, "a"),
        (&one, "a"),
        (&other, "a"),
        (&one, "b"),
        (&one, "a"),
    ] {
        telemetry.finish_request(request(telemetry, route));
    }
    let counted = |telemetry: &Telemetry, route: &str| {
        let page = telemetry.render();
        let of_route = format!("route=\"{route}\"");
        let line = page
            .lines()
            .find(|line| line.starts_with("weft_requests_total{") && line.contains(&of_route));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
    };
    assert_eq!(counted(&one, "a"), Some(3));
    assert_eq!(counted(&one, "b"), Some(1));
    assert_eq!(counted(&other, "a"), Some(1));
    assert_eq!(counted(&other, "b"), None);
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attribute(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|pair| pair.key == key);
    let value = found.and_then(|pair| pair.value.as_ref()?.value.clone());
    use opentelemetry_proto::tonic::common::v1::any_value::Value::*;
    match value {
        Some(StringValue(text)) => text,
        Some(IntValue(number)) => number.to_string(),
        Some(BoolValue(truth)) => truth.to_string(),
        other => format!("{other:?}"),
    }
}

fn check_export(exports: &[ExportTraceServiceRequest], context: &trace::Context) {
    let resource = &exports[0].resource_spans[0];
    let of = &resource.resource.as_ref().unwrap().attributes;
    assert_eq!(attribute(of, "service.name"), "web-1");
    assert_eq!(attribute(of, "service.namespace"), "shop");
    assert_eq!(attribute(of, "team"), "web");
    let spans: Vec<&Span> = exports
        .iter()
        .flat_map(|export| &export.resource_spans)
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| &scope.spans)
        .collect();
    assert_eq!(spans.len(), 1, "only what is sampled is exported");
    let span = spans[0];
    assert_eq!(span.trace_id, context.trace_id);
    assert_eq!(span.span_id, context.span_id);
    assert_eq!(span.parent_span_id, context.parent_span_id.unwrap());
    assert_eq!(span.name, "GET");
    assert_eq!(span.kind, 3, "CLIENT");
    assert_eq!(
        span.end_time_unix_nano - span.start_time_unix_nano,
        1_500_000
    );
    for (key, expect) in [
        ("http.request.method", "GET"),
        ("url.path", "/list"),
        ("server.address", "orders"),
        ("server.port", "80"),
        ("http.response.status_code", "503"),
        ("network.protocol.version", "1.1"),
        ("http.request.resend_count", "2"),
        ("error.type", "no_endpoint"),
        ("weft.fault", "no_endpoint"),
        ("weft.route", "to-orders"),
        ("weft.destination_service", "shop/orders"),
    ] {
        assert_eq!(attribute(&span.attributes, key), expect, "{key}");
    }
}

#[tokio::test]
async fn spans_reach_a_grpc_collector() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let collector = Collector::default();
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let options = spans_to(format!("http://{address}"), Protocol::Grpc);
    let (telemetry, exporter) = telemetry(Some(options));
    let exporting = tokio::spawn(exporter.run());
    let record = request(&telemetry, "to-orders");
    let context = record.context.clone();
    telemetry.finish_request(record);
    telemetry.finish_connection(connection(&telemetry));
    telemetry.flush().await;
    check_export(&collector.0.lock().unwrap(), &context);
    drop(telemetry);
    exporting.await.unwrap();
    server.abort();
}

#[tokio::test]
async fn spans_reach_an_http_collector() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let collector = Collector::default();
    let taken = collector.clone();
    let take = move |body: bytes::Bytes| async move {
        let export = ExportTraceServiceRequest::decode(body).unwrap();
        taken.0.lock().unwrap().push(export);
        ExportTraceServiceResponse::default().encode_to_vec()
    };
    let router = axum::Router::new().route("/v1/traces", axum::routing::post(take));
    let server = tokio::spawn(async { axum::serve(listener, router).await });
    let endpoint = format!("http://{address}/v1/traces");
    let (telemetry, exporter) = telemetry(Some(spans_to(endpoint, Protocol::HttpProtobuf)));
    tokio::spawn(exporter.run());
    let record = request(&telemetry, "to-orders");
    let context = record.context.clone();
    telemetry.finish_request(record);
    telemetry.flush().await;
    check_export(&collector.0.lock().unwrap(), &context);
    server.abort();
}

#[tokio::test]
async fn a_collector_that_never_answers_slows_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut options = spans_to(format!("http://{address}"), Protocol::Grpc);
    options.timeout = Duration::from_millis(200);
    let (telemetry, exporter) = telemetry(Some(options));
    let exporting = tokio::spawn(exporter.run());
    let count = 2 * SPANS_QUEUED_MAX;
    let began = Instant::now();
    for _ in 0..count {
        telemetry.finish_request(request(&telemetry, "to-orders"));
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let queue = telemetry.0.spans.as_ref().unwrap();
    assert!(queue.max_capacity() == SPANS_QUEUED_MAX && queue.capacity() == 0);
    drop(listener.accept().await.unwrap().0);
    let metrics = telemetry.0.metrics.clone();
    drop(telemetry);
    exporting.await.unwrap();
    let dropped = metrics.spans_dropped.load(Ordering::Relaxed);
    assert_eq!(dropped, count as u64, "each is dropped and counted");
}

#[tokio::test]
async fn without_a_collector_context_is_passed_on_all_the_same() {
    let (telemetry, exporter) = telemetry(None);
    exporter.run().await;
    let record = request(&telemetry, "to-orders");
    let mut headers = Fields::new();
    record.context.inject(&mut headers);
    let sent = headers.get("traceparent").unwrap().to_str().unwrap();
    assert_eq!(sent[..36], TRACEPARENT[..36]);
    telemetry.finish_request(record);
    assert!(telemetry.render().contains("weft_spans_dropped_total 0\n"));
}

#[test]
fn access_log_lines() {
    let (telemetry, _exporter) = telemetry(None);
    let (sender, receiver) = mpsc::channel(8);
    let request = request(&telemetry, "to orders");
    let connection = connection(&telemetry);
    let trace_id = connection.context.trace_id_hex();
    let records = [
        Record::Request(Arc::new(request)),
        Record::Connection(Arc::new(connection)),
    ];
    for record in records {
        sender.try_send(Queued::Record(record)).unwrap();
    }
    drop(sender);
    let mut output = Vec::new();
    access_log::write(AccessLog::Json, receiver, &mut output).unwrap();
    let text = String::from_utf8(output).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["trace_id"], TRACEPARENT[3..35]);
    assert_eq!(lines[0]["status"], 503);
    assert_eq!(lines[0]["fault"], "no_endpoint");
    assert_eq!(lines[0]["destination_service"], "shop/orders");
    assert_eq!(lines[0]["time"], "2027-01-15T08:00:00.000000Z");
    assert_eq!(lines[0]["duration_ms"], 1.5);
    assert_eq!(lines[1]["trace_id"], trace_id);
    assert_eq!(lines[1]["peer"], "spiffe://weft.local/ns/shop/sa/web");
    assert_eq!(lines[1]["bytes_down"], 11);
}

#[test]
fn a_text_line_stays_a_line() {
    let (telemetry, _exporter) = telemetry(None);
    let (sender, receiver) = mpsc::channel(8);
    let mut record = request(&telemetry, "to orders");
    record.source.workload = Cow::Owned("a\nb".into());
    let record = Record::Request(Arc::new(record));
    sender.try_send(Queued::Record(record)).unwrap();
    drop(sender);
    let mut output = Vec::new();
    access_log::write(AccessLog::Text, receiver, &mut output).unwrap();
    let text = String::from_utf8(output).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in [
        r#"source_workload="shop/a\nb""#,
        r#"route="to orders""#,
        "status=503",
        "path=/list?token=secret",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
