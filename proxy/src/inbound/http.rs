//! Requests for our workload: from another sidecar's streams, or intercepted in plaintext.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use http::{Method, Version};
use weft_proto::spiffe::SpiffeId;

use super::Inbound;
use super::admit::Known;
use crate::admission::{Asked, Pass};
use crate::authorization::decide;
use crate::http::{
    Ending, Failure, NO_RETRY, Outcome, Request, Serve, Terms, Told, Unanswered, Upstream, Workers,
};
use crate::http::{
    answer_as_last, begin_stream, exchange, exchange_upgrade, is_idempotent, is_last_recipient,
    respond,
};
use crate::http2::ErrorCode;
use crate::model::{
    Fault, FieldValue, Fields, Hop, Protocol, RequestHead, ResponseHead, Text, grpc_timeout, hop,
};
use crate::multiplex::Accepted;
use crate::telemetry::{Direction, Party, RequestCount, RequestRecord, trace, wall_clock};

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
    /// What streams said of themselves, the latest first.
    said: RefCell<Vec<Rc<Said>>>,
}

/// Different things that streams of one connection said of themselves and that are kept: mostly the next ones say the
/// same.
const SAID_MAX: usize = 8;
/// What is longer is read anew each time; names of Kubernetes' greatest length fit.
const SAID_BYTES_MAX: usize = 1024;

/// What a stream said of itself.
pub(super) struct Said {
    text: Box<str>,
    pub(super) hop: Hop,
    /// What must hold before the application sees anything of it.
    pub(super) checked: Result<(), Fault>,
    pub(super) caller: Rc<Caller>,
}

/// On whose behalf a request comes.
#[derive(Default)]
pub(super) struct Caller {
    peer: Option<SpiffeId>,
    pub(super) source: Party<'static>,
    /// The route by which the caller's sidecar sent it; empty: none.
    route: Text,
}

/// Requests of one intercepted plaintext connection.
pub(super) struct PlainRequests {
    pub(super) inbound: Rc<Inbound>,
    pub(super) application: SocketAddr,
    pub(super) client: SocketAddr,
    /// Nobody who has proven who they are.
    pub(super) caller: Rc<Caller>,
}

/// Where one request goes, and on whose behalf.
pub(super) struct Call {
    pub(super) application: Result<SocketAddr, Fault>,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    caller: Rc<Caller>,
    client: SocketAddr,
    /// It came over the hop, so the other side understands what is said to sidecars alone.
    on_hop: bool,
    /// How long the caller's sidecar waits for the answer.
    timeout: Option<Duration>,
}

impl Call {
    /// The request as policies see it.
    pub(super) fn asked<'a>(&'a self, head: &'a RequestHead) -> Asked<'a> {
        Asked {
            head,
            caller: self.caller.peer.as_ref(),
            route: self.caller.route(),
        }
    }
}

impl Caller {
    fn route(&self) -> Option<&str> {
        Some(&*self.route).filter(|route| !route.is_empty())
    }
}

impl HopRequests {
    pub(super) fn new(inbound: Rc<Inbound>, peer: SpiffeId, client: SocketAddr) -> Self {
        Self {
            inbound,
            peer,
            client,
            said: RefCell::default(),
        }
    }

    /// What a stream says of itself. The error is what is missing or wrong.
    pub(super) fn said(&self, headers: &Fields) -> Result<Rc<Said>, &'static str> {
        let value = hop::said(headers).ok_or("weft-hop-stream is missing")?;
        let mut all = self.said.borrow_mut();
        if let Some(known) = all.iter().find(|said| *value == *said.text) {
            return Ok(known.clone());
        }
        let text = value.to_str().map_err(|_| "weft-hop-stream is no text")?;
        let hop: Hop = text.parse()?;
        let caller = Caller {
            peer: Some(self.peer.clone()),
            // Its namespace is proven, its name is what it says.
            source: Party {
                namespace: Cow::Owned(self.peer.shared_namespace()),
                workload: Cow::Owned((&*hop.source).into()),
                service: None,
            },
            route: hop.route.clone(),
        };
        let said = Rc::new(Said {
            text: text.into(),
            checked: self.check(&hop),
            caller: Rc::new(caller),
            hop,
        });
        if said.text.len() <= SAID_BYTES_MAX {
            all.truncate(SAID_MAX - 1);
            all.insert(0, said.clone());
        }
        Ok(said)
    }

    fn check(&self, hop: &Hop) -> Result<(), Fault> {
        if hop.instance != *self.inbound.instance {
            return Err(Fault::WrongInstance);
        }
        decide(Some(&self.peer), self.inbound.policy).map(drop)
    }

    /// What the other sidecar says of a request is taken off its head.
    pub(super) fn call(&self, head: &mut RequestHead, said: &Said) -> Call {
        let hop = &said.hop;
        let timeout = hop::timeout(&head.headers);
        hop::strip(&mut head.headers);
        if hop.no_host {
            head.authority = None;
        }
        head.scheme = None;
        head.version = hop.version();
        Call {
            application: said
                .checked
                .and_then(|()| self.inbound.application(hop.port)),
            protocol: hop.protocol,
            port: hop.port,
            caller: said.caller.clone(),
            client: self.client,
            on_hop: true,
            timeout,
        }
    }
}

impl Serve for HopRequests {
    async fn serve(&self, request: &mut Request<'_>) {
        match self.said(&request.head.headers) {
            Ok(said) => {
                let call = self.call(&mut request.head, &said);
                let begun = self.inbound.begin(&mut request.head, call, Instant::now());
                self.inbound.go_on(request, begun).await;
            }
            Err(_) => {
                let told = Told::of(Fault::MalformedRequest, false);
                Box::pin(self.inbound.answer(request, told)).await;
            }
        }
    }

    fn carry<'d>(self: &Rc<Self>, accepted: Accepted<'d>) -> ControlFlow<(), Accepted<'d>> {
        begin_stream(self, accepted)
    }

    fn begin(
        self: &Rc<Self>,
        mut request: Request<'static>,
        at: Instant,
    ) -> Option<LocalBoxFuture<'static, ()>> {
        match self.said(&request.head.headers) {
            Ok(said) => {
                let call = |head: &mut RequestHead| self.call(head, &said);
                Some(Box::pin(self.inbound.carry_request(request, at, call)?))
            }
            Err(_) => {
                let requests = self.clone();
                Some(Box::pin(async move { requests.serve(&mut request).await }))
            }
        }
    }

    fn refused(&self, told: Told, version: Version) {
        self.inbound
            .refused_unread(told, version, (Some(&self.peer), self.client));
    }

    fn workers(&self) -> &Rc<Workers<Self>> {
        &self.inbound.hop_workers
    }

    fn tunnel<'d>(
        self: &Rc<Self>,
        accepted: Accepted<'d>,
    ) -> ControlFlow<LocalBoxFuture<'static, ()>, Accepted<'d>> {
        match accepted.head {
            Some(Ok(head)) if head.method == Method::CONNECT => {
                let said = self.said(&head.headers).ok();
                let (receiver, sender) = (accepted.receiver, accepted.sender);
                ControlFlow::Break(self.clone().serve_tcp(said, receiver, sender))
            }
            _ => ControlFlow::Continue(accepted),
        }
    }
}

impl PlainRequests {
    /// Nothing that the caller says to sidecars is believed.
    pub(super) fn call(&self, head: &mut RequestHead) -> Call {
        hop::strip(&mut head.headers);
        if head.names_no_host() {
            head.authority = Text::try_from(self.application.to_string().as_str()).ok();
        }
        let protocol = match head.version {
            Version::HTTP_2 => Protocol::Http2,
            _ => Protocol::Http1,
        };
        Call {
            application: decide(None, self.inbound.policy).map(|_| self.application),
            protocol,
            port: self.application.port(),
            caller: self.caller.clone(),
            client: self.client,
            on_hop: false,
            timeout: None,
        }
    }
}

impl Serve for PlainRequests {
    async fn serve(&self, request: &mut Request<'_>) {
        let call = self.call(&mut request.head);
        let begun = self.inbound.begin(&mut request.head, call, Instant::now());
        self.inbound.go_on(request, begun).await;
    }

    fn carry<'d>(self: &Rc<Self>, accepted: Accepted<'d>) -> ControlFlow<(), Accepted<'d>> {
        begin_stream(self, accepted)
    }

    fn begin(
        self: &Rc<Self>,
        request: Request<'static>,
        at: Instant,
    ) -> Option<LocalBoxFuture<'static, ()>> {
        let call = |head: &mut RequestHead| self.call(head);
        Some(Box::pin(self.inbound.carry_request(request, at, call)?))
    }

    fn refused(&self, told: Told, version: Version) {
        self.inbound
            .refused_unread(told, version, (None, self.client));
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

/// A request's trace, and its place at the application until the answer begins.
pub(super) type Sent = ([u8; 16], Cell<Option<Pass>>);

/// Whether another attempt does no harm after one that failed, the last of so many, and can be made.
fn is_repeatable(failed: &Unanswered, request: &mut Request<'_>, attempts: u32) -> bool {
    let harmless = failed.unprocessed || (failed.stale && is_idempotent(&request.head.method));
    let wanted = attempts < ATTEMPTS_MAX && request.responder.is_some();
    harmless && wanted && request.body.rewind()
}

/// Whether the application closed the connection without having read what was on it.
async fn was_unread(failed: &Unanswered, is_reset: impl Fn() -> bool) -> bool {
    if failed.unread || !failed.silent {
        return failed.unread;
    }
    // Many end their own direction first, and then close.
    tokio::time::sleep(RESET_WAIT).await;
    is_reset()
}

/// A request that was joined to its trace and looked at.
pub(super) struct Begun {
    pub(super) call: Call,
    pub(super) context: trace::Context,
    pub(super) began: Instant,
    pub(super) known: Rc<Known>,
    /// It said that it may pass no further proxy.
    pub(super) is_last: bool,
}

impl Inbound {
    /// Joins a request to its trace, and finds out what is known of its port.
    pub(super) fn begin(&self, head: &mut RequestHead, call: Call, now: Instant) -> Begun {
        let context = self.telemetry.begin(&head.headers);
        context.inject(&mut head.headers);
        Begun {
            context,
            began: now,
            known: self.known(call.port),
            is_last: is_last_recipient(head),
            call,
        }
    }

    /// Lets a request in, and has the application answer it.
    pub(super) async fn go_on(&self, request: &mut Request<'_>, begun: Begun) {
        let Begun {
            call, began, known, ..
        } = &begun;
        let mut retry_after = None;
        let ended = match call.application {
            Ok(_) if self.refuses_to_repeat(call, &request.head) => Err(Failure::Unanswered(
                Unanswered::unprocessed(Fault::Draining),
            )),
            Ok(_) if begun.is_last => Box::pin(answer_as_last(request)).await,
            Ok(address) => {
                let until = call.timeout.and_then(|timeout| began.checked_add(timeout));
                let asked = call.asked(&request.head);
                let entered = self.admit(call.port, &known.policy, asked, (*began, until));
                match entered.await {
                    Ok(pass) => {
                        let admitted = pass.as_ref().map_or(*began, Pass::admitted);
                        shorten_grpc_timeout(&mut request.head, admitted - *began);
                        let sent = (begun.context.trace_id, Cell::new(pass));
                        self.forward(request, address, call, &sent, 0).await
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
        self.finish(request, begun, ended, retry_after).await;
    }

    /// An application that is told to end at the same time closes connections with what is on them. What can't be
    /// repeated then is better off elsewhere, as long as nobody has seen it.
    pub(super) fn refuses_to_repeat(&self, call: &Call, head: &RequestHead) -> bool {
        call.on_hop && self.is_leaving() && !is_idempotent(&head.method)
    }

    /// Tells the other side what went wrong, if something did, and telemetry how it ended.
    pub(super) async fn finish(
        &self,
        request: &mut Request<'_>,
        mut begun: Begun,
        ended: Result<Outcome, Failure>,
        retry_after: Option<Duration>,
    ) {
        if let Err(Failure::Unanswered(failed)) = &ended {
            let told = Told::of(failed.fault, request.head.is_grpc());
            let told = Told {
                unprocessed: failed.unprocessed && begun.call.on_hop,
                retry_after: retry_after.unwrap_or(told.retry_after),
                ..told
            };
            Box::pin(self.answer(request, told)).await;
        }
        self.conclude(request, &mut begun, &ended, Instant::now());
    }

    /// Takes note of how a request ended whose client was told.
    pub(super) fn conclude(
        &self,
        request: &mut Request<'_>,
        begun: &mut Begun,
        ended: &Result<Outcome, Failure>,
        now: Instant,
    ) {
        let ended = match ended {
            Ok(outcome) => Ok(outcome),
            Err(Failure::Unanswered(failed)) => Err(failed.fault),
            // Nobody here has an answer thrown away.
            Err(Failure::ClientGone | Failure::Again(_)) => {
                if let Some(responder) = request.responder.take() {
                    responder.reset(ErrorCode::CANCEL);
                }
                Err(Fault::ClientGone)
            }
        };
        self.record(request, begun, ended, now);
    }

    /// Takes note of a request that was answered before it could be read.
    fn refused_unread(
        &self,
        told: Told,
        version: Version,
        (peer, client): (Option<&SpiffeId>, SocketAddr),
    ) {
        let own = Party::of(&self.own);
        let context = self.telemetry.begin(&Fields::new());
        let direction = Direction::Inbound;
        let record = RequestRecord::unread(direction, context, told.ended(), version, &own);
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
    /// time: the application was closing it while the request was on its way. `attempts` were made before.
    pub(super) async fn forward(
        &self,
        request: &mut Request<'_>,
        address: SocketAddr,
        call: &Call,
        sent: &Sent,
        mut attempts: u32,
    ) -> Result<Outcome, Failure> {
        let mark = |head: &mut ResponseHead| self.mark(head, sent, Instant::now());
        loop {
            attempts += 1;
            let terms = Terms {
                change: Some(&mark),
                ..Terms::default()
            };
            let opened = self.endpoints.open_plain(address, call.protocol).await;
            let mut opened = opened.map_err(|failed| self.unreachable(address, failed))?;
            let Request {
                head,
                body,
                responder,
            } = request;
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
                    let is_reset = || match &opened.upstream {
                        Upstream::Http1(connection) => connection.reader.is_reset(),
                        Upstream::Http2(_) => false,
                    };
                    self.may_repeat(request, failed, attempts, is_reset).await?;
                }
                Err(failed) => return Err(failed),
            }
        }
    }

    /// Whether there may be another attempt after so many, of which the last failed; if not, how the request ends.
    /// `is_reset` says whether its connection's other end was reset.
    pub(super) async fn may_repeat(
        &self,
        request: &mut Request<'_>,
        failed: Unanswered,
        attempts: u32,
        is_reset: impl Fn() -> bool,
    ) -> Result<(), Failure> {
        let small = request.body.received <= UNREAD_BYTES_MAX;
        if small && was_unread(&failed, is_reset).await && self.is_leaving() {
            let elsewhere = Unanswered::unprocessed(Fault::Draining);
            return Err(Failure::Unanswered(elsewhere));
        }
        match is_repeatable(&failed, request, attempts) {
            true => Ok(()),
            false => Err(Failure::Unanswered(failed)),
        }
    }

    /// Learns from an answer's head, and marks a failure that was tried again below: it is not to be tried again above.
    pub(super) fn mark(&self, head: &mut ResponseHead, (trace_id, pass): &Sent, now: Instant) {
        if let Some(pass) = pass.take() {
            pass.answered(head.status.is_server_error(), now);
        }
        if head.status.is_server_error() && self.spent.contains(trace_id, now) {
            head.headers.set(NO_RETRY, FieldValue::from_static("1"));
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
        begun: &mut Begun,
        ended: Result<&Outcome, Fault>,
        now: Instant,
    ) {
        let Begun {
            call,
            context,
            began,
            known,
            ..
        } = begun;
        let head = &request.head;
        let ending = Ending::of(ended, head.is_grpc());
        let count = RequestCount {
            direction: Direction::Inbound,
            duration: now.saturating_duration_since(*began),
            status: ending.status.as_u16(),
            grpc_status: ending.grpc_status,
            fault: ending.fault,
            source: call.caller.source.lend(),
            destination: known.party.lend(),
            route: call.caller.route(),
            tls: call.on_hop,
            request_bytes: request.body.received,
            response_bytes: ending.response_bytes,
            retries: 0,
        };
        if !self.telemetry.count_request(&count, context.sampled) {
            return;
        }
        self.telemetry.tell_of_request(RequestRecord {
            method: head.method.clone(),
            authority: head.authority.as_ref().map(Cow::Borrowed),
            path: Cow::Borrowed(&head.path),
            version: head.version,
            peer: call.caller.peer.as_ref().map(Cow::Borrowed),
            upstream: call.application.ok(),
            downstream: Some(call.client),
            ..RequestRecord::of(count, context.take(), wall_clock(*began))
        });
    }
}
