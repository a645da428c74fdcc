//! How telemetry is set: by weft's own settings and by OpenTelemetry's environment variables
//! (OpenTelemetry specification, "Environment Variable Specification" and "OTLP Exporter
//! Configuration").

use std::time::Duration;

use super::sampler::Sampler;
use crate::bootstrap::AccessLog;

/// Waits this long for a collector's answer unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const EXPORT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Everything [`super::Telemetry::new`] has to know.
#[derive(Clone, Debug)]
pub struct TelemetryOptions {
    pub workload: String,
    pub namespace: String,
    pub service_account: String,
    pub access_log: AccessLog,
    pub sampler: Sampler,
    /// Where spans go; none: they are not made, and context is passed on all the same.
    pub spans: Option<SpanOptions>,
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanOptions {
    /// The whole URL for OTLP over HTTP, the collector's origin for gRPC.
    pub endpoint: String,
    pub protocol: Protocol,
    pub timeout: Duration,
    /// Without it the workload's name.
    pub service_name: Option<String>,
    pub attributes: Vec<(String, String)>,
}

/// How OTLP is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    HttpProtobuf,
}

/// An environment variable whose value can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; correct the variable or unset it")]
pub struct InvalidOption(String);

impl TelemetryOptions {
    /// Reads the `OTEL_*` variables by `read`, which gives an environment variable's value.
    pub fn from_environment(
        workload: &str,
        namespace: &str,
        service_account: &str,
        access_log: AccessLog,
        read: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidOption> {
        // An empty value is as good as none (specification, "Parsing empty value").
        let read = |name: &str| read(name).filter(|value| !value.trim().is_empty());
        let name = read("OTEL_TRACES_SAMPLER");
        let argument = read("OTEL_TRACES_SAMPLER_ARG");
        let sampler =
            Sampler::parse(name.as_deref(), argument.as_deref()).map_err(InvalidOption)?;
        Ok(Self {
            workload: workload.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            access_log,
            sampler,
            spans: SpanOptions::from_environment(read)?,
        })
    }
}

impl SpanOptions {
    fn from_environment(
        read: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, InvalidOption> {
        let is = |name: &str, word: &str| {
            read(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(word))
        };
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let either = |of_traces: &'static str, of_all: &'static str| {
            read(of_traces)
                .map(|value| (of_traces, value))
                .or_else(|| read(of_all).map(|value| (of_all, value)))
        };
        let protocol = match either(
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ) {
            None => Protocol::HttpProtobuf,
            Some((name, value)) => match value.trim() {
                "grpc" => Protocol::Grpc,
                "http/protobuf" => Protocol::HttpProtobuf,
                _ => {
                    let text = format!("{name} is `{value}`, and neither grpc nor http/protobuf");
                    return Err(InvalidOption(text));
                }
            },
        };
        let Some((name, endpoint)) = either(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ) else {
            return Ok(None);
        };
        let endpoint = check_endpoint(name, endpoint.trim(), protocol)?;
        let timeout = match either(
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
            "OTEL_EXPORTER_OTLP_TIMEOUT",
        ) {
            None => EXPORT_TIMEOUT_DEFAULT,
            Some((name, value)) => match value.trim().parse() {
                Ok(milliseconds) => Duration::from_millis(milliseconds),
                Err(_) => {
                    let text = format!("{name} is `{value}`, which is no number of milliseconds");
                    return Err(InvalidOption(text));
                }
            },
        };
        Ok(Some(Self {
            endpoint,
            protocol,
            timeout,
            service_name: read("OTEL_SERVICE_NAME"),
            attributes: parse_attributes(read("OTEL_RESOURCE_ATTRIBUTES"))?,
        }))
    }
}

/// The path `/v1/traces` is added to the general variable's value only (OTLP Exporter
/// Configuration, "Endpoint URLs for OTLP/HTTP").
fn check_endpoint(name: &str, value: &str, protocol: Protocol) -> Result<String, InvalidOption> {
    let invalid = |why: &str| InvalidOption(format!("{name} is `{value}`: {why}"));
    let uri: http::Uri = value
        .parse()
        .map_err(|_| invalid("not a URL like http://collector:4317"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(invalid(
                "weft-proxy exports in plaintext only, so name an http:// collector beside it",
            ));
        }
        _ => return Err(invalid("not a URL like http://collector:4317")),
    }
    Ok(match protocol {
        Protocol::HttpProtobuf if name == "OTEL_EXPORTER_OTLP_ENDPOINT" => {
            format!("{}/v1/traces", value.trim_end_matches('/'))
        }
        _ => value.to_owned(),
    })
}

/// `key=value,key=value`, percent-encoded (Resource SDK, "Specifying resource information via an
/// environment variable").
fn parse_attributes(text: Option<String>) -> Result<Vec<(String, String)>, InvalidOption> {
    let text = text.unwrap_or_default();
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                InvalidOption(format!(
                    "OTEL_RESOURCE_ATTRIBUTES has `{pair}`, which is not of the form KEY=VALUE"
                ))
            })?;
            Ok((decode_percent(key.trim()), decode_percent(value.trim())))
        })
        .collect()
}

fn decode_percent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<SpanOptions>, InvalidOption> {
        let value = |name: &str| {
            let pair = pairs.iter().find(|(key, _)| *key == name);
            pair.map(|(_, value)| (*value).to_owned())
        };
        SpanOptions::from_environment(value)
    }

    #[test]
    fn endpoints() {
        let check = |pairs: &[(&str, &str)], expect: &str| {
            let text = match read(pairs) {
                Ok(Some(spans)) => format!("{:?} {}", spans.protocol, spans.endpoint),
                Ok(None) => "none".to_owned(),
                Err(_) => "error".to_owned(),
            };
            assert_eq!(text, expect, "{pairs:?}");
        };
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1/x");
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let http = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
        check(&[], "none");
        check(&[general], "HttpProtobuf http://c:4318/v1/traces");
        check(&[general, traces], "HttpProtobuf http://t:1/x");
        check(&[general, grpc], "Grpc http://c:4318/");
        check(
            &[general, grpc, http],
            "HttpProtobuf http://c:4318/v1/traces",
        );
        check(&[general, ("OTEL_SDK_DISABLED", "TRUE")], "none");
        check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c")], "error");
        check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317")], "error");
        check(&[general, ("OTEL_EXPORTER_OTLP_PROTOCOL", "x")], "error");
        check(&[general, ("OTEL_EXPORTER_OTLP_TIMEOUT", "1s")], "error");
        check(&[general, ("OTEL_RESOURCE_ATTRIBUTES", "a")], "error");
    }

    #[test]
    fn attributes_are_decoded() {
        let text = "team=web%20shop, a=%zz,b=".to_owned();
        let expect = [("team", "web shop"), ("a", "%zz"), ("b", "")];
        let expect = expect.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(parse_attributes(Some(text)).unwrap(), expect);
    }
}
