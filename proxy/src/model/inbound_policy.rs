//! What a workload takes.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::RouteMatch;

/// What the policy in force on one of our workload's ports says; what it doesn't is the default.
#[derive(Clone, Debug, Default)]
pub struct InboundPolicy {
    /// `InboundPolicy/NAMESPACE/NAME`; empty where there is none.
    pub name: String,
    pub concurrency: Concurrency,
    /// The first that matches says how important a request is; the others are [`Priority::Normal`].
    pub priorities: Vec<(RequestSelector, Priority)>,
    /// Each that matches must have room.
    pub rate_limits: Vec<RateLimit>,
    pub global_rate_limit: Option<Arc<GlobalRateLimit>>,
}

impl InboundPolicy {
    /// Whether a document says it.
    pub fn is_named(&self) -> bool {
        !self.name.is_empty()
    }
}

/// How many requests the application gets at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// Whether the limit is kept. Else it is found out and shown, and nothing is held back.
    pub enforced: bool,
    /// Between which it is found.
    pub min: u32,
    pub max: u32,
    /// Requests that wait for their turn; one more is refused, or takes the place of one less important.
    pub pending_max: u32,
    /// How long one waits; much shorter once the queue stands.
    pub queue_timeout: Duration,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            enforced: false,
            min: 4,
            max: 1000,
            pending_max: 1000,
            queue_timeout: Duration::from_millis(500),
        }
    }
}

/// Who goes first where not all can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

/// Which requests something is about: all of it must hold.
#[derive(Clone, Debug, Default)]
pub struct RequestSelector {
    /// One of them is the caller, as its certificate says; empty: anybody.
    pub callers: Vec<Caller>,
    /// The caller's sidecar says that it sent the request by one of them; empty: any.
    pub routes: Vec<String>,
    pub matches: Option<RouteMatch>,
}

/// Whoever has an identity of this namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub namespace: String,
    /// Absent: any of the namespace.
    pub service_account: Option<String>,
}

/// A token bucket for each value of its key.
#[derive(Clone, Debug)]
pub struct RateLimit {
    pub name: String,
    pub selector: RequestSelector,
    /// Empty: one bucket for all.
    pub key: Vec<RateLimitKey>,
    /// Tokens that come in each interval. Above 0.
    pub requests: u32,
    pub interval: Duration,
    /// How many there may be. Above 0.
    pub burst: u32,
}

/// What of a request tells buckets apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateLimitKey {
    /// The caller's identity.
    Caller,
    /// The route by which the caller's sidecar sent it.
    Route,
    /// A header field's value.
    Header(HeaderName),
}

/// A server of Envoy's `envoy.service.ratelimit.v3` protocol that is asked.
#[derive(Clone, Debug)]
pub struct GlobalRateLimit {
    /// A service of the mesh, as in `limits.infra:8081`.
    pub authority: String,
    pub domain: String,
    pub descriptors: Vec<Descriptor>,
    /// How long its answer is waited for.
    pub timeout: Duration,
    /// Requests are refused when it doesn't answer; else they pass.
    pub deny_on_failure: bool,
}

/// What the server is told of a request that it is about.
#[derive(Clone, Debug)]
pub struct Descriptor {
    pub selector: RequestSelector,
    /// A request that has no value for one of them makes no descriptor.
    pub entries: Vec<(String, DescriptorValue)>,
}

#[derive(Clone, Debug)]
pub enum DescriptorValue {
    Text(String),
    OfRequest(RateLimitKey),
}
