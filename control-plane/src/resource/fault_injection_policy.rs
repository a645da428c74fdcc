//! `FaultInjectionPolicy` (weft.dev/v1alpha1): faults that callers of a Service, or by a route, meet on purpose, so that it can be
//! seen how they do. A kind of its own, because it is applied for an hour and deleted again.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::fields::{Field, Fields};
use super::policy_target::{self, RouteTarget, ServiceTarget};
use super::route::{self, RouteKind, RouteMatch};
use super::{Metadata, duration};

/// Faults of one policy; more are refused.
const FAULTS_MAX: usize = 16;
/// Longest delay.
const DELAY_MAX: Duration = Duration::from_secs(60 * 60);
/// All requests, in hundredths of a percent.
const SHARE_MAX: f64 = 100.0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultInjectionPolicy {
    pub metadata: Metadata,
    /// Each once; together with `routes` never empty.
    pub targets: Vec<ServiceTarget>,
    /// Each once.
    pub routes: Vec<RouteTarget>,
    /// Never empty. The first that matches a request acts.
    pub faults: Vec<InjectedFault>,
}

/// At least one of both is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectedFault {
    /// Absent: every request.
    pub matches: Option<RouteMatch>,
    pub delay: Option<Delay>,
    pub abort: Option<Abort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delay {
    /// Hundredths of a percent of the requests that match.
    pub share: u32,
    pub duration: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    /// Hundredths of a percent of the requests that match.
    pub share: u32,
    pub status: AbortStatus,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AbortStatus {
    Http(u16),
    Grpc(u16),
}

impl FaultInjectionPolicy {
    pub(super) fn to_json(&self) -> Value {
        let routes = self.routes.iter().map(RouteTarget::to_json);
        let targets = self.targets.iter().map(ServiceTarget::to_json);
        let targets = targets.chain(routes);
        let faults = self.faults.iter().map(InjectedFault::to_json);
        json!({
            "targetRefs": targets.collect::<Vec<_>>(),
            "faults": faults.collect::<Vec<_>>(),
        })
    }
}

impl InjectedFault {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        if let Some(matches) = &self.matches {
            out.insert("match".to_owned(), matches.to_json());
        }
        let percent = |share: u32| f64::from(share) / 100.0;
        if let Some(Delay { share, duration }) = &self.delay {
            let time = duration::format(*duration);
            let delay = json!({"percent": percent(*share), "duration": time});
            out.insert("delay".to_owned(), delay);
        }
        if let Some(Abort { share, status }) = &self.abort {
            let (field, number) = match status {
                AbortStatus::Http(status) => ("httpStatus", status),
                AbortStatus::Grpc(status) => ("grpcStatus", status),
            };
            let abort = json!({"percent": percent(*share), field: number});
            out.insert("abort".to_owned(), abort);
        }
        Value::Object(out)
    }
}

/// Reads `spec`.
pub(super) fn decode(
    metadata: Metadata,
    document: &mut Fields<'_>,
) -> Option<FaultInjectionPolicy> {
    let mut fields = document.require("spec")?.mapping()?;
    let targets = policy_target::targets_or_routes(&mut fields);
    let listed = fields.require("faults");
    fields.finish();
    let listed = listed?;
    let items = listed.sequence(FAULTS_MAX);
    if items.is_empty() {
        listed.problem("at least one fault is needed");
    }
    let policy_target::Targets { services, routes } = targets?;
    Some(FaultInjectionPolicy {
        metadata,
        targets: services,
        routes,
        faults: items.iter().filter_map(fault).collect(),
    })
}

fn fault(item: &Field<'_>) -> Option<InjectedFault> {
    let mut fields = item.mapping()?;
    let matches = fields.take("match");
    let (delay, abort) = (fields.take("delay"), fields.take("abort"));
    fields.finish();
    if delay.is_none() && abort.is_none() {
        item.problem("does nothing: delay, abort or both are needed");
    }
    Some(InjectedFault {
        matches: match matches {
            Some(field) => Some(route::route_match(&field, RouteKind::Http)?),
            None => None,
        },
        delay: match delay {
            Some(field) => Some(self::delay(&field)?),
            None => None,
        },
        abort: match abort {
            Some(field) => Some(self::abort(&field)?),
            None => None,
        },
    })
}

/// A share of requests; all where none is named.
fn share(fields: &mut Fields<'_>) -> Option<u32> {
    match fields.take("percent") {
        None => Some((SHARE_MAX * 100.0) as u32),
        Some(field) => Some((field.number(0.0, SHARE_MAX)? * 100.0).round() as u32),
    }
}

fn delay(field: &Field<'_>) -> Option<Delay> {
    let mut fields = field.mapping()?;
    let share = share(&mut fields);
    let shortest = Duration::from_millis(1);
    let time = fields.require("duration");
    fields.finish();
    Some(Delay {
        share: share?,
        duration: duration::within(&time?, shortest..=DELAY_MAX)?,
    })
}

fn abort(field: &Field<'_>) -> Option<Abort> {
    let mut fields = field.mapping()?;
    let share = share(&mut fields);
    let http = fields.take("httpStatus");
    let grpc = fields.take("grpcStatus");
    fields.finish();
    let number = |field: &Field<'_>, range| {
        let number = field.integer(range)?;
        u16::try_from(number).ok()
    };
    let status = match (http, grpc) {
        (Some(field), None) => AbortStatus::Http(number(&field, 200..=599)?),
        (None, Some(field)) => AbortStatus::Grpc(number(&field, 1..=16)?),
        _ => {
            field.problem("needs httpStatus or grpcStatus, and not both");
            return None;
        }
    };
    Some(Abort {
        share: share?,
        status,
    })
}
