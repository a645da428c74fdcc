//! What policies say of a cluster. What is unset, or can't be, is the default.

use std::time::Duration;

use http::{HeaderName, StatusCode};
use weft_proto::v1alpha1 as wire;

use super::{Result, each, from_text, reject, required, route, text, visible, within};
use crate::model::{
    Balancing, CircuitBreaker, ClusterPolicy, FaultInjection, FaultStatus, Faults, HashKey,
    HealthCheck, HealthCheckKind, Hedging, Locality, OutlierDetection, RetryBudget, SHARES,
};

/// Longest time that a policy may name; a longer one is rejected.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Of the latencies seen lately the one after which a request is hedged, where a document doesn't say it.
const HEDGING_PERCENTILE: u32 = 95;
/// A request that was sent less long ago isn't hedged: the second attempt would hardly be faster.
const HEDGING_DELAY_MIN: Duration = Duration::from_millis(1);
/// How often an endpoint is asked how it is, where a document doesn't say it.
const HEALTH_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long its answer is waited for.
const HEALTH_CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Failures in a row after which it gets no requests.
const UNHEALTHY_THRESHOLD: u32 = 3;
/// Successes in a row after which it gets them again.
const HEALTHY_THRESHOLD: u32 = 2;

pub(super) fn decode(message: wire::ClusterPolicy) -> Result<ClusterPolicy> {
    let balancing = match wire::Balancing::try_from(message.balancing) {
        Ok(wire::Balancing::Unspecified | wire::Balancing::LeastRequest) => Balancing::LeastRequest,
        Ok(wire::Balancing::PeakEwma) => Balancing::PeakEwma,
        Ok(wire::Balancing::RoundRobin) => Balancing::RoundRobin,
        Ok(wire::Balancing::ConsistentHash) => {
            Balancing::ConsistentHash(within("hash_key", hash_key(message.hash_key))?)
        }
        Err(_) => return Err(reject("balancing", "is none that this proxy knows")),
    };
    let outliers = message.outlier_detection.unwrap_or_default();
    let breaker = message.circuit_breaker.unwrap_or_default();
    let budget = message.retry_budget.unwrap_or_default();
    Ok(ClusterPolicy {
        names: each("names", message.names, |name| text("", name))?,
        balancing,
        locality: match wire::Locality::try_from(message.locality) {
            Ok(wire::Locality::Unspecified | wire::Locality::OwnZoneFirst) => {
                Locality::OwnZoneFirst
            }
            Ok(wire::Locality::AnyZone) => Locality::AnyZone,
            Err(_) => return Err(reject("locality", "is none that this proxy knows")),
        },
        panic_percent: percent(
            "panic_percent",
            message.panic_percent,
            ClusterPolicy::default().panic_percent,
        )?,
        slow_start: time(
            "slow_start_milliseconds",
            message.slow_start_milliseconds,
            Duration::ZERO,
        )?,
        outliers: within("outlier_detection", self::outliers(&outliers))?,
        breaker: within("circuit_breaker", self::breaker(&breaker))?,
        budget: within("retry_budget", self::budget(&budget))?,
        health_check: match message.health_check {
            Some(check) => Some(within("health_check", health_check(check))?),
            None => None,
        },
        hedging: match message.hedging {
            Some(hedging) => Some(within("hedging", self::hedging(&hedging))?),
            None => None,
        },
        faults: faults(message.fault_injection_policy, message.fault_injections)?,
        session: match message.session_persistence {
            Some(session) => Some(within("session_persistence", route::session(session))?),
            None => None,
        },
    })
}

pub(super) fn time(field: &str, milliseconds: Option<u64>, default: Duration) -> Result<Duration> {
    match milliseconds.map(Duration::from_millis) {
        None => Ok(default),
        Some(time) if time <= TIME_MAX => Ok(time),
        Some(time) => Err(reject(
            field,
            format!("{time:?} is longer than {TIME_MAX:?}"),
        )),
    }
}

/// A time in which something is counted.
pub(super) fn interval(
    field: &str,
    milliseconds: Option<u64>,
    default: Duration,
) -> Result<Duration> {
    match time(field, milliseconds, default)? {
        Duration::ZERO => Err(reject(field, "must be longer than nothing")),
        time => Ok(time),
    }
}

fn percent(field: &str, percent: Option<u32>, default: u32) -> Result<u32> {
    match percent.unwrap_or(default) {
        percent @ 0..=100 => Ok(percent),
        percent => Err(reject(field, format!("{percent} is above 100"))),
    }
}

fn factor(field: &str, factor: Option<f64>, default: f64) -> Result<f64> {
    let factor = factor.unwrap_or(default);
    if factor.is_finite() && factor >= 0.0 {
        Ok(factor)
    } else {
        Err(reject(field, format!("{factor} is no factor")))
    }
}

fn hash_key(message: Option<wire::HashKey>) -> Result<HashKey> {
    use wire::hash_key::Key;
    match message.and_then(|message| message.key) {
        Some(Key::Header(name)) => Ok(HashKey::Header(from_text::<HeaderName>("header", &name)?)),
        Some(Key::Cookie(name)) => Ok(HashKey::Cookie(required("cookie", name)?)),
        Some(Key::Source(_)) => Ok(HashKey::Source),
        Some(Key::Path(_)) => Ok(HashKey::Path),
        None => Err(reject("key", "is not set")),
    }
}

fn outliers(message: &wire::OutlierDetection) -> Result<OutlierDetection> {
    let default = OutlierDetection::default();
    let consecutive = message.consecutive_failures;
    Ok(OutlierDetection {
        consecutive_failures: consecutive.unwrap_or(default.consecutive_failures),
        interval: interval(
            "interval_milliseconds",
            message.interval_milliseconds,
            default.interval,
        )?,
        success_rate_deviations: factor(
            "success_rate_deviations",
            message.success_rate_deviations,
            default.success_rate_deviations,
        )?,
        latency_factor: factor(
            "latency_factor",
            message.latency_factor,
            default.latency_factor,
        )?,
        ejection_time: time(
            "ejection_time_milliseconds",
            message.ejection_time_milliseconds,
            default.ejection_time,
        )?,
        ejection_time_max: time(
            "ejection_time_max_milliseconds",
            message.ejection_time_max_milliseconds,
            default.ejection_time_max,
        )?,
        ejected_percent_max: percent(
            "ejected_percent_max",
            message.ejected_percent_max,
            default.ejected_percent_max,
        )?,
    })
}

fn hedging(message: &wire::Hedging) -> Result<Hedging> {
    let percentile = message.percentile.unwrap_or(HEDGING_PERCENTILE);
    Ok(Hedging {
        percentile: percent("percentile", Some(percentile), percentile)?,
        min_delay: time(
            "min_delay_milliseconds",
            message.min_delay_milliseconds,
            HEDGING_DELAY_MIN,
        )?,
    })
}

/// Faults of a rule or a cluster, and the policy that they are from.
pub(super) fn faults(policy: String, list: Vec<wire::FaultInjection>) -> Result<Faults> {
    Ok(Faults {
        policy: text("fault_injection_policy", policy)?,
        list: each("fault_injections", list, fault)?.into(),
    })
}

fn fault(message: wire::FaultInjection) -> Result<FaultInjection> {
    let share = |field: &str, share: u32| match share {
        0..=SHARES => Ok(share),
        share => Err(reject(field, format!("{share} is above {SHARES}"))),
    };
    let status = match (message.http_status, message.grpc_status) {
        (0, None) => None,
        (0, Some(status @ 1..=16)) => Some(FaultStatus::Grpc(status as u16)),
        (0, Some(status)) => {
            return Err(reject("grpc_status", format!("{status} is no failure")));
        }
        (status, _) => {
            let code = u16::try_from(status)
                .ok()
                .filter(|code| (200..=599).contains(code));
            let code = code.and_then(|code| StatusCode::from_u16(code).ok());
            let none = || reject("http_status", format!("{status} is no final status"));
            Some(FaultStatus::Http(code.ok_or_else(none)?))
        }
    };
    let abort_share = share("abort_share", message.abort_share)?;
    let delay_share = share("delay_share", message.delay_share)?;
    let delay = time(
        "delay_milliseconds",
        Some(message.delay_milliseconds),
        Duration::ZERO,
    )?;
    Ok(FaultInjection {
        matches: match message.r#match {
            None => None,
            Some(message) => Some(within("match", route::route_match(message))?),
        },
        delay: (delay_share > 0).then_some((delay_share, delay)),
        abort: status.map(|status| (abort_share, status)),
    })
}

fn health_check(message: wire::HealthCheck) -> Result<HealthCheck> {
    use wire::health_check::Check;
    let kind = match message.check {
        None => return Err(reject("check", "is none that this proxy knows")),
        Some(Check::Http(http)) => HealthCheckKind::Http {
            path: visible("http.path", &http.path)?,
            host: match http.host.as_str() {
                "" => None,
                host => Some(visible("http.host", host)?),
            },
            statuses: each(
                "http.statuses",
                http.statuses,
                |status| match u16::try_from(status) {
                    Ok(status @ 200..=599) => Ok(status),
                    _ => Err(reject("", format!("{status} is no final status"))),
                },
            )?,
        },
        Some(Check::Grpc(service)) => HealthCheckKind::Grpc {
            service: text("grpc", service)?,
        },
        Some(Check::Tcp(_)) => HealthCheckKind::Tcp,
    };
    Ok(HealthCheck {
        kind,
        interval: interval(
            "interval_milliseconds",
            message.interval_milliseconds,
            HEALTH_CHECK_INTERVAL,
        )?,
        timeout: interval(
            "timeout_milliseconds",
            message.timeout_milliseconds,
            HEALTH_CHECK_TIMEOUT,
        )?,
        unhealthy_threshold: message
            .unhealthy_threshold
            .unwrap_or(UNHEALTHY_THRESHOLD)
            .max(1),
        healthy_threshold: message
            .healthy_threshold
            .unwrap_or(HEALTHY_THRESHOLD)
            .max(1),
    })
}

fn breaker(message: &wire::CircuitBreaker) -> Result<CircuitBreaker> {
    let default = CircuitBreaker::default();
    Ok(CircuitBreaker {
        connections_max: message.connections_max.unwrap_or(default.connections_max),
        requests_max: message.requests_max.unwrap_or(default.requests_max),
        pending_max: message.pending_max.unwrap_or(default.pending_max),
        queue_timeout: time(
            "queue_timeout_milliseconds",
            message.queue_timeout_milliseconds,
            default.queue_timeout,
        )?,
    })
}

fn budget(message: &wire::RetryBudget) -> Result<RetryBudget> {
    let default = RetryBudget::default();
    Ok(RetryBudget {
        percent: percent("percent", message.percent, default.percent)?,
        interval: interval(
            "interval_milliseconds",
            message.interval_milliseconds,
            default.interval,
        )?,
        min_retries: message.min_retries.unwrap_or(default.min_retries),
        min_interval: interval(
            "min_interval_milliseconds",
            message.min_interval_milliseconds,
            default.min_interval,
        )?,
    })
}
