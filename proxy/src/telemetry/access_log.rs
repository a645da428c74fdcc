//! A line for each request and each connection, on standard output.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::export::Queued;
use super::record::{ConnectionRecord, Party, Record, RequestRecord};
use crate::bootstrap::AccessLog;

/// Bytes that one write may hold; more lines wait for the next.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// Writes until every sender is gone; several lines make one write where they wait together. Ends
/// at the first error too, because a closed standard output stays closed.
pub(super) fn write(
    form: AccessLog,
    mut queue: mpsc::Receiver<Queued>,
    mut output: impl Write,
) -> io::Result<()> {
    let mut lines = String::new();
    while let Some(first) = queue.blocking_recv() {
        let mut flushes = Vec::new();
        let mut next = Some(first);
        while let Some(queued) = next {
            match queued {
                Queued::Record(record) => push_line(form, &record, &mut lines),
                Queued::Flush(done) => flushes.push(done),
            }
            if lines.len() >= WRITE_BYTES_MAX || !flushes.is_empty() {
                break;
            }
            next = queue.try_recv().ok();
        }
        output.write_all(lines.as_bytes())?;
        output.flush()?;
        lines.clear();
        for done in flushes {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }
    Ok(())
}

fn push_line(form: AccessLog, record: &Record, lines: &mut String) {
    let fields = match record {
        Record::Request(request) => request_fields(request),
        Record::Connection(connection) => connection_fields(connection),
    };
    match form {
        AccessLog::Off => return,
        AccessLog::Json => lines.push_str(&Value::Object(fields).to_string()),
        AccessLog::Text => push_text(&fields, lines),
    }
    lines.push('\n');
}

/// Values with blanks, quotes or control characters are quoted as in JSON, so a line stays a line.
fn push_text(fields: &Map<String, Value>, line: &mut String) {
    for (i, (key, value)) in fields.iter().enumerate() {
        if i > 0 {
            line.push(' ');
        }
        line.push_str(key);
        line.push('=');
        match value {
            Value::String(text) if is_plain(text) => line.push_str(text),
            other => line.push_str(&other.to_string()),
        }
    }
}

fn is_plain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    !text.is_empty() && text.bytes().all(plain)
}

fn request_fields(record: &RequestRecord<'_>) -> Map<String, Value> {
    let mut fields = Fields::start(record.start, record.duration);
    fields.set("direction", record.direction.as_str());
    fields.set("method", record.method.as_str());
    fields.set("scheme", record.scheme);
    fields.some("authority", record.authority.as_ref().map(|text| &***text));
    fields.set("path", &**record.path);
    fields.set("version", format!("{:?}", record.version));
    fields.set("status", record.status);
    fields.some("grpc_status", record.grpc_status);
    fields.some("fault", record.fault.map(|fault| fault.reason()));
    fields.some("route", record.route.as_deref().map(str::to_owned));
    fields.parties(&record.source, &record.destination);
    fields.some("peer", record.peer.as_ref().map(ToString::to_string));
    fields.set("tls", record.tls);
    fields.set("request_bytes", record.request_bytes);
    fields.set("response_bytes", record.response_bytes);
    fields.set("retries", record.retries);
    fields.some("upstream", record.upstream.map(|a| a.to_string()));
    fields.some("downstream", record.downstream.map(|a| a.to_string()));
    fields.set("trace_id", record.context.trace_id_hex());
    fields.0
}

fn connection_fields(record: &ConnectionRecord) -> Map<String, Value> {
    let mut fields = Fields::start(record.start, record.duration);
    fields.set("direction", record.direction.as_str());
    fields.set("protocol", record.protocol.as_str());
    fields.some("fault", record.fault.map(|fault| fault.reason()));
    fields.some("route", record.route.as_deref().map(str::to_owned));
    fields.parties(&record.source, &record.destination);
    fields.some("peer", record.peer.as_ref().map(ToString::to_string));
    fields.set("tls", record.tls);
    fields.set("bytes_up", record.bytes_up);
    fields.set("bytes_down", record.bytes_down);
    fields.set("reset", record.reset);
    fields.some("upstream", record.upstream.map(|a| a.to_string()));
    fields.some("downstream", record.downstream.map(|a| a.to_string()));
    fields.set("trace_id", record.context.trace_id_hex());
    fields.0
}

struct Fields(Map<String, Value>);

impl Fields {
    fn start(start: SystemTime, duration: Duration) -> Self {
        let mut fields = Fields(Map::new());
        fields.set("time", humantime::format_rfc3339_micros(start).to_string());
        fields.set("duration_ms", duration.as_micros() as f64 / 1000.0);
        fields
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    fn parties(&mut self, source: &Party<'_>, destination: &Party<'_>) {
        for (side, party) in [("source", source), ("destination", destination)] {
            let full = |workload: &str| json!(format!("{}/{workload}", party.namespace));
            if !party.workload.is_empty() {
                self.set(&format!("{side}_workload"), full(&party.workload));
            }
            if let Some(service) = &party.service {
                self.set(&format!("{side}_service"), service.to_string());
            }
        }
    }
}
