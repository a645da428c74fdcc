//! Policies to protobuf messages.

use std::time::Duration;

use weft_proto::v1alpha1 as wire;

use super::routes;
use crate::compile::ClusterPolicy;
use crate::resource::{
    Algorithm, CircuitBreaker, HashKey, LoadBalancing, OutlierDetection, RetryConstraint,
};

pub(super) fn cluster_policy(policy: &ClusterPolicy) -> wire::ClusterPolicy {
    let (balancing, hash_key) = balancing(policy.balancing.as_ref());
    let slow_start = policy.balancing.as_ref().and_then(|one| one.slow_start);
    wire::ClusterPolicy {
        names: policy.names.clone(),
        balancing: balancing.into(),
        hash_key,
        slow_start_milliseconds: milliseconds(slow_start),
        outlier_detection: policy.outliers.as_ref().map(outliers),
        circuit_breaker: policy.breaker.as_ref().map(breaker),
        retry_budget: policy.retries.as_ref().map(budget),
    }
}

fn milliseconds(time: Option<Duration>) -> Option<u64> {
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
