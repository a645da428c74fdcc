//! `TrafficPolicy` (weft.dev/v1alpha1): how the endpoints of a Service are called. Gateway API has no field for
//! any of it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::fields::{Field, Fields};
use super::policy_target::{self, ServiceTarget};
use super::{Metadata, duration, names, route};

/// Longest time that a policy may name.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Connections or requests that a limit may allow.
const COUNT_MAX: u32 = 1_000_000;
/// Bytes of a cookie's name.
const NAME_BYTES_MAX: usize = 256;
/// Factors and deviations, in hundredths.
const FACTOR_MAX: i64 = 1000;

/// How a Service's endpoints are called. What is absent is the proxies' default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficPolicy {
    pub metadata: Metadata,
    /// Never empty, each once.
    pub targets: Vec<ServiceTarget>,
    pub balancing: Option<LoadBalancing>,
    pub outliers: Option<OutlierDetection>,
    pub breaker: Option<CircuitBreaker>,
}

/// Which endpoint takes the next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancing {
    pub algorithm: Algorithm,
    pub slow_start: Option<Duration>,
}

/// See `README.md`, "Resilience".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Algorithm {
    LeastRequest,
    PeakEwma,
    RoundRobin,
    ConsistentHash(HashKey),
}

/// What of a request says where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    Header(String),
    Cookie(String),
    Source,
    Path,
}

/// When an endpoint that serves worse than the others is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutlierDetection {
    pub consecutive_failures: Option<u32>,
    pub interval: Option<Duration>,
    /// In hundredths, so that documents compare exactly.
    pub success_rate_deviations: Option<u32>,
    /// In hundredths.
    pub latency_factor: Option<u32>,
    pub ejection_time: Option<Duration>,
    pub ejection_time_max: Option<Duration>,
    pub ejected_percent_max: Option<u32>,
}

/// What may be on its way at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CircuitBreaker {
    pub connections_max: Option<u32>,
    pub requests_max: Option<u32>,
    pub pending_max: Option<u32>,
    pub queue_timeout: Option<Duration>,
}

/// Sets a field that is there.
fn put(out: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        out.insert(name.to_owned(), value);
    }
}

fn shown(time: Option<Duration>) -> Option<Value> {
    time.map(|time| duration::format(time).into())
}

fn hundredths(value: Option<u32>) -> Option<Value> {
    value.map(|value| json!(f64::from(value) / 100.0))
}

impl TrafficPolicy {
    pub(super) fn to_json(&self) -> Value {
        let mut out = Map::new();
        let targets = self.targets.iter().map(ServiceTarget::to_json);
        out.insert("targetRefs".to_owned(), targets.collect());
        let balancing = self.balancing.as_ref().map(LoadBalancing::to_json);
        put(&mut out, "loadBalancing", balancing);
        let outliers = self.outliers.as_ref().map(OutlierDetection::to_json);
        put(&mut out, "outlierDetection", outliers);
        let breaker = self.breaker.as_ref().map(CircuitBreaker::to_json);
        put(&mut out, "circuitBreaker", breaker);
        Value::Object(out)
    }
}

impl LoadBalancing {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        let (algorithm, key) = match &self.algorithm {
            Algorithm::LeastRequest => ("LeastRequest", None),
            Algorithm::PeakEwma => ("PeakEWMA", None),
            Algorithm::RoundRobin => ("RoundRobin", None),
            Algorithm::ConsistentHash(key) => ("ConsistentHash", Some(key)),
        };
        out.insert("algorithm".to_owned(), algorithm.into());
        let key = key.map(|key| match key {
            HashKey::Header(name) => json!({"type": "Header", "name": name}),
            HashKey::Cookie(name) => json!({"type": "Cookie", "name": name}),
            HashKey::Source => json!({"type": "Source"}),
            HashKey::Path => json!({"type": "Path"}),
        });
        put(&mut out, "hashKey", key);
        put(&mut out, "slowStart", shown(self.slow_start));
        Value::Object(out)
    }
}

impl OutlierDetection {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        let number = |value: Option<u32>| value.map(Value::from);
        put(
            &mut out,
            "consecutiveFailures",
            number(self.consecutive_failures),
        );
        put(&mut out, "interval", shown(self.interval));
        let deviations = hundredths(self.success_rate_deviations);
        put(&mut out, "successRateDeviations", deviations);
        put(&mut out, "latencyFactor", hundredths(self.latency_factor));
        put(&mut out, "ejectionTime", shown(self.ejection_time));
        put(&mut out, "maxEjectionTime", shown(self.ejection_time_max));
        put(
            &mut out,
            "maxEjectedPercent",
            number(self.ejected_percent_max),
        );
        Value::Object(out)
    }
}

impl CircuitBreaker {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        let number = |value: Option<u32>| value.map(Value::from);
        put(&mut out, "maxConnections", number(self.connections_max));
        put(&mut out, "maxRequests", number(self.requests_max));
        put(&mut out, "maxPendingRequests", number(self.pending_max));
        put(&mut out, "queueTimeout", shown(self.queue_timeout));
        Value::Object(out)
    }
}

/// Reads `spec`.
pub(super) fn decode(metadata: Metadata, document: &mut Fields<'_>) -> Option<TrafficPolicy> {
    let spec = document.require("spec")?;
    let mut fields = spec.mapping()?;
    let targets = policy_target::targets(&mut fields);
    let parts = ["loadBalancing", "outlierDetection", "circuitBreaker"];
    let [balancing, outliers, breaker] = parts.map(|name| fields.take(name));
    fields.finish();
    if [&balancing, &outliers, &breaker]
        .iter()
        .all(|part| part.is_none())
    {
        spec.problem(format!(
            "says nothing: one of {} is needed",
            parts.join(", ")
        ));
    }
    Some(TrafficPolicy {
        metadata,
        targets: targets?,
        balancing: balancing.and_then(|field| load_balancing(&field)),
        outliers: outliers.and_then(|field| outlier_detection(&field)),
        breaker: breaker.and_then(|field| circuit_breaker(&field)),
    })
}

fn time(fields: &mut Fields<'_>, name: &str, shortest: Duration) -> Option<Duration> {
    duration::read_within(fields, name, shortest..=TIME_MAX)
}

/// A number with at most two digits after the point.
fn factor(fields: &mut Fields<'_>, name: &str) -> Option<u32> {
    let field = fields.take(name)?;
    let number = field.number(0.0, FACTOR_MAX as f64)?;
    Some((number * 100.0).round() as u32)
}

fn load_balancing(field: &Field<'_>) -> Option<LoadBalancing> {
    let mut fields = field.mapping()?;
    let algorithm = fields.require("algorithm");
    let key = fields.take("hashKey");
    let slow_start = time(&mut fields, "slowStart", Duration::ZERO);
    fields.finish();
    let field = algorithm?;
    let named = field.string()?;
    let algorithm = match (named.as_str(), &key) {
        ("ConsistentHash", Some(key)) => Algorithm::ConsistentHash(hash_key(key)?),
        ("ConsistentHash", None) => {
            field.problem("needs hashKey");
            return None;
        }
        (_, Some(key)) => {
            key.problem("means nothing without ConsistentHash");
            return None;
        }
        ("LeastRequest", None) => Algorithm::LeastRequest,
        ("PeakEWMA", None) => Algorithm::PeakEwma,
        ("RoundRobin", None) => Algorithm::RoundRobin,
        (other, None) => {
            let known = "LeastRequest, PeakEWMA, RoundRobin, ConsistentHash";
            field.problem(format!("{other:?} is none of {known}"));
            return None;
        }
    };
    Some(LoadBalancing {
        algorithm,
        slow_start,
    })
}

fn hash_key(field: &Field<'_>) -> Option<HashKey> {
    let mut fields = field.mapping()?;
    let kind = fields.require("type")?;
    let named = kind.string()?;
    let key = match named.as_str() {
        "Header" => fields
            .require("name")?
            .checked(route::header_name)
            .map(HashKey::Header),
        "Cookie" => fields
            .require("name")?
            .checked(|name| names::token(name, NAME_BYTES_MAX))
            .map(HashKey::Cookie),
        "Source" => Some(HashKey::Source),
        "Path" => Some(HashKey::Path),
        other => {
            kind.problem(format!("{other:?} is none of Header, Cookie, Source, Path"));
            None
        }
    };
    fields.finish();
    key
}

fn outlier_detection(field: &Field<'_>) -> Option<OutlierDetection> {
    let mut fields = field.mapping()?;
    let tick = Duration::from_millis(100);
    let read = OutlierDetection {
        consecutive_failures: fields.count("consecutiveFailures", 0..=1000),
        interval: time(&mut fields, "interval", tick),
        success_rate_deviations: factor(&mut fields, "successRateDeviations"),
        latency_factor: factor(&mut fields, "latencyFactor"),
        ejection_time: time(&mut fields, "ejectionTime", tick),
        ejection_time_max: time(&mut fields, "maxEjectionTime", tick),
        ejected_percent_max: fields.count("maxEjectedPercent", 0..=100),
    };
    fields.finish();
    if read
        .latency_factor
        .is_some_and(|factor| (1..=100).contains(&factor))
    {
        field.problem("latencyFactor must be above 1, or 0 for not looking at latency");
    }
    Some(read)
}

fn circuit_breaker(field: &Field<'_>) -> Option<CircuitBreaker> {
    let mut fields = field.mapping()?;
    let read = CircuitBreaker {
        connections_max: fields.count("maxConnections", 1..=COUNT_MAX),
        requests_max: fields.count("maxRequests", 1..=COUNT_MAX),
        pending_max: fields.count("maxPendingRequests", 0..=COUNT_MAX),
        queue_timeout: time(&mut fields, "queueTimeout", Duration::ZERO),
    };
    fields.finish();
    Some(read)
}
