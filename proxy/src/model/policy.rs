//! How a cluster is called: who takes the next request, who is left out, and how much may be on its way.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::{FaultStatus, RouteMatch, Text};

/// What policies say of a cluster; what none of them says is the default.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterPolicy {
    /// `KIND/NAMESPACE/NAME` of those that say something.
    pub names: Vec<String>,
    pub balancing: Balancing,
    pub locality: Locality,
    /// With a smaller share of endpoints that are well, everybody is asked: the few would not stand it. Those
    /// that take no connection are left out all the same.
    pub panic_percent: u32,
    /// A new endpoint's share grows over this time; zero: it has its whole share at once.
    pub slow_start: Duration,
    pub outliers: OutlierDetection,
    pub breaker: CircuitBreaker,
    pub budget: RetryBudget,
    pub health_check: Option<HealthCheck>,
    pub hedging: Option<Hedging>,
    pub faults: Faults,
    /// For requests whose route says nothing of sessions.
    pub session: Option<SessionPersistence>,
}

/// Fewer endpoints that are well than half of all are no sign of their being ill, mostly.
const PANIC_PERCENT: u32 = 50;

impl Default for ClusterPolicy {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            balancing: Balancing::default(),
            locality: Locality::default(),
            panic_percent: PANIC_PERCENT,
            slow_start: Duration::ZERO,
            outliers: OutlierDetection::default(),
            breaker: CircuitBreaker::default(),
            budget: RetryBudget::default(),
            health_check: None,
            hedging: None,
            faults: Faults::default(),
            session: None,
        }
    }
}

/// Whose endpoints come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locality {
    /// Those of our own zone, as far as they are enough for its share of the requests.
    #[default]
    OwnZoneFirst,
    /// Nobody's.
    AnyZone,
}

/// When a second attempt at an idempotent request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedging {
    /// Of the latencies seen lately.
    pub percentile: u32,
    /// Not before.
    pub min_delay: Duration,
}

/// Faults that are made on purpose: the first that matches a request acts.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// `FaultInjectionPolicy/NAMESPACE/NAME`; empty where there is none.
    pub policy: String,
    pub list: Arc<[FaultInjection]>,
}

impl PartialEq for Faults {
    /// Versions of one policy are told apart, not what they say.
    fn eq(&self, other: &Self) -> bool {
        self.policy == other.policy && Arc::ptr_eq(&self.list, &other.list)
    }
}

/// All of a whole, in which shares of requests are said.
pub const SHARES: u32 = 10_000;

/// One fault.
#[derive(Clone, Debug)]
pub struct FaultInjection {
    /// Absent: every request.
    pub matches: Option<RouteMatch>,
    /// Of [`SHARES`] requests that match, and how long they wait.
    pub delay: Option<(u32, Duration)>,
    /// Of [`SHARES`] requests that match, and what they are answered with.
    pub abort: Option<(u32, FaultStatus)>,
}

/// Requests that are made to learn whether an endpoint serves.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    pub kind: HealthCheckKind,
    pub interval: Duration,
    /// A check without an answer by then has failed.
    pub timeout: Duration,
    /// Failures in a row after which an endpoint gets no requests.
    pub unhealthy_threshold: u32,
    /// Successes in a row after which it gets them again.
    pub healthy_threshold: u32,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthCheckKind {
    Http {
        path: Text,
        /// Absent: the service's name.
        host: Option<Text>,
        /// Empty: 200 to 399.
        statuses: Vec<u16>,
    },
    /// `grpc.health.v1.Health/Check` of this service; empty: of the whole server.
    Grpc { service: String },
    /// A connection.
    Tcp,
}

/// Which endpoint takes the next request.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Balancing {
    /// Of two drawn by weight the one with fewer outstanding.
    #[default]
    LeastRequest,
    /// Of two drawn by weight the one whose recent latency times its outstanding requests is less.
    PeakEwma,
    /// One after the other, each as often as it weighs.
    RoundRobin,
    /// The same for the same key, as long as it is there.
    ConsistentHash(HashKey),
}

/// What of a request says where it goes.
#[derive(Clone, Debug, PartialEq)]
pub enum HashKey {
    Header(HeaderName),
    Cookie(String),
    /// The client's address.
    Source,
    /// The path without its query.
    Path,
}

/// When an endpoint that serves worse than the others is left out for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// Failures in a row (answers of 500 and above, resets); 0: not looked at.
    pub consecutive_failures: u32,
    /// How often endpoints are compared with each other.
    pub interval: Duration,
    /// An endpoint is left out whose share of successes is this many standard deviations below the mean of
    /// all; 0: not looked at.
    pub success_rate_deviations: f64,
    /// An endpoint is left out whose mean latency is this many times the median of all; 0: not looked at.
    pub latency_factor: f64,
    /// How long the first time; each further time as much longer.
    pub ejection_time: Duration,
    pub ejection_time_max: Duration,
    /// Of all endpoints at most this share is left out, but for one that always may be.
    pub ejected_percent_max: u32,
}

impl OutlierDetection {
    /// Whether endpoints are compared with each other.
    pub fn compares(&self) -> bool {
        self.success_rate_deviations > 0.0 || self.latency_factor > 0.0
    }
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            interval: Duration::from_secs(1),
            success_rate_deviations: 0.0,
            latency_factor: 0.0,
            ejection_time: Duration::from_secs(10),
            ejection_time_max: Duration::from_secs(300),
            ejected_percent_max: 50,
        }
    }
}

/// What may be on its way to a cluster, from this proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreaker {
    /// TCP connections; one more is reset.
    pub connections_max: u32,
    /// Requests without their whole answer; one more waits.
    pub requests_max: u32,
    /// Requests that wait; one more is answered with 503 `circuit_open`.
    pub pending_max: u32,
    /// How long one waits before it gets the same answer.
    pub queue_timeout: Duration,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            connections_max: 65_536,
            requests_max: 16_384,
            pending_max: 1024,
            queue_timeout: Duration::from_secs(1),
        }
    }
}

/// How much of the requests may be repetitions (Gateway API, XBackendTrafficPolicy: retryConstraint).
#[derive(Clone, Debug, PartialEq)]
pub struct RetryBudget {
    /// Of the requests within `interval`.
    pub percent: u32,
    pub interval: Duration,
    /// As many are allowed within `min_interval` however few requests there are.
    pub min_retries: u32,
    pub min_interval: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            percent: 20,
            interval: Duration::from_secs(10),
            min_retries: 10,
            min_interval: Duration::from_secs(1),
        }
    }
}

/// How requests of one session find their endpoint again (Gateway API, SessionPersistence).
#[derive(Clone, Debug, PartialEq)]
pub struct SessionPersistence {
    /// Of the cookie or the header.
    pub name: String,
    pub carrier: SessionCarrier,
    /// How long a session lasts, whatever happens.
    pub absolute_timeout: Option<Duration>,
    /// How long it lasts without a request.
    pub idle_timeout: Option<Duration>,
    /// The cookie outlives the browser, until the absolute timeout.
    pub permanent: bool,
}

/// What a client brings a session back in.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionCarrier {
    Cookie,
    Header(HeaderName),
}

/// When a rule has a request sent again (Gateway API, HTTPRouteRetry), besides what is safe anyway.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Answers after which it is.
    pub codes: Vec<u16>,
    /// Further attempts.
    pub attempts: u32,
    /// Before the first of them, with full jitter; doubled for each further one.
    pub backoff: Duration,
}
