//! Forwarding mechanics of HTTP, the same for both directions: a request comes from a downstream
//! connection ([`serve_http1`], [`serve_http2`]), a story decides where it goes, and [`exchange`]
//! carries it there and the answer back. Which of both sides speaks which version plays no part. Where
//! nothing else is waited for, [`carry`] does the same without a task.

mod alarms;
mod body;
mod carrier;
mod exchange;
mod grpc;
mod last_recipient;
mod line;
mod mirror;
mod probe;
mod race;
mod respond;
mod server1;
mod server2;
mod sink;
mod spent;
mod terms;
mod upgrade;
mod upstream;
mod websocket;
mod workers;

pub use body::{Body, BodyError, Piece, RequestBody};
pub use carrier::{Carriers, Errand, Lead, Load, Passage, carry};
pub use exchange::{Failure, Outcome, exchange};
pub use grpc::{Pushback, pushback, status_for_rules};
pub use last_recipient::{answer_as_last, is_last_recipient};
pub use line::Line;
pub use mirror::{BodyCopy, exchange_copy};
pub use probe::{Answered, probe};
pub use race::{Attempt, Prize, exchange_for, race};
pub use respond::{Ending, NO_RETRY, Told, respond, respond_with};
pub use server1::{Ended, serve_http1};
pub use server2::serve_http2;
pub use sink::{Responder, Sink};
pub use spent::Spent;
pub use terms::{Deadline, Terms, within};
pub use upgrade::exchange_upgrade;
pub use upstream::{Http1Upstream, Http2Upstream, Unanswered, Upstream};
pub use workers::Workers;

use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ::http::{Method, Version};
use futures_util::future::LocalBoxFuture;

use crate::model::RequestHead;
use crate::multiplex::{Accepted, StreamReceiver, StreamSender};

/// A request on its way: what it says, what is still to come of it, and where its answer goes.
pub struct Request<'d> {
    pub head: RequestHead,
    pub body: RequestBody<'d>,
    /// Taken by whoever answers.
    pub responder: Option<Responder<'d>>,
}

impl Request<'static> {
    /// A request on a stream of HTTP/2.
    pub fn of_stream(head: RequestHead, receiver: StreamReceiver, sender: StreamSender) -> Self {
        let body = RequestBody::new(Body::Http2 { stream: receiver });
        let responder = Responder::Http2 {
            stream: sender,
            is_head: head.method == Method::HEAD,
        };
        Self {
            head,
            body,
            responder: Some(responder),
        }
    }
}

/// A story that serves requests.
pub trait Serve: Sized + 'static {
    /// Answers one request, whatever happens.
    fn serve(&self, request: &mut Request<'_>) -> impl Future<Output = ()>;
    /// Takes note of a request that was refused before it was one; `version` is its connection's.
    fn refused(&self, told: Told, version: Version);
    /// The tasks that serve the streams of this kind on this thread.
    fn workers(&self) -> &Rc<Workers<Self>>;
    /// What serves a stream that may last, in less room than one for any request takes; the stream again, where it is
    /// to be served as any other.
    fn tunnel<'d>(
        self: &Rc<Self>,
        accepted: Accepted<'d>,
    ) -> ControlFlow<LocalBoxFuture<'static, ()>, Accepted<'d>> {
        ControlFlow::Continue(accepted)
    }
    /// Serves a stream without a task of its own, where nothing about it has to be waited for but the other side
    /// ([`carry`]); the stream again, where it is to be served as any other.
    fn carry<'d>(self: &Rc<Self>, accepted: Accepted<'d>) -> ControlFlow<(), Accepted<'d>> {
        ControlFlow::Continue(accepted)
    }
    /// Begins to serve a request that came at this time: carries it, or returns what serves it.
    fn begin(
        self: &Rc<Self>,
        mut request: Request<'static>,
        _: Instant,
    ) -> Option<LocalBoxFuture<'static, ()>> {
        let service = self.clone();
        Some(Box::pin(async move { service.serve(&mut request).await }))
    }
}

/// Begins to serve the request on a stream as one of a connection of HTTP/1; the stream again, if it asks for something
/// else than an answer.
pub fn begin_stream<'d, S: Serve>(
    service: &Rc<S>,
    accepted: Accepted<'d>,
) -> ControlFlow<(), Accepted<'d>> {
    if !matches!(accepted.head, Some(Ok(head)) if !head.is_switch()) {
        return ControlFlow::Continue(accepted);
    }
    if let Some(Ok(head)) = accepted.head.take() {
        let request = Request::of_stream(head, accepted.receiver, accepted.sender);
        if let Some(serving) = service.begin(request, accepted.at) {
            tokio::task::spawn_local(serving);
        }
    }
    ControlFlow::Break(())
}

/// Limits of a downstream connection.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    pub http1: crate::http1::Limits,
    pub http2: crate::http2::Limits,
    /// From the first byte of a head to its last; then 408 and close.
    pub head_timeout: Duration,
    /// Without any request; then the connection is closed, before as much time again has gone by.
    pub idle_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            http1: crate::http1::Limits::default(),
            http2: crate::http2::Limits::default(),
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(3600),
        }
    }
}

/// Tells every connection that the proxy is shutting down.
pub type Drain = tokio::sync::watch::Receiver<bool>;

/// Returns once the proxy is shutting down.
pub async fn draining(drain: &mut Drain) {
    if drain.wait_for(|draining| *draining).await.is_err() {
        // Whoever could start a drain is gone, so there will be none.
        std::future::pending::<()>().await;
    }
}

/// Whether a request may be sent twice although it may have been processed (RFC 9110 9.2.2).
pub fn is_idempotent(method: &::http::Method) -> bool {
    matches!(
        method.as_str(),
        "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE"
    )
}
