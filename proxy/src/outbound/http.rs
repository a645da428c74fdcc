//! Requests to their destination: route, balance, send; and, where that is safe or asked for, send again
//! elsewhere (`attempt`).

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use http::{Method, Version};

use super::Outbound;
use super::attempt::Course;
use super::destination::Destination;
use super::recent::{Done, Parts};
use super::session::{self, Session};
use super::target::{Routed, Target};
use super::tcp::party_of;
use crate::http::{
    Ending, Failure, Outcome, Piece, Request, Responder, Serve, Told, Unanswered, Workers,
    answer_as_last, begin_stream, is_last_recipient, respond, respond_with,
};
use crate::http2::ErrorCode;
use crate::model::{
    Cluster, Configuration, Endpoint, Fault, FaultStatus, Fields, Protocol, RequestHead,
    ResponseHead, Rule, ServiceName, ServicePort, Text, hop,
};
use crate::multiplex::Accepted;
use crate::route::{self, Decision};
use crate::tcp::{Writer, relay};
use crate::telemetry::{Direction, RequestCount, RequestRecord, trace, wall_clock};

/// Bytes of a body that are read although its request was answered without them.
const REST_BYTES_MAX: u64 = 64 * 1024;
/// How long they are waited for.
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// Requests of one connection.
pub(super) struct OutboundRequests {
    pub(super) outbound: Rc<Outbound>,
    /// Where all of them go; each request's own host decides otherwise.
    destination: Option<Destination>,
    /// What the last request's host was found to mean.
    known: RefCell<Option<KnownHost>>,
    pub(super) client: SocketAddr,
}

/// Where a request goes: to its target, or nowhere, because a route has an answer at once.
pub(super) type Found = Result<Option<Box<ResponseHead>>, Fault>;

/// See [`KnownHost`].
const KNOWN_LIFE: Duration = Duration::from_secs(1);

/// What a host means, for as long as nothing changes. Connections mostly go on asking the same.
struct KnownHost {
    /// Copies: slices would keep whole read buffers.
    authority: Box<[u8]>,
    scheme: Option<Box<[u8]>>,
    destination: Destination,
    configuration: Arc<Configuration>,
    /// Looked up again from here on, so that discovery sees that it is used.
    until: Instant,
}

/// What telemetry is told of a request, gathered on its way.
pub(super) struct Trail {
    pub(super) began: Instant,
    /// In which the client spoke.
    pub(super) version: Version,
    pub(super) context: trace::Context,
    pub(super) target: Option<Target>,
    pub(super) endpoint: Option<Arc<Endpoint>>,
    /// How often it was sent again.
    pub(super) attempts: u32,
    /// What a policy has it answered with.
    pub(super) status: Option<FaultStatus>,
    /// It said that it may pass no further proxy.
    pub(super) is_last: bool,
    /// Authority and path as the client asked for them, where a filter may have changed them.
    asked: Option<(Option<Text>, Text)>,
}

impl Trail {
    /// Nothing has been found out yet.
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began,
            version: Version::default(),
            context: trace::Context::default(),
            target: None,
            endpoint: None,
            attempts: 0,
            status: None,
            is_last: false,
            asked: None,
        }
    }

    /// Lets go of what was found out.
    pub(super) fn clear(&mut self) {
        let Self {
            context,
            target,
            endpoint,
            attempts,
            status,
            is_last,
            asked,
            ..
        } = self;
        context.tracestate = None;
        *target = None;
        *endpoint = None;
        *attempts = 0;
        *status = None;
        *is_last = false;
        *asked = None;
    }

    /// Whose endpoints are chosen among.
    pub(super) fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.target.as_ref()?.cluster.as_ref()
    }

    /// What a client is told of a fault.
    fn told(&self, fault: Fault, head: &RequestHead) -> Told {
        Told {
            status: self.status,
            ..Told::of(fault, head.is_grpc())
        }
    }
}

impl Default for Trail {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl OutboundRequests {
    pub(super) fn explicit(outbound: Rc<Outbound>, client: SocketAddr) -> Self {
        Self {
            outbound,
            destination: None,
            known: RefCell::default(),
            client,
        }
    }

    pub(super) fn fixed(
        outbound: Rc<Outbound>,
        destination: Destination,
        client: SocketAddr,
    ) -> Self {
        Self {
            outbound,
            destination: Some(destination),
            known: RefCell::default(),
            client,
        }
    }

    /// Joins the request to its trace.
    pub(super) fn join(&self, head: &mut RequestHead, trail: &mut Trail) {
        hop::strip(&mut head.headers);
        trail.version = head.version;
        trail.context = self.outbound.telemetry.begin(&head.headers);
        trail.context.inject(&mut head.headers);
        trail.is_last = is_last_recipient(head);
        if head.names_no_host() {
            head.authority = self.destination.as_ref().and_then(Destination::host);
        }
    }

    /// Serves a request whose trail has begun; `found` is where it goes, if that was found out already, and `course`
    /// what it has set out on.
    pub(super) async fn go_on(
        &self,
        request: &mut Request<'_>,
        mut trail: Trail,
        found: Option<Found>,
        course: Option<Course>,
    ) {
        let found = match found {
            Some(found) => found,
            None => self.find_target(&request.head, &mut trail).await,
        };
        let ended = match found {
            Ok(_) if trail.is_last => {
                let answered = Box::pin(answer_as_last(request)).await;
                Box::pin(take_rest(request)).await;
                answered
            }
            Ok(None) => {
                self.prepare(request, &mut trail);
                self.attempt(request, &mut trail, course).await
            }
            Ok(Some(response)) => Box::pin(answer_at_once(request, *response)).await,
            Err(fault) => Err(Failure::Unanswered(Unanswered::unprocessed(fault))),
        };
        self.finish(request, trail, ended).await;
    }

    /// Tells the client what went wrong, if something did, and telemetry how it ended.
    pub(super) async fn finish(
        &self,
        request: &mut Request<'_>,
        mut trail: Trail,
        ended: Result<Outcome, Failure>,
    ) {
        if let Err(Failure::Unanswered(failed)) = &ended
            && let Some(responder) = request.responder.take()
        {
            // A client that is gone can't be told.
            let told = trail.told(failed.fault, &request.head);
            let _ = Box::pin(respond(responder, told)).await;
            request.head.version = trail.version;
            Box::pin(take_rest(request)).await;
        }
        self.conclude(request, &mut trail, &ended, Instant::now());
    }

    /// Takes note of how a request ended whose client was told.
    pub(super) fn conclude(
        &self,
        request: &mut Request<'_>,
        trail: &mut Trail,
        ended: &Result<Outcome, Failure>,
        now: Instant,
    ) {
        request.head.version = trail.version;
        let fault = match ended {
            Ok(outcome) => return self.record(request, trail, Ok(outcome), now),
            Err(Failure::Unanswered(failed)) => failed.fault,
            // An attempt that is to be repeated is repeated, so only the client's absence is left.
            Err(Failure::ClientGone | Failure::Again(_)) => {
                if let Some(responder) = request.responder.take() {
                    responder.reset(ErrorCode::CANCEL);
                }
                Fault::ClientGone
            }
        };
        self.record(request, trail, Err(fault), now);
    }

    /// Finds out where the request goes, into `trail`; an answer where the route has one at once.
    pub(super) async fn find_target(&self, head: &RequestHead, trail: &mut Trail) -> Found {
        let destination = match &self.destination {
            Some(destination) => destination.clone(),
            None => {
                let authority = head.authority.as_ref().ok_or(Fault::MalformedRequest)?;
                self.find_host(authority, head.scheme.as_ref(), trail.began)
                    .await?
            }
        };
        let now = trail.began;
        let target = trail.target.insert(Target::new(destination));
        let Destination::Service(port) = &target.destination else {
            return Ok(None);
        };
        let configured = self.outbound.latest_route(port).await?;
        let routed = |configured, rule, backend| Routed::new(configured, rule, backend, head);
        let (chosen, cluster) = match route::decide(&configured, head, self.outbound.draws.draw()) {
            Ok(Decision::Default) => (None, &configured.default_cluster),
            Ok(Decision::Backend { rule, backend }) => {
                let bound = self.backend_of_session(&configured.rules[rule], head, now);
                let backend = bound.await.unwrap_or(backend);
                let cluster = &configured.rules[rule].backends[backend].cluster;
                (Some((rule, backend)), cluster)
            }
            Ok(Decision::Answer { rule, response }) => {
                target.routed = Some(routed(configured, rule, None));
                return Ok(Some(response));
            }
            Err(refused) => {
                target.routed = refused.rule.map(|rule| routed(configured, rule, None));
                return Err(refused.fault);
            }
        };
        let found = self.outbound.latest_cluster(cluster).await;
        let protocol = configured.protocol;
        target.routed = chosen.map(|(rule, backend)| routed(configured, rule, Some(backend)));
        let cluster = found?;
        target.protocol = cluster.protocol.or(protocol);
        target.cluster = Some(cluster);
        Ok(None)
    }

    /// The backend that has the endpoint of the request's session. It keeps its sessions also when its weight
    /// goes to 0, so that they end by themselves (GEP-1619).
    async fn backend_of_session(
        &self,
        rule: &Rule,
        head: &RequestHead,
        now: Instant,
    ) -> Option<usize> {
        let session = Session::of(rule.session.as_ref()?, head, session::now())?;
        if rule.backends.len() < 2 {
            return None;
        }
        let balancer = &self.outbound.balancer;
        for (index, backend) in rule.backends.iter().enumerate() {
            if backend.invalid.is_none()
                && let Ok(cluster) = self.outbound.cluster(&backend.cluster).await
                && session.endpoint(balancer, &cluster, now).is_some()
            {
                return Some(index);
            }
        }
        None
    }

    /// Does to the request what the route's filters say, and sends off what is mirrored; once, however often it is
    /// called.
    pub(super) fn prepare(&self, request: &mut Request<'_>, trail: &mut Trail) {
        let Some(routed) = trail
            .target
            .as_ref()
            .and_then(|target| target.routed.as_ref())
        else {
            return;
        };
        if trail.asked.is_some() || routed.filters().next().is_none() {
            return;
        }
        let head = &mut request.head;
        trail.asked = Some((head.authority.clone(), head.path.clone()));
        routed.change_request(head);
        let mirrors = {
            let mut random = self.outbound.random.borrow_mut();
            route::mirrors(routed.filters(), &mut *random)
        };
        for mirror in mirrors {
            self.outbound
                .mirror(&mirror.cluster, routed.name(), request, self.client);
        }
    }

    async fn find_host(
        &self,
        authority: &Text,
        scheme: Option<&Text>,
        now: Instant,
    ) -> Result<Destination, Fault> {
        let discovery = &self.outbound.discovery;
        if let Some(known) = &*self.known.borrow()
            && *known.authority == *authority.as_bytes()
            && known.scheme.as_deref() == scheme.map(Text::as_bytes)
            && discovery.is_current(&known.configuration)
            && now < known.until
        {
            return Ok(known.destination.clone());
        }
        let configuration = discovery.current();
        let finding = self
            .outbound
            .find_authority(authority, scheme.map(|text| &**text));
        let destination = finding.await?;
        // An address outside the mesh is the resolver's to say, each time anew.
        if !matches!(destination, Destination::Outside(_)) {
            *self.known.borrow_mut() = Some(KnownHost {
                authority: authority.as_bytes().into(),
                scheme: scheme.map(|scheme| scheme.as_bytes().into()),
                destination: destination.clone(),
                configuration,
                until: now + KNOWN_LIFE,
            });
        }
        Ok(destination)
    }

    /// CONNECT on a stream of HTTP/2: a tunnel of opaque bytes, to where the client says. A connection that already has
    /// a destination leads nowhere else: the CONNECT is meant for whoever is there, and not for us to dial. It is refused
    /// instead of being passed on, because between sidecars a CONNECT is already the word for a TCP connection.
    async fn serve_tunnel(&self, request: &mut Request<'_>) {
        let Request {
            head,
            body,
            responder,
        } = request;
        let Some(responder) = responder.take() else {
            return;
        };
        let outbound = &self.outbound;
        let authority = head.authority.as_deref().unwrap_or_default();
        let found = match &self.destination {
            Some(_) => Err(Fault::DestinationRefused),
            None => outbound.find_authority(authority, None).await,
        };
        let opened = match found {
            Ok(destination) => outbound.open_tcp(&destination, Protocol::Tcp).await,
            Err(fault) => Err(fault),
        };
        match opened {
            Ok(mut upstream) => {
                let ok = ResponseHead {
                    status: http::StatusCode::OK,
                    version: Version::HTTP_2,
                    upgrade: None,
                    headers: Fields::new(),
                };
                if let Ok(mut sink) = responder.respond(ok, false)
                    && let Some(client) = body.tunnel().zip(sink.tunnel())
                {
                    relay(client, upstream.halves()).await;
                }
            }
            Err(fault) => {
                outbound.telemetry.refused(Direction::Outbound, fault);
                // A client that is gone can't be told.
                let _ = respond(responder, Told::of(fault, false)).await;
            }
        }
    }

    fn record(
        &self,
        request: &Request<'_>,
        trail: &mut Trail,
        ended: Result<&Outcome, Fault>,
        now: Instant,
    ) {
        let head = &request.head;
        let (authority, path) = match &trail.asked {
            Some((authority, path)) => (authority.as_ref(), path),
            None => (head.authority.as_ref(), &head.path),
        };
        let outbound = &self.outbound;
        let ending = Ending::of_told(ended.map_err(|fault| trail.told(fault, head)));
        let duration = now.saturating_duration_since(trail.began);
        let start = wall_clock(trail.began);
        let endpoint = trail.endpoint.as_deref();
        let sidecar = endpoint.and_then(|endpoint| endpoint.sidecar.as_ref());
        let target = trail.target.as_ref();
        let destination = target.map(|target| party_of(&target.destination, endpoint));
        let tls = target.zip(endpoint);
        let tls = tls.and_then(|(target, endpoint)| target.tls_to(endpoint));
        let routed = target.and_then(|target| target.routed.as_ref());
        let mut recent = outbound.recent.borrow_mut();
        let cluster = target.and_then(|target| target.cluster.as_ref());
        let cluster = cluster.map(|cluster| &cluster.name);
        let service = cluster.map(ServicePort::service);
        let done = recent.next(&Parts {
            authority: authority.map_or(&[][..], Text::as_bytes),
            path: path.as_bytes(),
            route: routed.map_or("", |routed| routed.name()),
            cluster_namespace: service.map_or("", ServiceName::namespace),
            cluster_name: service.map_or("", ServiceName::name),
            endpoint: endpoint.map_or("", |endpoint| &*endpoint.id),
        });
        *done = Done {
            trace_id: trail.context.trace_id,
            start: Some(start),
            duration,
            method: head.method.clone(),
            rule: routed.map(|routed| routed.rule().rule),
            cluster: cluster.map(ServicePort::port),
            address: endpoint.map(|endpoint| endpoint.address),
            status: ending.status.as_u16(),
            grpc_status: ending.grpc_status,
            fault: ending.fault,
            attempts: trail.attempts + 1,
            texts: std::mem::take(&mut done.texts),
        };
        let count = RequestCount {
            direction: Direction::Outbound,
            duration,
            status: ending.status.as_u16(),
            grpc_status: ending.grpc_status,
            fault: ending.fault,
            source: outbound.party.lend(),
            destination: destination.unwrap_or_default(),
            route: routed.map(|routed| &**routed.name()),
            tls: sidecar.is_some() || tls.is_some(),
            request_bytes: request.body.received,
            response_bytes: ending.response_bytes,
            retries: trail.attempts,
        };
        if !outbound
            .telemetry
            .count_request(&count, trail.context.sampled)
        {
            return;
        }
        outbound.telemetry.tell_of_request(RequestRecord {
            method: head.method.clone(),
            authority: authority.map(Cow::Borrowed),
            path: Cow::Borrowed(path),
            version: head.version,
            peer: sidecar.map(|sidecar| Cow::Borrowed(&sidecar.spiffe_id)),
            upstream: endpoint.map(|endpoint| endpoint.address),
            downstream: Some(self.client),
            ..RequestRecord::of(count, trail.context.take(), start)
        });
    }
}

impl Serve for OutboundRequests {
    async fn serve(&self, request: &mut Request<'_>) {
        if request.head.method == Method::CONNECT {
            // Boxed, as everything rare here, so that the usual request's state stays small.
            return Box::pin(self.serve_tunnel(request)).await;
        }
        let mut trail = Trail::new(Instant::now());
        self.join(&mut request.head, &mut trail);
        self.go_on(request, trail, None, None).await;
    }

    fn carry<'d>(self: &Rc<Self>, accepted: Accepted<'d>) -> ControlFlow<(), Accepted<'d>> {
        begin_stream(self, accepted)
    }

    fn begin(
        self: &Rc<Self>,
        request: Request<'static>,
        at: Instant,
    ) -> Option<LocalBoxFuture<'static, ()>> {
        Some(Box::pin(self.carry_request(request, at)?))
    }

    fn refused(&self, told: Told, version: Version) {
        let outbound = &self.outbound;
        let context = outbound.telemetry.begin(&Fields::new());
        let (direction, ended) = (Direction::Outbound, told.ended());
        let record = RequestRecord::unread(direction, context, ended, version, &outbound.party);
        outbound.telemetry.finish_request(RequestRecord {
            downstream: Some(self.client),
            ..record
        });
    }

    fn workers(&self) -> &Rc<Workers<Self>> {
        &self.outbound.workers
    }
}

/// Answers a request that goes nowhere.
async fn answer_at_once(
    request: &mut Request<'_>,
    response: ResponseHead,
) -> Result<Outcome, Failure> {
    match request.responder.take() {
        Some(responder) => {
            let outcome = respond_with(responder, response).await?;
            take_rest(request).await;
            Ok(outcome)
        }
        None => Err(Failure::ClientGone),
    }
}

/// Reads what is left of the body on a stream of HTTP/2 that was answered already. RFC 9113 8.1 lets it be
/// reset with NO_ERROR instead, but common clients that are just sending (curl 7.88) take that for a
/// failure. In HTTP/1 the connection's own loop does it.
async fn take_rest(request: &mut Request<'_>) {
    if request.head.version != Version::HTTP_2 {
        return;
    }
    let body = &mut request.body;
    let rest = async {
        while body.received < REST_BYTES_MAX && matches!(body.next().await, Ok(Piece::Data(_))) {}
    };
    // A client that takes longer gets the reset.
    let _ = tokio::time::timeout(REST_TIMEOUT, rest).await;
}

/// Tells a client that its CONNECT leads nowhere.
pub(super) async fn refuse_connect(writer: &mut Writer, fault: Fault) {
    let responder = Responder::Http1 {
        writer,
        method: Method::GET,
        version: Version::HTTP_11,
    };
    // A client that is gone can't be told.
    let _ = respond(responder, Told::of(fault, false)).await;
}
