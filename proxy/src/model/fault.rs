//! Why the mesh, and not an application, answered or closed.

/// One reason for each answer that a proxy makes itself. The status code it becomes is
/// `http::respond`'s to say; the word is the same in `weft-fault`, access log, span and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Routes are attached, and none matches.
    NoRoute,
    /// Every backend of the matching rule is invalid or missing, or their weights sum to 0.
    BackendInvalid,
    /// No such service, and nothing else to pass the request to.
    UnknownDestination,
    /// The destination is no service, and policy refuses calls to what is none; or a connection that goes somewhere
    /// already asks for a tunnel to somewhere else.
    DestinationRefused,
    /// The service has no endpoint, or none that is healthy.
    NoEndpoint,
    /// As much as the cluster takes is on its way, and nothing waits longer.
    CircuitOpen,
    /// The request would be sent again, and the cluster's budget for that is spent.
    RetryBudgetSpent,
    /// No connection to the endpoint (nor to those tried after it).
    ConnectFailed,
    /// The endpoint's certificate isn't that of whom discovery said.
    PeerIdentity,
    /// Another instance took over the address.
    WrongInstance,
    /// The workload is going away, and takes nothing that could not be repeated.
    Draining,
    /// The application behind the far sidecar takes no connection.
    ApplicationUnreachable,
    /// The upstream connection broke after the request was handed over.
    UpstreamReset,
    /// What the upstream sent is not HTTP.
    UpstreamProtocol,
    /// The client sent no whole head within the limit.
    HeaderTimeout,
    /// The route's time for the request is over.
    RequestTimeout,
    /// The route's time for one attempt is over.
    BackendTimeout,
    NotAuthorized,
    /// A rate limit of the workload's is reached.
    RateLimited,
    /// The rate limit server doesn't answer, and policy lets nothing pass without it.
    RateLimitUnknown,
    /// A limit of this proxy is reached, or the application has enough to do.
    Overload,
    /// A fault was asked for, by policy.
    FaultInjected,
    /// RFC 9112 or 9113 forbids it, or it could be read in two ways.
    MalformedRequest,
    HeadersTooLarge,
    /// Of HTTP/1: the request line alone is above the limit.
    TargetTooLarge,
    /// The proxy would have called itself.
    Loop,
    /// The control plane could not be asked, and nothing is known of the destination.
    DiscoveryUnavailable,
    /// The client went away before its answer was whole; nobody is answered.
    ClientGone,
    /// A bug: the task that served the request panicked.
    Internal,
}

/// A status that a policy wants in the place of a fault's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultStatus {
    Http(http::StatusCode),
    Grpc(u16),
}

impl Fault {
    /// Every fault, in the order of their discriminants.
    pub const ALL: [Fault; 29] = [
        Fault::NoRoute,
        Fault::BackendInvalid,
        Fault::UnknownDestination,
        Fault::DestinationRefused,
        Fault::NoEndpoint,
        Fault::CircuitOpen,
        Fault::RetryBudgetSpent,
        Fault::ConnectFailed,
        Fault::PeerIdentity,
        Fault::WrongInstance,
        Fault::Draining,
        Fault::ApplicationUnreachable,
        Fault::UpstreamReset,
        Fault::UpstreamProtocol,
        Fault::HeaderTimeout,
        Fault::RequestTimeout,
        Fault::BackendTimeout,
        Fault::NotAuthorized,
        Fault::RateLimited,
        Fault::RateLimitUnknown,
        Fault::Overload,
        Fault::FaultInjected,
        Fault::MalformedRequest,
        Fault::HeadersTooLarge,
        Fault::TargetTooLarge,
        Fault::Loop,
        Fault::DiscoveryUnavailable,
        Fault::ClientGone,
        Fault::Internal,
    ];

    /// The fault of a word that another sidecar sent.
    pub fn from_reason(reason: &str) -> Option<Fault> {
        Fault::ALL
            .into_iter()
            .find(|fault| fault.reason() == reason)
    }

    /// Whether no connection to the application could be had.
    pub fn is_unreachable(self) -> bool {
        matches!(
            self,
            Fault::ConnectFailed
                | Fault::PeerIdentity
                | Fault::WrongInstance
                | Fault::Draining
                | Fault::ApplicationUnreachable
        )
    }

    /// Whether another attempt may end otherwise: not where the time is over, or where a document, the client
    /// or this proxy is why it failed.
    pub fn may_pass(self) -> bool {
        !matches!(
            self,
            Fault::RequestTimeout
                | Fault::BackendInvalid
                | Fault::CircuitOpen
                | Fault::RetryBudgetSpent
                | Fault::RateLimited
                | Fault::RateLimitUnknown
                | Fault::FaultInjected
                | Fault::MalformedRequest
                | Fault::HeadersTooLarge
                | Fault::TargetTooLarge
        )
    }

    /// Whether an endpoint that a request failed at with this is better left out for a while. One whose
    /// application doesn't speak this client's protocol still serves the others, what a policy says is no
    /// endpoint's, and a limit passes.
    pub fn blames_endpoint(self) -> bool {
        !matches!(
            self,
            Fault::UpstreamProtocol
                | Fault::BackendInvalid
                | Fault::RateLimited
                | Fault::RateLimitUnknown
                | Fault::Overload
        )
    }

    /// The word for it, snake case.
    pub fn reason(self) -> &'static str {
        match self {
            Fault::NoRoute => "no_route",
            Fault::BackendInvalid => "backend_invalid",
            Fault::UnknownDestination => "unknown_destination",
            Fault::DestinationRefused => "destination_refused",
            Fault::NoEndpoint => "no_endpoint",
            Fault::CircuitOpen => "circuit_open",
            Fault::RetryBudgetSpent => "retry_budget_spent",
            Fault::ConnectFailed => "connect_failed",
            Fault::PeerIdentity => "peer_identity",
            Fault::WrongInstance => "wrong_instance",
            Fault::Draining => "draining",
            Fault::ApplicationUnreachable => "application_unreachable",
            Fault::UpstreamReset => "upstream_reset",
            Fault::UpstreamProtocol => "upstream_protocol",
            Fault::HeaderTimeout => "header_timeout",
            Fault::RequestTimeout => "request_timeout",
            Fault::BackendTimeout => "backend_timeout",
            Fault::NotAuthorized => "not_authorized",
            Fault::RateLimited => "rate_limited",
            Fault::RateLimitUnknown => "rate_limit_unknown",
            Fault::Overload => "overload",
            Fault::FaultInjected => "fault_injected",
            Fault::MalformedRequest => "malformed_request",
            Fault::HeadersTooLarge => "headers_too_large",
            Fault::TargetTooLarge => "target_too_large",
            Fault::Loop => "loop",
            Fault::DiscoveryUnavailable => "discovery_unavailable",
            Fault::ClientGone => "client_gone",
            Fault::Internal => "internal",
        }
    }
}
