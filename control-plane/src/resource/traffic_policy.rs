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
/// Bytes of a health check's path.
const PATH_BYTES_MAX: usize = 1024;
/// Statuses that a health check takes for health.
const STATUSES_MAX: usize = 64;
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
    pub health_check: Option<HealthCheck>,
    pub hedging: Option<Hedging>,
}

/// Which endpoint takes the next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancing {
    pub algorithm: Algorithm,
    pub slow_start: Option<Duration>,
    pub locality: Option<Locality>,
    pub panic_percent: Option<u32>,
}

/// Whose endpoints come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locality {
    OwnZoneFirst,
    AnyZone,
}

impl Locality {
    fn as_str(self) -> &'static str {
        match self {
            Self::OwnZoneFirst => "OwnZoneFirst",
            Self::AnyZone => "AnyZone",
        }
    }
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

/// How proxies find out by themselves who serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub kind: HealthCheckKind,
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub unhealthy_threshold: Option<u32>,
    pub healthy_threshold: Option<u32>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthCheckKind {
    Http {
        path: String,
        host: Option<String>,
        /// Empty: 200 to 399.
        statuses: Vec<u16>,
    },
    Grpc {
        service: Option<String>,
    },
    Tcp,
}

/// When a second attempt at an idempotent request begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hedging {
    pub percentile: Option<u32>,
    pub min_delay: Option<Duration>,
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
        let check = self.health_check.as_ref().map(HealthCheck::to_json);
        put(&mut out, "healthCheck", check);
        put(
            &mut out,
            "hedging",
            self.hedging.as_ref().map(Hedging::to_json),
        );
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
        let locality = self.locality.map(|locality| locality.as_str().into());
        put(&mut out, "locality", locality);
        put(
            &mut out,
            "panicPercent",
            self.panic_percent.map(Value::from),
        );
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

impl HealthCheck {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        let kind = match &self.kind {
            HealthCheckKind::Http {
                path,
                host,
                statuses,
            } => {
                let mut http = Map::new();
                http.insert("path".to_owned(), path.as_str().into());
                put(&mut http, "host", host.as_deref().map(Value::from));
                let listed = (!statuses.is_empty()).then(|| json!(statuses));
                put(&mut http, "expectedStatuses", listed);
                put(&mut out, "http", Some(Value::Object(http)));
                "HTTP"
            }
            HealthCheckKind::Grpc { service } => {
                let grpc = service.as_ref().map(|service| json!({"service": service}));
                put(&mut out, "grpc", grpc);
                "GRPC"
            }
            HealthCheckKind::Tcp => "TCP",
        };
        out.insert("type".to_owned(), kind.into());
        put(&mut out, "interval", shown(self.interval));
        put(&mut out, "timeout", shown(self.timeout));
        let number = |value: Option<u32>| value.map(Value::from);
        put(
            &mut out,
            "unhealthyThreshold",
            number(self.unhealthy_threshold),
        );
        put(&mut out, "healthyThreshold", number(self.healthy_threshold));
        Value::Object(out)
    }
}

impl Hedging {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        put(&mut out, "percentile", self.percentile.map(Value::from));
        put(&mut out, "minDelay", shown(self.min_delay));
        Value::Object(out)
    }
}

/// Reads `spec`.
pub(super) fn decode(metadata: Metadata, document: &mut Fields<'_>) -> Option<TrafficPolicy> {
    let spec = document.require("spec")?;
    let mut fields = spec.mapping()?;
    let targets = policy_target::targets(&mut fields);
    let parts = [
        "loadBalancing",
        "outlierDetection",
        "circuitBreaker",
        "healthCheck",
        "hedging",
    ];
    let read = parts.map(|name| fields.take(name));
    fields.finish();
    if read.iter().all(Option::is_none) {
        spec.problem(format!(
            "says nothing: one of {} is needed",
            parts.join(", ")
        ));
    }
    let [balancing, outliers, breaker, health_check, hedging] = read;
    Some(TrafficPolicy {
        metadata,
        targets: targets?,
        balancing: balancing.and_then(|field| load_balancing(&field)),
        outliers: outliers.and_then(|field| outlier_detection(&field)),
        breaker: breaker.and_then(|field| circuit_breaker(&field)),
        health_check: health_check.and_then(|field| self::health_check(&field)),
        hedging: hedging.and_then(|field| self::hedging(&field)),
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
    let algorithm = fields.take("algorithm");
    let key = fields.take("hashKey");
    let slow_start = time(&mut fields, "slowStart", Duration::ZERO);
    let locality = fields.take("locality");
    let panic_percent = fields.count("panicPercent", 0..=100);
    fields.finish();
    let algorithm = match (&algorithm, &key) {
        (Some(field), key) => self::algorithm(field, key.as_ref())?,
        (None, Some(key)) => {
            key.problem("means nothing without ConsistentHash");
            return None;
        }
        (None, None) => Algorithm::LeastRequest,
    };
    let locality = match &locality {
        None => None,
        Some(field) => Some(self::locality(field)?),
    };
    Some(LoadBalancing {
        algorithm,
        slow_start,
        locality,
        panic_percent,
    })
}

fn algorithm(field: &Field<'_>, key: Option<&Field<'_>>) -> Option<Algorithm> {
    let named = field.string()?;
    Some(match (named.as_str(), key) {
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
    })
}

fn locality(field: &Field<'_>) -> Option<Locality> {
    let named = field.string()?;
    let known = [Locality::OwnZoneFirst, Locality::AnyZone];
    let found = known.into_iter().find(|one| one.as_str() == named);
    if found.is_none() {
        field.problem(format!("{named:?} is none of OwnZoneFirst, AnyZone"));
    }
    found
}

fn health_check(field: &Field<'_>) -> Option<HealthCheck> {
    let mut fields = field.mapping()?;
    let kind = fields.require("type");
    let (http, grpc) = (fields.take("http"), fields.take("grpc"));
    let tick = Duration::from_millis(100);
    let check = HealthCheck {
        kind: HealthCheckKind::Tcp,
        interval: time(&mut fields, "interval", tick),
        timeout: time(&mut fields, "timeout", tick),
        unhealthy_threshold: fields.count("unhealthyThreshold", 1..=100),
        healthy_threshold: fields.count("healthyThreshold", 1..=100),
    };
    fields.finish();
    let kind = kind?;
    let kind = match (kind.string()?.as_str(), &http, &grpc) {
        ("HTTP", Some(http), None) => http_check(http)?,
        ("HTTP", None, None) => HealthCheckKind::Http {
            path: "/".to_owned(),
            host: None,
            statuses: Vec::new(),
        },
        ("GRPC", None, Some(grpc)) => grpc_check(grpc)?,
        ("GRPC", None, None) => HealthCheckKind::Grpc { service: None },
        ("TCP", None, None) => HealthCheckKind::Tcp,
        ("HTTP" | "GRPC" | "TCP", ..) => {
            kind.problem("only the part named as the type may stand beside it: http or grpc");
            return None;
        }
        (other, ..) => {
            kind.problem(format!("{other:?} is none of HTTP, GRPC, TCP"));
            return None;
        }
    };
    Some(HealthCheck { kind, ..check })
}

fn http_check(field: &Field<'_>) -> Option<HealthCheckKind> {
    let mut fields = field.mapping()?;
    let path = fields.take("path");
    let host = fields.take("host");
    let listed = fields.take("expectedStatuses");
    fields.finish();
    let path = match path {
        Some(path) => path.checked(health_path)?,
        None => "/".to_owned(),
    };
    let host = match host {
        Some(host) => Some(host.checked(names::subdomain)?),
        None => None,
    };
    let listed = listed.map(|field| field.sequence(STATUSES_MAX));
    let statuses = listed.into_iter().flatten().filter_map(|status| {
        let status = status.integer(200..=599)?;
        u16::try_from(status).ok()
    });
    Some(HealthCheckKind::Http {
        path,
        host,
        statuses: statuses.collect(),
    })
}

/// What stands in a request's first line.
fn health_path(path: &str) -> Result<(), String> {
    let visible = path.bytes().all(|byte| byte.is_ascii_graphic());
    let fine = path.starts_with('/') && visible && path.len() <= PATH_BYTES_MAX;
    fine.then_some(()).ok_or_else(|| {
        format!("must begin with '/' and have at most {PATH_BYTES_MAX} visible characters")
    })
}

fn grpc_check(field: &Field<'_>) -> Option<HealthCheckKind> {
    let mut fields = field.mapping()?;
    let service = fields.take("service");
    fields.finish();
    let service = match service {
        Some(service) => Some(service.checked(|name| names::token(name, NAME_BYTES_MAX))?),
        None => None,
    };
    Some(HealthCheckKind::Grpc { service })
}

fn hedging(field: &Field<'_>) -> Option<Hedging> {
    let mut fields = field.mapping()?;
    let read = Hedging {
        percentile: fields.count("percentile", 50..=99),
        min_delay: time(&mut fields, "minDelay", Duration::from_millis(1)),
    };
    fields.finish();
    Some(read)
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
