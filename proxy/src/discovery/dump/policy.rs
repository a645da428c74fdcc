//! What policies say, as an operator sees it.

use serde_json::{Value, json};

use crate::model::{Balancing, ClusterPolicy, HealthCheck, HealthCheckKind, Locality};

pub(super) fn policy(policy: &ClusterPolicy) -> Value {
    let ClusterPolicy {
        names,
        balancing,
        locality,
        panic_percent,
        slow_start,
        outliers,
        breaker,
        budget,
        health_check,
        hedging,
        faults,
        session,
    } = policy;
    let balancing = match balancing {
        Balancing::LeastRequest => json!("least_request"),
        Balancing::PeakEwma => json!("peak_ewma"),
        Balancing::RoundRobin => json!("round_robin"),
        Balancing::ConsistentHash(key) => json!({ "consistent_hash": format!("{key:?}") }),
    };
    json!({
        "names": names,
        "balancing": balancing,
        "locality": match locality {
            Locality::OwnZoneFirst => "own_zone_first",
            Locality::AnyZone => "any_zone",
        },
        "panic_percent": panic_percent,
        "health_check": health_check.as_ref().map(self::health_check),
        "hedging": hedging.map(|hedging| {
            json!({
                "percentile": hedging.percentile,
                "min_delay_milliseconds": hedging.min_delay.as_millis(),
            })
        }),
        "fault_injections": faults.list.len(),
        "session": session.as_ref().map(|session| &session.name),
        "slow_start_milliseconds": slow_start.as_millis(),
        "outlier_detection": {
            "consecutive_failures": outliers.consecutive_failures,
            "interval_milliseconds": outliers.interval.as_millis(),
            "success_rate_deviations": outliers.success_rate_deviations,
            "latency_factor": outliers.latency_factor,
            "ejection_time_milliseconds": outliers.ejection_time.as_millis(),
            "ejection_time_max_milliseconds": outliers.ejection_time_max.as_millis(),
            "ejected_percent_max": outliers.ejected_percent_max,
        },
        "circuit_breaker": {
            "connections_max": breaker.connections_max,
            "requests_max": breaker.requests_max,
            "pending_max": breaker.pending_max,
            "queue_timeout_milliseconds": breaker.queue_timeout.as_millis(),
        },
        "retry_budget": {
            "percent": budget.percent,
            "interval_milliseconds": budget.interval.as_millis(),
            "min_retries": budget.min_retries,
            "min_interval_milliseconds": budget.min_interval.as_millis(),
        },
    })
}

fn health_check(check: &HealthCheck) -> Value {
    let kind = match &check.kind {
        HealthCheckKind::Http {
            path,
            host,
            statuses,
        } => json!({"http": {"path": &**path, "host": host.as_deref(), "statuses": statuses}}),
        HealthCheckKind::Grpc { service } => json!({"grpc": {"service": service}}),
        HealthCheckKind::Tcp => json!({"tcp": {}}),
    };
    json!({
        "check": kind,
        "interval_milliseconds": check.interval.as_millis(),
        "timeout_milliseconds": check.timeout.as_millis(),
        "unhealthy_threshold": check.unhealthy_threshold,
        "healthy_threshold": check.healthy_threshold,
    })
}
