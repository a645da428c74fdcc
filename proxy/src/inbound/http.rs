//! Requests for our workload: from another sidecar's streams, or intercepted in plaintext.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use http::{HeaderValue, Method, Version};
use weft_proto::spiffe::SpiffeId;

use super::Inbound;
use crate::admission::{Asked, Pass};
use crate::authorization::decide;
use crate::endpoint::Opened;
use crate::http::{
    Ending, Failure, NO_RETRY, Outcome, Request, Serve, Terms, Told, Unanswered, Upstream, Workers,
};
use crate::http::{exchange, exchange_upgrade, is_idempotent, respond, unread_status};
use crate::http2::ErrorCode;
use crate::model::{
    Fault, Fields, Hop, Protocol, RequestHead, ResponseHead, Text, grpc_timeout, hop,
};
use crate::multiplex::Accepted;
use crate::telemetry::{Direction, Party, RequestRecord, trace, wall_clock};

/// Pooled connections that one request may be tried on. Each may just have been closing.
const ATTEMPTS_MAX: u32 = 3;

/// Bytes of a body that an application reads together with the head. Where a connection with no more on it was
/// reset while the application is being ended, it had read nothing of the request. With more the request fails.
const UNREAD_BYTES_MAX: u64 = 2048;

/// Shorter waits are no reason to tell the application of another timeout.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// How long after an end in order a reset is awaited: the kernel sends it in the same moment.
const RESET_WAIT: Duration = Duration::from_millis(2);

/// Streams of one connection from another sidecar.
pub(super) struct HopRequests {
    pub(super) inbound: Rc<Inbound>,
    pub(super) peer: SpiffeId,
    pub(super) client: SocketAddr,
    /// The last request's caller: mostly the next one's too.
    caller: RefCell<Party>,
}

/// Requests of one intercepted plaintext connection.
pub(super) struct PlainRequests {
    pub(super) inbound: Rc<Inbound>,
    pub(super) application: SocketAddr,
    pub(super) client: SocketAddr,
}

/// Where one request goes, and on whose behalf.
struct Call<'c> {
    application: Result<SocketAddr, Fault>,
    protocol: Protocol,
    peer: Option<&'c SpiffeId>,
    source: Party,
    client: SocketAddr,
    /// It came over the hop, so the other side understands what is said to sidecars alone.
    on_hop: bool,
    /// The route by which the caller's sidecar sent it; empty: none.
    route: Text,
    /// How long the caller's sidecar waits for the answer.
    timeout: Option<Duration>,
}

impl HopRequests {
    pub(super) fn new(inbound: Rc<Inbound>, peer: SpiffeId, client: SocketAddr) -> Self {
        Self {
            inbound,
            peer,
            client,
            caller: RefCell::default(),
        }
    }

    /// The calling workload: its namespace is proven, its name is what it says.
    pub(super) fn caller(&self, workload: &str) -> Party {
        let mut caller = self.caller.borrow_mut();
        if *caller.workload != *workload || caller.namespace.is_empty() {
            *caller = Party {
                namespace: self.peer.shared_namespace(),
                workload: workload.into(),
                service: None,
            };
        }
        caller.clone()
    }

    /// What must hold before the application sees anything of a stream.
    pub(super) fn check(&self, hop: &Hop) -> Result<(), Fault> {
        if hop.instance != *self.inbound.instance {
            return Err(Fault::WrongInstance);
        }
        decide(Some(&self.peer), self.inbound.policy).map(drop)
    }
}

impl Serve for HopRequests {
    async fn serve(&self, request: &mut Request<'_>) {
        let hop = match Hop::take(&mut request.head.headers) {
            Ok(hop) => hop,
            Err(_) => {
                let told = Told::of(Fault::MalformedRequest, false);
                return Box::pin(self.inbound.answer(request, told)).await;
            }
        };
        let checked = self.check(&hop);
        if hop.no_host {
            request.head.authority = None;
        }
        request.head.scheme = None;
        request.head.version = hop.version();
        let call = Call {
            application: checked.and_then(|()| self.inbound.application(hop.port)),
            protocol: hop.protocol,
            peer: Some(&self.peer),
            source: self.caller(&hop.source),
            client: self.client,
            on_hop: true,
            route: hop.route,
            timeout: hop.timeout,
        };
        self.inbound.serve_request(request, call, hop.port).await;
    }

    fn refused(&self, fault: Fault, version: Version) {
        self.inbound
            .refused_unread(fault, version, (Some(&self.peer), self.client));
    }

    fn workers(&self) -> &Rc<Workers<Self>> {
        &self.inbound.hop_workers
    }

    fn tunnel(
        self: &Rc<Self>,
        accepted: Accepted,
    ) -> ControlFlow<LocalBoxFuture<'static, ()>, Accepted> {
        match accepted.head {
            Ok(mut head) if head.method == Method::CONNECT => {
                let hop = Hop::take(&mut head.headers);
                let (receiver, sender) = (accepted.receiver, accepted.sender);
                ControlFlow::Break(self.clone().serve_tcp(hop.ok(), receiver, sender))
            }
            head => ControlFlow::Continue(Accepted { head, ..accepted }),
        }
    }
}

impl Serve for PlainRequests {
    async fn serve(&self, request: &mut Request<'_>) {
        hop::strip(&mut request.head.headers);
        let protocol = match request.head.version {
            Version::HTTP_2 => Protocol::Http2,
            _ => Protocol::Http1,
        };
        let call = Call {
            application: decide(None, self.inbound.policy).map(|_| self.application),
            protocol,
            peer: None,
            source: Party::default(),
            client: self.client,
            on_hop: false,
            route: Text::default(),
            timeout: None,
        };
        self.inbound
            .serve_request(request, call, self.application.port())
            .await;
    }

    fn refused(&self, fault: Fault, version: Version) {
        self.inbound
            .refused_unread(fault, version, (None, self.client));
    }

    fn workers(&self) -> &Rc<Workers<Self>> {
        &self.inbound.plain_workers
    }
}

/// A gRPC call that had to wait has less time left than it says.
fn shorten_grpc_timeout(head: &mut RequestHead, waited: Duration) {
    if waited < WAIT_MIN || !head.is_grpc() {
        return;
    }
    if let Some(timeout) = grpc_timeout::get(head) {
        grpc_timeout::set(head, timeout.saturating_sub(waited));
    }
}

/// Whether the application closed the connection without having read what was on it.
async fn was_unread(failed: &Unanswered, opened: &Opened) -> bool {
    if failed.unread || !failed.silent {
        return failed.unread;
    }
    // Many end their own direction first, and then close.
    tokio::time::sleep(RESET_WAIT).await;
    match &opened.upstream {
        Upstream::Http1(connection) => connection.reader.is_reset(),
        Upstream::Http2(_) => false,
    }
}

impl Inbound {
    async fn serve_request(&self, request: &mut Request<'_>, call: Call<'_>, port: u16) {
        let headers = &mut request.head.headers;
        let context = self.telemetry.begin(headers);
        context.inject(headers);
        let began = Instant::now();
        let known = self.known(port);
        let mut retry_after = None;
        let ended = match call.application {
            // An application that is told to end at the same time closes connections with what is on them.
            // What can't be repeated then is better off elsewhere, as long as nobody has seen it.
            Ok(_) if call.on_hop && self.is_leaving() && !is_idempotent(&request.head.method) => {
                Err(Failure::Unanswered(Unanswered::unprocessed(
                    Fault::Draining,
                )))
            }
            Ok(address) => {
                let until = call.timeout.and_then(|timeout| began.checked_add(timeout));
                let asked = Asked {
                    head: &request.head,
                    caller: call.peer,
                    route: Some(&*call.route).filter(|route| !route.is_empty()),
                };
                match self.admit(port, &known.policy, asked, (began, until)).await {
                    Ok(pass) => {
                        let admitted = pass.as_ref().map_or(began, Pass::admitted);
                        shorten_grpc_timeout(&mut request.head, admitted - began);
                        let sent = (context.trace_id, pass);
                        self.forward(request, address, &call, sent).await
                    }
                    Err(refusal) => {
                        retry_after = Some(refusal.retry_after);
                        Err(Failure::Unanswered(match refusal.elsewhere {
                            true => Unanswered::unprocessed(refusal.fault),
                            false => Unanswered::late(refusal.fault),
                        }))
                    }
                }
            }
            Err(fault) => Err(Failure::Unanswered(Unanswered::unprocessed(fault))),
        };
        let ended = match ended {
            Ok(outcome) => Ok(outcome),
            Err(Failure::Unanswered(failed)) => {
                let told = Told::of(failed.fault, request.head.is_grpc());
                let told = Told {
                    unprocessed: failed.unprocessed && call.on_hop,
                    retry_after: retry_after.unwrap_or(told.retry_after),
                    ..told
                };
                Box::pin(self.answer(request, told)).await;
                Err(failed.fault)
            }
            // Nobody here has an answer thrown away.
            Err(Failure::ClientGone | Failure::Again(_)) => {
                if let Some(responder) = request.responder.take() {
                    responder.reset(ErrorCode::CANCEL);
                }
                Err(Fault::ClientGone)
            }
        };
        self.record(
            request,
            call,
            ended.as_ref().map_err(|fault| *fault),
            (context, began),
            &known.party,
        );
    }

    /// Takes note of a request that was answered before it could be read.
    fn refused_unread(
        &self,
        fault: Fault,
        version: Version,
        (peer, client): (Option<&SpiffeId>, SocketAddr),
    ) {
        let own = Party::of(&self.own);
        let context = self.telemetry.begin(&Fields::new());
        let ended = (unread_status(fault), fault);
        let record = RequestRecord::unread(Direction::Inbound, context, ended, version, &own);
        self.telemetry.finish_request(RequestRecord {
            peer: peer.map(Cow::Borrowed),
            tls: peer.is_some(),
            downstream: Some(client),
            ..record
        });
    }

    /// Whether the workload was told to end, and the application with it.
    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// To the application. Only a pooled connection that closed before it answered is tried a second
    /// time: the application was closing it while the request was on its way.
    async fn forward(
        &self,
        request: &mut Request<'_>,
        address: SocketAddr,
        call: &Call<'_>,
        (trace_id, pass): ([u8; 16], Option<Pass>),
    ) -> Result<Outcome, Failure> {
        let Request {
            head,
            body,
            responder,
        } = request;
        let pass = Cell::new(pass);
        // What failed below, and was tried again there, is not to be tried again above.
        let mark = |head: &mut ResponseHead| {
            if let Some(pass) = pass.take() {
                pass.answered(head.status.is_server_error(), Instant::now());
            }
            if head.status.is_server_error() && self.spent.contains(&trace_id, Instant::now()) {
                head.headers.set(NO_RETRY, HeaderValue::from_static("1"));
            }
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            let terms = Terms {
                change: Some(&mark),
                ..Terms::default()
            };
            let opened = self.endpoints.open_plain(address, call.protocol).await;
            let mut opened = opened.map_err(|failed| self.unreachable(address, failed))?;
            let ended = if head.upgrade.is_some() {
                let upgraded = exchange_upgrade(
                    head,
                    body,
                    responder,
                    &mut opened.upstream,
                    call.on_hop,
                    terms,
                );
                // Boxed, as everything rare here, so that the usual request's state stays small.
                Box::pin(upgraded).await.map(|(outcome, _)| outcome)
            } else {
                exchange(head, body, responder, &mut opened.upstream, terms).await
            };
            match ended {
                Ok(outcome) => {
                    if outcome.reusable {
                        self.endpoints.give_back(opened);
                    }
                    return Ok(outcome);
                }
                Err(Failure::Unanswered(failed)) => {
                    let repeatable =
                        failed.unprocessed || (failed.stale && is_idempotent(&head.method));
                    let again = repeatable && attempts < ATTEMPTS_MAX;
                    let small = body.received <= UNREAD_BYTES_MAX;
                    if small && was_unread(&failed, &opened).await && self.is_leaving() {
                        let elsewhere = Unanswered::unprocessed(Fault::Draining);
                        return Err(Failure::Unanswered(elsewhere));
                    }
                    if !again || responder.is_none() || !body.rewind() {
                        return Err(Failure::Unanswered(failed));
                    }
                }
                Err(failed) => return Err(failed),
            }
        }
    }

    /// The application saw nothing: it took no connection, or it doesn't speak HTTP/2.
    fn unreachable(&self, address: SocketAddr, failed: Unanswered) -> Failure {
        if failed.fault != Fault::ConnectFailed {
            return Failure::Unanswered(failed);
        }
        self.ports.refused(address.port());
        Failure::Unanswered(Unanswered::unprocessed(Fault::ApplicationUnreachable))
    }

    pub(super) async fn answer(&self, request: &mut Request<'_>, told: Told) {
        if let Some(responder) = request.responder.take() {
            // A client that is gone can't be told.
            let _ = respond(responder, told).await;
        }
    }

    fn record(
        &self,
        request: &Request<'_>,
        call: Call<'_>,
        ended: Result<&Outcome, Fault>,
        (context, began): (trace::Context, Instant),
        destination: &Party,
    ) {
        let head = &request.head;
        let ending = Ending::of(ended, head.is_grpc());
        self.telemetry.finish_request(RequestRecord {
            direction: Direction::Inbound,
            context,
            start: wall_clock(began),
            duration: began.elapsed(),
            method: head.method.clone(),
            scheme: "http",
            authority: head.authority.as_deref().map(Cow::Borrowed),
            path: Cow::Borrowed(&head.path),
            version: head.version,
            status: ending.status.as_u16(),
            grpc_status: ending.grpc_status,
            fault: ending.fault,
            source: Cow::Owned(call.source),
            destination: Cow::Borrowed(destination),
            route: (!call.route.is_empty()).then(|| Cow::Borrowed(&*call.route)),
            peer: call.peer.map(Cow::Borrowed),
            tls: call.on_hop,
            request_bytes: request.body.received,
            response_bytes: ending.response_bytes,
            retries: 0,
            upstream: call.application.ok(),
            downstream: Some(call.client),
        });
    }
}
