//! The one place where a fault becomes an answer (see INTERFACES, "What a caller sees when the mesh
//! says no").

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, StatusCode, Version};

use super::{Failure, Outcome, Responder};
use crate::model::{Fault, FaultStatus, FieldValue, Fields, ResponseHead, hop};

/// Carries the fault's reason on every answer that a proxy makes itself.
pub const WEFT_FAULT: HeaderName = HeaderName::from_static("weft-fault");

/// On a failure: it was tried again already, further down, so that whoever gets it had better not.
pub const NO_RETRY: HeaderName = HeaderName::from_static("weft-no-retry");

/// What a fault says in HTTP, in gRPC, and to a person.
struct Answer {
    status: StatusCode,
    grpc_status: u16,
    text: &'static str,
}

fn answer(fault: Fault) -> Answer {
    let (status, grpc_status, text) = match fault {
        Fault::NoRoute => (
            404,
            12,
            "routes are attached to this service, and none matches the request",
        ),
        Fault::BackendInvalid => (
            500,
            14,
            "every backend of the matching rule is missing, invalid or of weight 0",
        ),
        Fault::UnknownDestination => (
            503,
            14,
            "no service of the mesh has this host and port, and the name does not resolve",
        ),
        Fault::DestinationRefused => (
            403,
            7,
            "policy does not allow calls to what is no service of the mesh, or the connection leads elsewhere already",
        ),
        Fault::NoEndpoint => (503, 14, "the service has no healthy endpoint"),
        Fault::CircuitOpen => (
            503,
            14,
            "as many requests as the service takes are on their way",
        ),
        Fault::RetryBudgetSpent => (
            503,
            14,
            "the request failed, and the budget for sending requests again is spent",
        ),
        Fault::ConnectFailed => (503, 14, "no connection to the endpoint"),
        Fault::PeerIdentity => (
            503,
            14,
            "the endpoint's certificate is not that of the workload expected there",
        ),
        Fault::WrongInstance => (
            503,
            14,
            "another instance has taken over the endpoint's address",
        ),
        Fault::Draining => (503, 14, "the only endpoint is going away"),
        Fault::ApplicationUnreachable => (
            503,
            14,
            "the application does not accept connections on that port",
        ),
        Fault::UpstreamReset => (
            503,
            14,
            "the connection broke after the request was handed over",
        ),
        Fault::UpstreamProtocol => (502, 14, "the answer is not valid HTTP"),
        Fault::HeaderTimeout => (408, 4, "the request's head did not arrive in time"),
        Fault::RequestTimeout => (504, 4, "the route's time for the request is over"),
        Fault::BackendTimeout => (504, 4, "the route's time for one attempt is over"),
        Fault::NotAuthorized => (403, 7, "policy does not allow this request"),
        Fault::RateLimited => (429, 8, "a rate limit is reached"),
        Fault::RateLimitUnknown => (503, 14, "the rate limit server does not answer"),
        Fault::Overload => (
            503,
            14,
            "a limit of the proxy is reached, or the application has enough to do",
        ),
        Fault::FaultInjected => (503, 14, "a policy asks for this fault"),
        Fault::MalformedRequest => (400, 13, "the request is malformed or ambiguous"),
        Fault::HeadersTooLarge => (431, 8, "the request's header section is too large"),
        Fault::TargetTooLarge => (414, 8, "the request's target is too large"),
        Fault::Loop => (508, 14, "the proxy would have called itself"),
        Fault::DiscoveryUnavailable => (
            503,
            14,
            "the control plane cannot be reached, and nothing is known of the destination yet",
        ),
        Fault::ClientGone => (499, 1, "the client went away"),
        Fault::Internal => (500, 13, "an error within the proxy"),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Answer {
        status,
        grpc_status,
        text,
    }
}

/// How an exchange ended, as telemetry tells it: by the upstream's answer, or by a fault that
/// [`respond`] answers with.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub status: StatusCode,
    pub grpc_status: Option<u16>,
    pub fault: Option<Fault>,
    pub response_bytes: u64,
}

impl Ending {
    /// `grpc` says that the client wants its errors as gRPC statuses.
    pub fn of(ended: Result<&Outcome, Fault>, grpc: bool) -> Self {
        Self::of_told(ended.map_err(|fault| Told::of(fault, grpc)))
    }

    /// As it was told to the client.
    pub fn of_told(ended: Result<&Outcome, Told>) -> Self {
        let told = match ended {
            Ok(outcome) => {
                return Self {
                    status: outcome.status,
                    grpc_status: outcome.grpc_status,
                    fault: outcome.fault,
                    response_bytes: outcome.response_bytes,
                };
            }
            Err(told) => told,
        };
        let (status, grpc_status) = told.statuses();
        Self {
            status,
            grpc_status,
            fault: Some(told.fault),
            response_bytes: 0,
        }
    }
}

/// Answers with a head that says everything, as a redirect does.
pub async fn respond_with(
    responder: Responder<'_>,
    head: ResponseHead,
) -> Result<Outcome, Failure> {
    let outcome = Outcome::of(&head, None);
    let mut sink = responder
        .respond(head, true)
        .map_err(|_| Failure::ClientGone)?;
    let finished = sink.finish(Fields::new()).await;
    finished.map_err(|_| Failure::ClientGone)?;
    Ok(outcome)
}

/// What is answered when something went wrong.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub fault: Fault,
    /// As a status of gRPC.
    pub grpc: bool,
    /// Said on the hop alone: the application never saw the request, so another endpoint may be asked.
    pub unprocessed: bool,
    /// When to come back, where the fault is one that passes.
    pub retry_after: Duration,
    /// What a policy wants in the place of the fault's own status.
    pub status: Option<FaultStatus>,
}

impl Told {
    pub fn of(fault: Fault, grpc: bool) -> Self {
        Self {
            fault,
            grpc,
            unprocessed: false,
            retry_after: Duration::from_secs(1),
            status: None,
        }
    }

    /// How a request ended that was answered with this before it was read, as telemetry tells it.
    pub fn ended(&self) -> (u16, Option<u16>, Fault) {
        let (status, grpc_status) = self.statuses();
        (status.as_u16(), grpc_status, self.fault)
    }

    /// The status of the answer, and gRPC's.
    fn statuses(&self) -> (StatusCode, Option<u16>) {
        let answer = self.answer();
        match self.grpc {
            true => (StatusCode::OK, Some(answer.grpc_status)),
            false => (answer.status, None),
        }
    }

    fn answer(&self) -> Answer {
        let mut answer = answer(self.fault);
        match self.status {
            None => {}
            Some(FaultStatus::Http(status)) => {
                answer.status = status;
                answer.grpc_status = grpc_status_of(status);
            }
            Some(FaultStatus::Grpc(status)) => answer.grpc_status = status,
        }
        answer
    }
}

/// What a gRPC client makes of a status of HTTP (gRPC's "HTTP to gRPC Status Code Mapping").
fn grpc_status_of(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// Answers with a fault.
pub async fn respond(mut responder: Responder<'_>, told: Told) -> Result<(), Failure> {
    let Told { fault, grpc, .. } = told;
    let answer = told.answer();
    let mut headers = Fields::new();
    headers.set(WEFT_FAULT, FieldValue::from_static(fault.reason()));
    if matches!(fault, Fault::Overload | Fault::RateLimited) {
        let seconds = told.retry_after.as_secs_f64().ceil().max(1.0);
        headers.set(RETRY_AFTER, FieldValue::from(seconds as u64));
    }
    let mut status = answer.status;
    if told.unprocessed {
        hop::mark_unprocessed(&mut headers, fault.reason());
        if fault == Fault::WrongInstance {
            // RFC 9110 15.5.20; what the client gets is the calling sidecar's to say.
            status = StatusCode::MISDIRECTED_REQUEST;
        }
    }
    let mut body = Bytes::new();
    if grpc {
        status = StatusCode::OK;
        headers.set(CONTENT_TYPE, FieldValue::from_static("application/grpc"));
        headers.set(
            HeaderName::from_static("grpc-status"),
            FieldValue::from(u64::from(answer.grpc_status)),
        );
        let message = format!("weft: {}: {}", fault.reason(), answer.text);
        headers.set(
            HeaderName::from_static("grpc-message"),
            FieldValue::from_text(&message).unwrap_or(FieldValue::from_static("weft")),
        );
    } else {
        headers.set(
            CONTENT_TYPE,
            FieldValue::from_static("text/plain; charset=utf-8"),
        );
        body = Bytes::from(format!("weft: {}: {}\n", fault.reason(), answer.text));
        headers.set(
            http::header::CONTENT_LENGTH,
            FieldValue::from(body.len() as u64),
        );
    }
    if responder.takes_no_content() {
        body.clear();
    }
    if matches!(
        fault,
        Fault::MalformedRequest
            | Fault::HeadersTooLarge
            | Fault::TargetTooLarge
            | Fault::HeaderTimeout
    ) {
        responder.close_after();
    }
    let head = ResponseHead {
        status,
        version: Version::HTTP_11,
        upgrade: None,
        headers,
    };
    let mut sink = responder
        .respond(head, body.is_empty())
        .map_err(|_| Failure::ClientGone)?;
    if !body.is_empty() {
        sink.data(body).await.map_err(|_| Failure::ClientGone)?;
    }
    sink.finish(Fields::new())
        .await
        .map_err(|_| Failure::ClientGone)
}
