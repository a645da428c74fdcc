//! `XBackendTrafficPolicy` (gateway.networking.x-k8s.io, GEP-3388 and GEP-1619): how many of the requests to a Service
//! may be repetitions, and how its sessions find their endpoint again.

use std::time::Duration;

use serde_json::{Value, json};

use super::fields::{Field, Fields};
use super::policy_target::{self, ServiceTarget};
use super::route::session_persistence;
use super::{Metadata, SessionPersistence, duration};

/// Longest interval, and the highest number of retries within one (Gateway API's limits).
const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
/// See [`INTERVAL_MAX`].
const COUNT_MAX: u32 = 1_000_000;

/// The budget for retries, and sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTrafficPolicy {
    pub metadata: Metadata,
    /// Never empty, each once, none with a port's name.
    pub targets: Vec<ServiceTarget>,
    pub retries: RetryConstraint,
    /// For requests whose route says nothing of sessions.
    pub session: Option<SessionPersistence>,
}

/// What is absent is the proxies' default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryConstraint {
    pub percent: Option<u32>,
    pub interval: Option<Duration>,
    pub min_count: Option<u32>,
    pub min_interval: Option<Duration>,
}

impl BackendTrafficPolicy {
    pub(super) fn to_json(&self) -> Value {
        let targets = self.targets.iter().map(ServiceTarget::to_json);
        let mut out = json!({"targetRefs": targets.collect::<Vec<_>>()});
        let RetryConstraint {
            percent,
            interval,
            min_count,
            min_interval,
        } = &self.retries;
        if let Some(percent) = percent {
            out["retryConstraint"]["budget"]["percent"] = json!(percent);
        }
        if let Some(interval) = interval {
            out["retryConstraint"]["budget"]["interval"] = duration::format(*interval).into();
        }
        if let Some(count) = min_count {
            out["retryConstraint"]["minRetryRate"]["count"] = json!(count);
        }
        if let Some(interval) = min_interval {
            let interval = duration::format(*interval);
            out["retryConstraint"]["minRetryRate"]["interval"] = interval.into();
        }
        if let Some(session) = &self.session {
            out["sessionPersistence"] = session.to_json();
        }
        out
    }
}

/// Reads `spec`.
pub(super) fn decode(
    metadata: Metadata,
    document: &mut Fields<'_>,
) -> Option<BackendTrafficPolicy> {
    let mut fields = document.require("spec")?.mapping()?;
    let targets = policy_target::targets(&mut fields);
    let retries = fields.take("retryConstraint");
    let session = fields.take("sessionPersistence");
    let session = session.and_then(|field| session_persistence(&field));
    fields.finish();
    let retries = match retries {
        Some(field) => retry_constraint(&field),
        None => Some(RetryConstraint::default()),
    };
    Some(BackendTrafficPolicy {
        metadata,
        targets: targets?,
        retries: retries?,
        session,
    })
}

fn retry_constraint(field: &Field<'_>) -> Option<RetryConstraint> {
    let mut fields = field.mapping()?;
    let (budget, rate) = (fields.take("budget"), fields.take("minRetryRate"));
    fields.finish();
    let mut read = RetryConstraint::default();
    if let Some(field) = budget {
        let mut fields = field.mapping()?;
        read.percent = fields.count("percent", 0..=100);
        read.interval = interval(&mut fields);
        fields.finish();
    }
    if let Some(field) = rate {
        let mut fields = field.mapping()?;
        read.min_count = fields.count("count", 0..=COUNT_MAX);
        read.min_interval = interval(&mut fields);
        fields.finish();
    }
    Some(read)
}

fn interval(fields: &mut Fields<'_>) -> Option<Duration> {
    duration::read_within(
        fields,
        "interval",
        Duration::from_millis(100)..=INTERVAL_MAX,
    )
}
