//! What a workload takes. What is unset is the default.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use weft_proto::v1alpha1 as wire;

use super::policy::{interval, time};
use super::{Result, each, from_text, port, reject, required, route, text, within};
use crate::model::{
    Caller, Concurrency, Descriptor, DescriptorValue, GlobalRateLimit, InboundPolicy, Priority,
    RateLimit, RateLimitKey, RequestSelector,
};

/// How long the answer of a rate limit server is waited for, where a document doesn't say it.
const GLOBAL_TIMEOUT: Duration = Duration::from_millis(100);

pub(super) fn decode(message: wire::InboundPolicy) -> Result<InboundPolicy> {
    let global = message.global_rate_limit;
    Ok(InboundPolicy {
        name: required("name", message.name)?,
        concurrency: match message.concurrency {
            None => Concurrency::default(),
            Some(message) => within("concurrency", concurrency(&message))?,
        },
        priorities: each("priorities", message.priorities, priority)?,
        rate_limits: each("rate_limits", message.rate_limits, rate_limit)?,
        global_rate_limit: match global {
            None => None,
            Some(message) => Some(Arc::new(within(
                "global_rate_limit",
                self::global(message),
            )?)),
        },
    })
}

fn concurrency(message: &wire::Concurrency) -> Result<Concurrency> {
    let default = Concurrency::default();
    let min = message.min.unwrap_or(default.min).max(1);
    let max = message.max.unwrap_or(default.max.max(min));
    if max < min {
        return Err(reject("max", format!("{max} is below min, which is {min}")));
    }
    Ok(Concurrency {
        enforced: message.enforced,
        // A maximum that is alone may be below what is usual.
        min: min.min(max),
        max,
        pending_max: message.pending_max.unwrap_or(default.pending_max),
        queue_timeout: time(
            "queue_timeout_milliseconds",
            message.queue_timeout_milliseconds,
            default.queue_timeout,
        )?,
    })
}

fn priority(message: wire::PriorityRule) -> Result<(RequestSelector, Priority)> {
    let priority = match wire::Priority::try_from(message.priority) {
        Ok(wire::Priority::Low) => Priority::Low,
        Ok(wire::Priority::Normal) => Priority::Normal,
        Ok(wire::Priority::High) => Priority::High,
        Ok(wire::Priority::Unspecified) | Err(_) => {
            return Err(reject("priority", "is none that this proxy knows"));
        }
    };
    Ok((selector(message.selector)?, priority))
}

fn selector(message: Option<wire::RequestSelector>) -> Result<RequestSelector> {
    let message = message.unwrap_or_default();
    let callers = each("selector.callers", message.callers, |caller| {
        let account = text("service_account", caller.service_account)?;
        Ok(Caller {
            namespace: required("namespace", caller.namespace)?,
            service_account: Some(account).filter(|account| !account.is_empty()),
        })
    });
    Ok(RequestSelector {
        callers: callers?,
        routes: each("selector.routes", message.routes, |name| required("", name))?,
        matches: match message.r#match {
            None => None,
            Some(message) => Some(within("selector.match", route::route_match(message))?),
        },
    })
}

fn rate_limit(message: wire::RateLimit) -> Result<RateLimit> {
    if message.requests == 0 || message.burst == 0 {
        return Err(reject("requests", "and burst must be above 0"));
    }
    Ok(RateLimit {
        name: required("name", message.name)?,
        selector: selector(message.selector)?,
        key: each("key", message.key, key)?,
        requests: message.requests,
        interval: interval(
            "interval_milliseconds",
            Some(message.interval_milliseconds),
            Duration::ZERO,
        )?,
        burst: message.burst,
    })
}

fn key(message: wire::RateLimitKey) -> Result<RateLimitKey> {
    use wire::rate_limit_key::Key;
    match message.key {
        Some(Key::Caller(_)) => Ok(RateLimitKey::Caller),
        Some(Key::Route(_)) => Ok(RateLimitKey::Route),
        Some(Key::Header(name)) => {
            let name = from_text::<HeaderName>("header", &name)?;
            Ok(RateLimitKey::Header(name))
        }
        None => Err(reject("key", "is none that this proxy knows")),
    }
}

fn global(message: wire::GlobalRateLimit) -> Result<GlobalRateLimit> {
    let host = required("host", message.host)?;
    let port = port("port", message.port)?;
    let authority = format!("{host}:{port}");
    if authority.parse::<http::uri::Authority>().is_err() {
        return Err(reject("host", format!("`{host}` is no host")));
    }
    Ok(GlobalRateLimit {
        authority,
        domain: required("domain", message.domain)?,
        descriptors: each("descriptors", message.descriptors, descriptor)?,
        timeout: interval(
            "timeout_milliseconds",
            message.timeout_milliseconds,
            GLOBAL_TIMEOUT,
        )?,
        deny_on_failure: message.deny_on_failure,
    })
}

fn descriptor(message: wire::global_rate_limit::Descriptor) -> Result<Descriptor> {
    use wire::global_rate_limit::entry::Value;
    let entry = |message: wire::global_rate_limit::Entry| {
        let value = match message.value {
            Some(Value::Text(value)) => DescriptorValue::Text(text("text", value)?),
            Some(Value::OfRequest(from)) => {
                DescriptorValue::OfRequest(within("of_request", key(from))?)
            }
            None => return Err(reject("value", "is none that this proxy knows")),
        };
        Ok((required("key", message.key)?, value))
    };
    Ok(Descriptor {
        selector: selector(message.selector)?,
        entries: each("entries", message.entries, entry)?,
    })
}
