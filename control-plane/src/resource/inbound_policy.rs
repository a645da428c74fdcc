//! `InboundPolicy` (weft.dev/v1alpha1): what the workloads of a Service take, told to their own sidecars. Gateway
//! API has no field for any of it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::fields::{Field, Fields};
use super::policy_target::{self, ServiceTarget};
use super::selector::{RequestSelector, Taken};
use super::{Metadata, duration, names, route};

/// Rules for priorities, rate limits or descriptors of one policy; more are refused.
const RULES_MAX: usize = 16;
/// Parts of a rate limit's key, entries of a descriptor; more are refused.
const PARTS_MAX: usize = 4;
/// Bytes of a name, a domain, and of keys and values of descriptors.
const NAME_BYTES_MAX: usize = 256;
/// Requests that a limit may allow.
const COUNT_MAX: u32 = 1_000_000;
/// Longest time that a policy may name.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundPolicy {
    pub metadata: Metadata,
    /// Never empty, each once.
    pub targets: Vec<ServiceTarget>,
    pub concurrency: Option<Concurrency>,
    /// The first that matches says how important a request is.
    pub priorities: Vec<PriorityRule>,
    /// Each that matches must have room.
    pub rate_limits: Vec<RateLimit>,
    pub global_rate_limit: Option<GlobalRateLimit>,
}

/// How many requests the application gets at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Concurrency {
    /// Else it is found out and shown, and nothing is held back.
    pub enforced: bool,
    pub min: Option<u32>,
    pub max: Option<u32>,
    pub pending_max: Option<u32>,
    pub queue_timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    Low,
    Normal,
    High,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorityRule {
    pub priority: Priority,
    pub selector: RequestSelector,
}

/// A token bucket for each value of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub name: String,
    pub selector: RequestSelector,
    /// Empty: one bucket for all.
    pub key: Vec<RateLimitKey>,
    pub requests: u32,
    pub interval: Duration,
    /// Absent: as many as `requests`.
    pub burst: Option<u32>,
}

/// What of a request tells buckets apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateLimitKey {
    Caller,
    Route,
    Header(String),
}

/// A server of Envoy's rate limit protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalRateLimit {
    pub namespace: String,
    pub name: String,
    pub port: u16,
    pub domain: String,
    /// Never empty.
    pub descriptors: Vec<Descriptor>,
    pub timeout: Option<Duration>,
    /// Requests are refused when the server doesn't answer; else they pass.
    pub deny_on_failure: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub selector: RequestSelector,
    /// Never empty.
    pub entries: Vec<DescriptorEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptorEntry {
    pub key: String,
    pub value: DescriptorValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescriptorValue {
    Text(String),
    OfRequest(RateLimitKey),
}

impl Priority {
    const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    fn as_str(self) -> &'static str {
        match self {
            Self::Low => "Low",
            Self::Normal => "Normal",
            Self::High => "High",
        }
    }
}

impl InboundPolicy {
    pub(super) fn to_json(&self) -> Value {
        let targets = self.targets.iter().map(ServiceTarget::to_json);
        let mut out = json!({"targetRefs": targets.collect::<Vec<_>>()});
        if let Some(concurrency) = &self.concurrency {
            out["concurrency"] = concurrency.to_json();
        }
        let priorities = self.priorities.iter().map(|rule| {
            let mut out = Map::new();
            out.insert("priority".to_owned(), rule.priority.as_str().into());
            rule.selector.fill(&mut out);
            Value::Object(out)
        });
        if !self.priorities.is_empty() {
            out["priorities"] = priorities.collect();
        }
        if !self.rate_limits.is_empty() {
            out["rateLimits"] = self.rate_limits.iter().map(RateLimit::to_json).collect();
        }
        if let Some(global) = &self.global_rate_limit {
            out["globalRateLimit"] = global.to_json();
        }
        out
    }
}

impl Concurrency {
    fn to_json(&self) -> Value {
        let mut out = json!({"mode": if self.enforced { "Enforce" } else { "Observe" }});
        let counts = [
            ("min", self.min),
            ("max", self.max),
            ("maxPendingRequests", self.pending_max),
        ];
        for (name, count) in counts {
            if let Some(count) = count {
                out[name] = count.into();
            }
        }
        if let Some(time) = self.queue_timeout {
            out["queueTimeout"] = duration::format(time).into();
        }
        out
    }
}

impl RateLimitKey {
    fn to_json(&self) -> Value {
        match self {
            Self::Caller => json!({"type": "Caller"}),
            Self::Route => json!({"type": "Route"}),
            Self::Header(name) => json!({"type": "Header", "name": name}),
        }
    }
}

impl RateLimit {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("name".to_owned(), self.name.as_str().into());
        self.selector.fill(&mut out);
        if !self.key.is_empty() {
            let key = self.key.iter().map(RateLimitKey::to_json);
            out.insert("key".to_owned(), key.collect());
        }
        out.insert("requests".to_owned(), self.requests.into());
        let interval = duration::format(self.interval);
        out.insert("interval".to_owned(), interval.into());
        if let Some(burst) = self.burst {
            out.insert("burst".to_owned(), burst.into());
        }
        Value::Object(out)
    }
}

impl GlobalRateLimit {
    fn to_json(&self) -> Value {
        let descriptors = self.descriptors.iter().map(|descriptor| {
            let mut out = Map::new();
            descriptor.selector.fill(&mut out);
            let entries = descriptor.entries.iter().map(|entry| match &entry.value {
                DescriptorValue::Text(text) => json!({"key": entry.key, "value": text}),
                DescriptorValue::OfRequest(key) => {
                    json!({"key": entry.key, "valueFrom": key.to_json()})
                }
            });
            out.insert("entries".to_owned(), entries.collect());
            Value::Object(out)
        });
        let mut out = json!({
            "backendRef": {"name": self.name, "namespace": self.namespace, "port": self.port},
            "domain": self.domain,
            "descriptors": descriptors.collect::<Vec<_>>(),
            "failureMode": if self.deny_on_failure { "Deny" } else { "Allow" },
        });
        if let Some(time) = self.timeout {
            out["timeout"] = duration::format(time).into();
        }
        out
    }
}

/// Reads `spec`.
pub(super) fn decode(metadata: Metadata, document: &mut Fields<'_>) -> Option<InboundPolicy> {
    let spec = document.require("spec")?;
    let mut fields = spec.mapping()?;
    let targets = policy_target::targets(&mut fields);
    let parts = ["concurrency", "priorities", "rateLimits", "globalRateLimit"];
    let read = parts.map(|name| fields.take(name));
    fields.finish();
    if read.iter().all(Option::is_none) {
        let parts = parts.join(", ");
        spec.problem(format!("says nothing: one of {parts} is needed"));
    }
    let [concurrency, priorities, rate_limits, global] = read;
    let namespace = metadata.namespace.clone();
    let limits: Vec<RateLimit> = rules(rate_limits)
        .iter()
        .filter_map(|item| rate_limit(item, &namespace))
        .collect();
    let mut names: Vec<&str> = limits.iter().map(|limit| limit.name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        spec.problem("two of rateLimits have the same name");
    }
    let priorities = rules(priorities);
    Some(InboundPolicy {
        targets: targets?,
        concurrency: concurrency.and_then(|field| self::concurrency(&field)),
        priorities: priorities
            .iter()
            .filter_map(|item| priority_rule(item, &namespace))
            .collect(),
        rate_limits: limits,
        global_rate_limit: global.and_then(|field| global_rate_limit(&field, &namespace)),
        metadata,
    })
}

fn rules(field: Option<Field<'_>>) -> Vec<Field<'_>> {
    field.map_or(Vec::new(), |field| field.sequence(RULES_MAX))
}

/// One of some words.
fn word<T: Copy>(field: &Field<'_>, known: &[(&str, T)]) -> Option<T> {
    let text = field.string()?;
    let found = known.iter().find(|(name, _)| *name == text);
    if found.is_none() {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        field.problem(format!("{text:?} is none of {}", names.join(", ")));
    }
    found.map(|(_, value)| *value)
}

fn concurrency(field: &Field<'_>) -> Option<Concurrency> {
    let mut fields = field.mapping()?;
    let mode = fields.require("mode");
    let read = Concurrency {
        enforced: false,
        min: fields.count("min", 1..=COUNT_MAX),
        max: fields.count("max", 1..=COUNT_MAX),
        pending_max: fields.count("maxPendingRequests", 0..=COUNT_MAX),
        queue_timeout: duration::read_within(
            &mut fields,
            "queueTimeout",
            Duration::ZERO..=TIME_MAX,
        ),
    };
    fields.finish();
    if let (Some(min), Some(max)) = (read.min, read.max)
        && min > max
    {
        field.problem(format!("min {min} is above max {max}"));
    }
    let enforced = word(&mode?, &[("Observe", false), ("Enforce", true)])?;
    Some(Concurrency { enforced, ..read })
}

fn priority_rule(item: &Field<'_>, namespace: &str) -> Option<PriorityRule> {
    let mut fields = item.mapping()?;
    let priority = fields.require("priority");
    let selector = Taken::of(&mut fields);
    fields.finish();
    let known = Priority::ALL.map(|priority| (priority.as_str(), priority));
    Some(PriorityRule {
        priority: word(&priority?, &known)?,
        selector: selector.read(namespace)?,
    })
}

fn rate_limit(item: &Field<'_>, namespace: &str) -> Option<RateLimit> {
    let mut fields = item.mapping()?;
    let name = fields.require("name");
    let selector = Taken::of(&mut fields);
    let key = fields.take("key");
    let requests = fields.require("requests");
    let shortest = Duration::from_millis(1);
    let interval = fields.require("interval");
    let interval = interval.map(|field| duration::within(&field, shortest..=TIME_MAX));
    let burst = fields.count("burst", 1..=COUNT_MAX);
    fields.finish();
    let parts = key.map(|field| field.sequence(PARTS_MAX));
    let parts: Vec<_> = parts.iter().flatten().map(rate_limit_key).collect();
    let requests = requests?.integer(1..=i64::from(COUNT_MAX))?;
    Some(RateLimit {
        name: name?.checked(|name| names::label(name, false))?,
        selector: selector.read(namespace)?,
        key: parts.into_iter().collect::<Option<_>>()?,
        requests: u32::try_from(requests).ok()?,
        interval: interval??,
        burst,
    })
}

fn rate_limit_key(item: &Field<'_>) -> Option<RateLimitKey> {
    let mut fields = item.mapping()?;
    let kind = fields.require("type");
    let name = fields.take("name");
    fields.finish();
    let kind = kind?;
    match (kind.string()?.as_str(), name) {
        ("Caller", None) => Some(RateLimitKey::Caller),
        ("Route", None) => Some(RateLimitKey::Route),
        ("Header", Some(name)) => {
            let name = name.checked(route::header_name)?;
            Some(RateLimitKey::Header(name.to_ascii_lowercase()))
        }
        ("Header", None) => {
            kind.problem("needs the header's name");
            None
        }
        ("Caller" | "Route", Some(name)) => {
            name.problem("means nothing without Header");
            None
        }
        (other, _) => {
            kind.problem(format!("{other:?} is none of Caller, Route, Header"));
            None
        }
    }
}

fn global_rate_limit(field: &Field<'_>, own: &str) -> Option<GlobalRateLimit> {
    let mut fields = field.mapping()?;
    let backend = fields.require("backendRef");
    let domain = fields.require("domain");
    let listed = fields.require("descriptors");
    let shortest = Duration::from_millis(1);
    let timeout = duration::read_within(&mut fields, "timeout", shortest..=TIME_MAX);
    let failure = fields.take("failureMode");
    fields.finish();
    let mut backend = backend?.mapping()?;
    let name = backend.require("name");
    let namespace = backend.take("namespace");
    let port = backend.require("port");
    backend.finish();
    let listed = listed?;
    let items = listed.sequence(RULES_MAX);
    if items.is_empty() {
        listed.problem("at least one descriptor is needed");
    }
    Some(GlobalRateLimit {
        name: name?.checked(|name| names::label(name, true))?,
        namespace: match namespace {
            Some(field) => field.checked(|name| names::label(name, false))?,
            None => own.to_owned(),
        },
        port: port?.port()?,
        domain: domain?.checked(text)?,
        descriptors: items
            .iter()
            .filter_map(|item| descriptor(item, own))
            .collect(),
        timeout,
        deny_on_failure: match failure {
            Some(field) => word(&field, &[("Allow", false), ("Deny", true)])?,
            None => false,
        },
    })
}

fn text(text: &str) -> Result<(), String> {
    let fine = (1..=NAME_BYTES_MAX).contains(&text.len());
    fine.then_some(())
        .ok_or_else(|| format!("must have 1 to {NAME_BYTES_MAX} bytes"))
}

fn descriptor(item: &Field<'_>, own: &str) -> Option<Descriptor> {
    let mut fields = item.mapping()?;
    let selector = Taken::of(&mut fields);
    let listed = fields.require("entries");
    fields.finish();
    let listed = listed?;
    let items = listed.sequence(PARTS_MAX);
    if items.is_empty() {
        listed.problem("at least one entry is needed");
    }
    let entries: Vec<_> = items.iter().map(descriptor_entry).collect();
    Some(Descriptor {
        selector: selector.read(own)?,
        entries: entries.into_iter().collect::<Option<_>>()?,
    })
}

fn descriptor_entry(item: &Field<'_>) -> Option<DescriptorEntry> {
    let mut fields = item.mapping()?;
    let key = fields.require("key");
    let (value, from) = (fields.take("value"), fields.take("valueFrom"));
    fields.finish();
    let value = match (value, from) {
        (Some(value), None) => DescriptorValue::Text(value.checked(text)?),
        (None, Some(from)) => DescriptorValue::OfRequest(rate_limit_key(&from)?),
        _ => {
            item.problem("needs value or valueFrom, and not both");
            return None;
        }
    };
    Some(DescriptorEntry {
        key: key?.checked(text)?,
        value,
    })
}
