//! Policies to protobuf messages.

use std::time::Duration;

use weft_proto::v1alpha1 as wire;

use super::routes;
use crate::compile::{ClusterPolicy, rule_match};
use crate::resource::{
    AbortStatus, Algorithm, CircuitBreaker, FaultInjectionPolicy, HashKey, HealthCheck,
    HealthCheckKind, InjectedFault, Kind, LoadBalancing, Locality, Metadata, OutlierDetection,
    RetryConstraint,
};

pub(super) fn cluster_policy(policy: &ClusterPolicy) -> wire::ClusterPolicy {
    let (balancing, hash_key) = balancing(policy.balancing.as_ref());
    let slow_start = policy.balancing.as_ref().and_then(|one| one.slow_start);
    let locality = policy.balancing.as_ref().and_then(|one| one.locality);
    wire::ClusterPolicy {
        locality: match locality {
            None => wire::Locality::Unspecified,
            Some(Locality::OwnZoneFirst) => wire::Locality::OwnZoneFirst,
            Some(Locality::AnyZone) => wire::Locality::AnyZone,
        }
        .into(),
        panic_percent: policy.balancing.as_ref().and_then(|one| one.panic_percent),
        health_check: policy.health_check.as_ref().map(health_check),
        hedging: policy.hedging.as_ref().map(|hedging| wire::Hedging {
            percentile: hedging.percentile,
            min_delay_milliseconds: milliseconds(hedging.min_delay),
        }),
        fault_injections: policy.faults.as_deref().map(faults).unwrap_or_default(),
        fault_injection_policy: policy
            .faults
            .as_deref()
            .map(faults_name)
            .unwrap_or_default(),
        names: policy.names.clone(),
        balancing: balancing.into(),
        hash_key,
        slow_start_milliseconds: milliseconds(slow_start),
        outlier_detection: policy.outliers.as_ref().map(outliers),
        circuit_breaker: policy.breaker.as_ref().map(breaker),
        retry_budget: policy.retries.as_ref().map(budget),
        session_persistence: policy.session.as_ref().map(routes::session),
    }
}

pub(super) fn faults_name(policy: &FaultInjectionPolicy) -> String {
    let Metadata {
        namespace, name, ..
    } = &policy.metadata;
    format!("{}/{namespace}/{name}", Kind::FaultInjectionPolicy)
}

pub(super) fn faults(policy: &FaultInjectionPolicy) -> Vec<wire::FaultInjection> {
    let fault = |fault: &InjectedFault| {
        let (delay, abort) = (fault.delay.as_ref(), fault.abort.as_ref());
        let status = abort.map(|abort| &abort.status);
        wire::FaultInjection {
            r#match: fault.matches.as_ref().map(|matches| {
                let matches = rule_match(String::new(), matches);
                routes::matches(&matches)
            }),
            delay_share: delay.map_or(0, |delay| delay.share),
            delay_milliseconds: routes::milliseconds(delay.map(|delay| delay.duration)),
            abort_share: abort.map_or(0, |abort| abort.share),
            http_status: match status {
                Some(AbortStatus::Http(status)) => (*status).into(),
                _ => 0,
            },
            grpc_status: match status {
                Some(AbortStatus::Grpc(status)) => Some((*status).into()),
                _ => None,
            },
        }
    };
    policy.faults.iter().map(fault).collect()
}

pub(super) fn milliseconds(time: Option<Duration>) -> Option<u64> {
    time.map(|time| routes::milliseconds(Some(time)))
}

fn balancing(balancing: Option<&LoadBalancing>) -> (wire::Balancing, Option<wire::HashKey>) {
    use wire::hash_key::Key;
    let Some(balancing) = balancing else {
        return (wire::Balancing::Unspecified, None);
    };
    match &balancing.algorithm {
        Algorithm::LeastRequest => (wire::Balancing::LeastRequest, None),
        Algorithm::PeakEwma => (wire::Balancing::PeakEwma, None),
        Algorithm::RoundRobin => (wire::Balancing::RoundRobin, None),
        Algorithm::ConsistentHash(key) => {
            let key = match key {
                HashKey::Header(name) => Key::Header(name.to_ascii_lowercase()),
                HashKey::Cookie(name) => Key::Cookie(name.clone()),
                HashKey::Source => Key::Source(true),
                HashKey::Path => Key::Path(true),
            };
            let key = wire::HashKey { key: Some(key) };
            (wire::Balancing::ConsistentHash, Some(key))
        }
    }
}

fn outliers(outliers: &OutlierDetection) -> wire::OutlierDetection {
    let factor = |hundredths: Option<u32>| hundredths.map(|number| f64::from(number) / 100.0);
    wire::OutlierDetection {
        consecutive_failures: outliers.consecutive_failures,
        interval_milliseconds: milliseconds(outliers.interval),
        success_rate_deviations: factor(outliers.success_rate_deviations),
        latency_factor: factor(outliers.latency_factor),
        ejection_time_milliseconds: milliseconds(outliers.ejection_time),
        ejection_time_max_milliseconds: milliseconds(outliers.ejection_time_max),
        ejected_percent_max: outliers.ejected_percent_max,
    }
}

fn health_check(check: &HealthCheck) -> wire::HealthCheck {
    use wire::health_check::Check;
    let kind = match &check.kind {
        HealthCheckKind::Http {
            path,
            host,
            statuses,
        } => Check::Http(wire::HttpHealthCheck {
            path: path.clone(),
            host: host.clone().unwrap_or_default(),
            statuses: statuses.iter().map(|status| u32::from(*status)).collect(),
        }),
        HealthCheckKind::Grpc { service } => Check::Grpc(service.clone().unwrap_or_default()),
        HealthCheckKind::Tcp => Check::Tcp(true),
    };
    wire::HealthCheck {
        check: Some(kind),
        interval_milliseconds: milliseconds(check.interval),
        timeout_milliseconds: milliseconds(check.timeout),
        unhealthy_threshold: check.unhealthy_threshold,
        healthy_threshold: check.healthy_threshold,
    }
}

fn breaker(breaker: &CircuitBreaker) -> wire::CircuitBreaker {
    wire::CircuitBreaker {
        connections_max: breaker.connections_max,
        requests_max: breaker.requests_max,
        pending_max: breaker.pending_max,
        queue_timeout_milliseconds: milliseconds(breaker.queue_timeout),
    }
}

fn budget(retries: &RetryConstraint) -> wire::RetryBudget {
    wire::RetryBudget {
        percent: retries.percent,
        interval_milliseconds: milliseconds(retries.interval),
        min_retries: retries.min_count,
        min_interval_milliseconds: milliseconds(retries.min_interval),
    }
}
