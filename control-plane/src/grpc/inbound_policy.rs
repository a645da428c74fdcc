//! What workloads take, to protobuf messages.

use weft_proto::v1alpha1 as wire;
use weft_proto::v1alpha1::global_rate_limit::entry::Value;

use super::policies::milliseconds;
use super::routes;
use crate::compile::rule_match;
use crate::resource::{
    Concurrency, Descriptor, DescriptorEntry, DescriptorValue, GlobalRateLimit, InboundPolicy,
    Kind, Priority, RateLimit, RateLimitKey, RequestSelector,
};

pub(super) fn encode(policy: &InboundPolicy) -> wire::InboundPolicy {
    let metadata = &policy.metadata;
    let kind = Kind::InboundPolicy;
    let priorities = policy.priorities.iter().map(|rule| wire::PriorityRule {
        priority: match rule.priority {
            Priority::Low => wire::Priority::Low,
            Priority::Normal => wire::Priority::Normal,
            Priority::High => wire::Priority::High,
        }
        .into(),
        selector: Some(selector(&rule.selector)),
    });
    wire::InboundPolicy {
        name: format!("{kind}/{}/{}", metadata.namespace, metadata.name),
        concurrency: policy.concurrency.as_ref().map(concurrency),
        priorities: priorities.collect(),
        rate_limits: policy.rate_limits.iter().map(rate_limit).collect(),
        global_rate_limit: policy.global_rate_limit.as_ref().map(global),
    }
}

fn concurrency(concurrency: &Concurrency) -> wire::Concurrency {
    wire::Concurrency {
        enforced: concurrency.enforced,
        min: concurrency.min,
        max: concurrency.max,
        pending_max: concurrency.pending_max,
        queue_timeout_milliseconds: milliseconds(concurrency.queue_timeout),
    }
}

fn selector(selector: &RequestSelector) -> wire::RequestSelector {
    let callers = selector.callers.iter().map(|caller| wire::Caller {
        namespace: caller.namespace.clone(),
        service_account: caller.service_account.clone().unwrap_or_default(),
    });
    let routes = selector.routes.iter().map(|route| {
        let kind = route.kind.object_kind();
        format!("{kind}/{}/{}", route.namespace, route.name)
    });
    wire::RequestSelector {
        callers: callers.collect(),
        routes: routes.collect(),
        r#match: selector.matches.as_ref().map(|matches| {
            let matches = rule_match(String::new(), matches);
            routes::matches(&matches)
        }),
    }
}

fn rate_limit(limit: &RateLimit) -> wire::RateLimit {
    wire::RateLimit {
        name: limit.name.clone(),
        selector: Some(selector(&limit.selector)),
        key: limit.key.iter().map(key).collect(),
        requests: limit.requests,
        interval_milliseconds: routes::milliseconds(Some(limit.interval)),
        burst: limit.burst.unwrap_or(limit.requests),
    }
}

fn key(key: &RateLimitKey) -> wire::RateLimitKey {
    use wire::rate_limit_key::Key;
    wire::RateLimitKey {
        key: Some(match key {
            RateLimitKey::Caller => Key::Caller(true),
            RateLimitKey::Route => Key::Route(true),
            RateLimitKey::Header(name) => Key::Header(name.clone()),
        }),
    }
}

fn global(limit: &GlobalRateLimit) -> wire::GlobalRateLimit {
    wire::GlobalRateLimit {
        host: format!("{}.{}", limit.name, limit.namespace),
        port: limit.port.into(),
        domain: limit.domain.clone(),
        descriptors: limit.descriptors.iter().map(descriptor).collect(),
        timeout_milliseconds: milliseconds(limit.timeout),
        deny_on_failure: limit.deny_on_failure,
    }
}

fn descriptor(descriptor: &Descriptor) -> wire::global_rate_limit::Descriptor {
    let entry = |entry: &DescriptorEntry| wire::global_rate_limit::Entry {
        key: entry.key.clone(),
        value: Some(match &entry.value {
            DescriptorValue::Text(text) => Value::Text(text.clone()),
            DescriptorValue::OfRequest(from) => Value::OfRequest(key(from)),
        }),
    };
    wire::global_rate_limit::Descriptor {
        selector: Some(selector(&descriptor.selector)),
        entries: descriptor.entries.iter().map(entry).collect(),
    }
}
