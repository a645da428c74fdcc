//! Requests to their destination: route, balance, send; and, where the application provably saw
//! nothing of a request, send again elsewhere.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{Method, Version};
use rand::Rng;

use super::Outbound;
use super::destination::Destination;
use super::tcp::party_of;
use crate::balance::Picked;
use crate::endpoint::Opened;
use crate::http::{
    Ending, Failure, Outcome, Request, Responder, Serve, Unanswered, Workers, exchange,
    exchange_upgrade, is_idempotent, respond,
};
use crate::http2::ErrorCode;
use crate::model::{
    Cluster, Configuration, Endpoint, Fault, Fields, Hop, Protocol, RequestHead, hop,
};
use crate::route;
use crate::tcp::{Writer, relay};
use crate::telemetry::{Direction, RequestRecord, trace};

/// Endpoints that one request may be sent to. A second one is asked only when the first provably
/// didn't hand the request to its application.
const ATTEMPTS_MAX: usize = 3;

/// See [`Found`].
const FOUND_LIFE: Duration = Duration::from_secs(1);

/// Requests of one connection.
pub(super) struct OutboundRequests {
    outbound: Rc<Outbound>,
    /// Where all of them go; each request's own host decides otherwise.
    destination: Option<Destination>,
    /// What the last request's host was found to mean.
    found: RefCell<Option<Found>>,
    client: SocketAddr,
}

/// What a host means, for as long as nothing changes. Connections mostly go on asking the same.
struct Found {
    authority: String,
    scheme: Option<String>,
    destination: Destination,
    configuration: Arc<Configuration>,
    /// Looked up again from here on, so that discovery sees that it is used.
    until: Instant,
}

/// Where a request was routed to.
struct Target {
    destination: Destination,
    cluster: Option<Arc<Cluster>>,
    protocol: Option<Protocol>,
    route: Option<String>,
}

/// What telemetry is told of a request, gathered on its way.
struct Trail {
    start: SystemTime,
    began: Instant,
    context: trace::Context,
    target: Option<Target>,
    endpoint: Option<Arc<Endpoint>>,
    attempts: u32,
}

impl OutboundRequests {
    pub(super) fn explicit(outbound: Rc<Outbound>, client: SocketAddr) -> Self {
        Self {
            outbound,
            destination: None,
            found: RefCell::default(),
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
            found: RefCell::default(),
            client,
        }
    }

    async fn find_target(&self, head: &RequestHead) -> Result<Target, Fault> {
        let destination = match &self.destination {
            Some(destination) => destination.clone(),
            None => {
                let authority = head.authority.as_deref().ok_or(Fault::MalformedRequest)?;
                self.find_host(authority, head.scheme.as_deref()).await?
            }
        };
        let Destination::Service(port) = &destination else {
            return Ok(Target {
                destination,
                cluster: None,
                protocol: None,
                route: None,
            });
        };
        let configured = self.outbound.route(port).await?;
        let random = self.outbound.random.borrow_mut().random();
        let selection = route::select(&configured, head, random)?;
        let name = selection.rule.map(|rule| rule.route.clone());
        let cluster = self.outbound.cluster(selection.cluster).await?;
        let protocol = cluster.protocol.or(configured.protocol);
        Ok(Target {
            destination,
            cluster: Some(cluster),
            protocol,
            route: name,
        })
    }

    async fn find_host(&self, authority: &str, scheme: Option<&str>) -> Result<Destination, Fault> {
        let configuration = self.outbound.discovery.current();
        let now = Instant::now();
        if let Some(found) = &*self.found.borrow()
            && found.authority == authority
            && found.scheme.as_deref() == scheme
            && Arc::ptr_eq(&found.configuration, &configuration)
            && now < found.until
        {
            return Ok(found.destination.clone());
        }
        let destination = self.outbound.find_authority(authority, scheme).await?;
        // An address outside the mesh is the resolver's to say, each time anew.
        if !matches!(destination, Destination::Outside(_)) {
            *self.found.borrow_mut() = Some(Found {
                authority: authority.to_owned(),
                scheme: scheme.map(str::to_owned),
                destination: destination.clone(),
                configuration,
                until: now + FOUND_LIFE,
            });
        }
        Ok(destination)
    }

    /// Tries endpoints until one answers, or a failure isn't safe to repeat.
    async fn attempt(
        &self,
        request: &mut Request<'_>,
        trail: &mut Trail,
    ) -> Result<Outcome, Failure> {
        let mut tried: Vec<Arc<str>> = Vec::new();
        let mut last = Unanswered::unprocessed(Fault::NoEndpoint);
        let version = request.head.version;
        for attempt in 0..ATTEMPTS_MAX {
            let Some(target) = &trail.target else {
                return Err(Failure::Unanswered(last));
            };
            let picked = self.pick(target, &tried);
            let endpoint = match (&picked, &target.destination) {
                (Some(picked), _) => Some(picked.endpoint.clone()),
                (None, Destination::Endpoint(endpoint)) => Some(endpoint.clone()),
                (None, Destination::Service(_)) => return Err(Failure::Unanswered(last)),
                (None, Destination::Outside(_)) => None,
            };
            trail.attempts = u32::try_from(attempt).unwrap_or(u32::MAX);
            trail.endpoint = endpoint.clone();
            request.head.version = version;
            let failed = match self.send_once(request, target, endpoint.as_deref()).await {
                Ok(outcome) => {
                    picked.inspect(Picked::succeeded);
                    return Ok(outcome);
                }
                Err(Failure::ClientGone) => return Err(Failure::ClientGone),
                Err(Failure::Unanswered(failed)) => failed,
            };
            let repeatable =
                failed.unprocessed || (failed.stale && is_idempotent(&request.head.method));
            if let Some(picked) = picked {
                // An application that doesn't speak this client's protocol still serves the others.
                if failed.unprocessed && failed.fault != Fault::UpstreamProtocol {
                    picked.failed(Instant::now());
                }
                tried.push(picked.endpoint.id.clone());
            }
            last = failed;
            if !repeatable || request.responder.is_none() || !request.body.rewind() {
                break;
            }
        }
        Err(Failure::Unanswered(last))
    }

    fn pick(&self, target: &Target, tried: &[Arc<str>]) -> Option<Picked> {
        let cluster = target.cluster.as_ref()?;
        let mut random = self.outbound.random.borrow_mut();
        self.outbound
            .balancer
            .pick(cluster, tried, Instant::now(), &mut *random)
    }

    async fn send_once(
        &self,
        request: &mut Request<'_>,
        target: &Target,
        endpoint: Option<&Endpoint>,
    ) -> Result<Outcome, Failure> {
        let head = &request.head;
        let spoken = if head.version == Version::HTTP_2 {
            Protocol::Http2
        } else {
            Protocol::Http1
        };
        let protocol = target
            .protocol
            .filter(|protocol| protocol.is_http())
            .unwrap_or(spoken);
        let endpoints = &self.outbound.endpoints;
        let (opened, address) = match (endpoint, &target.destination) {
            (Some(endpoint), _) => {
                let hop = Hop {
                    version_10: head.version == Version::HTTP_10 && protocol == Protocol::Http1,
                    no_host: head.authority.is_none(),
                    ..self.outbound.hop(endpoint, protocol)
                };
                (
                    endpoints.open(endpoint, protocol, hop).await,
                    endpoint.address,
                )
            }
            (None, Destination::Outside(address)) => {
                (endpoints.open_plain(*address, protocol).await, *address)
            }
            (None, _) => (Err(Unanswered::unprocessed(Fault::NoEndpoint)), self.client),
        };
        let mut opened = opened.map_err(Failure::Unanswered)?;
        let outcome = send(request, &mut opened).await?;
        if outcome.reusable {
            endpoints.give_back(address, opened);
        }
        Ok(outcome)
    }

    /// CONNECT on a stream of HTTP/2: a tunnel of opaque bytes.
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
        let opened = match outbound
            .find_authority(head.authority.as_deref().unwrap_or_default(), None)
            .await
        {
            Ok(destination) => outbound.open_tcp(&destination, Protocol::Tcp).await,
            Err(fault) => Err(fault),
        };
        match opened {
            Ok(mut upstream) => {
                let ok = crate::model::ResponseHead {
                    status: http::StatusCode::OK,
                    version: Version::HTTP_2,
                    upgrade: None,
                    headers: Fields::new(),
                };
                if let Ok(mut sink) = responder.respond(ok, false) {
                    relay((body.tunnel(), sink.tunnel()), upstream.halves()).await;
                }
            }
            Err(fault) => {
                outbound.telemetry.refused(Direction::Outbound, fault);
                // A client that is gone can't be told.
                let _ = respond(responder, fault, false, false).await;
            }
        }
    }

    fn record(&self, request: &Request<'_>, trail: Trail, ended: Result<&Outcome, Fault>) {
        let head = &request.head;
        let outbound = &self.outbound;
        let ending = Ending::of(ended, head.is_grpc());
        let endpoint = trail.endpoint.as_deref();
        let sidecar = endpoint.and_then(|endpoint| endpoint.sidecar.as_ref());
        let destination = trail
            .target
            .as_ref()
            .map(|target| party_of(&target.destination, endpoint));
        outbound.telemetry.finish_request(RequestRecord {
            direction: Direction::Outbound,
            context: trail.context,
            start: trail.start,
            duration: trail.began.elapsed(),
            method: head.method.clone(),
            scheme: "http",
            authority: head.authority.clone(),
            path: head.path.clone(),
            version: head.version,
            status: ending.status.as_u16(),
            grpc_status: ending.grpc_status,
            fault: ending.fault,
            source: outbound.party(),
            destination: destination.unwrap_or_default(),
            route: trail.target.and_then(|target| target.route),
            peer: sidecar.map(|sidecar| sidecar.spiffe_id.clone()),
            tls: sidecar.is_some(),
            request_bytes: request.body.received,
            response_bytes: ending.response_bytes,
            retries: trail.attempts,
            upstream: trail.endpoint.map(|endpoint| endpoint.address),
            downstream: Some(self.client),
        });
    }
}

impl Serve for OutboundRequests {
    async fn serve(&self, request: &mut Request<'_>) {
        if request.head.method == Method::CONNECT {
            // Boxed, as everything rare here, so that the usual request's state stays small.
            return Box::pin(self.serve_tunnel(request)).await;
        }
        let headers = &mut request.head.headers;
        hop::strip(headers);
        let context = self.outbound.telemetry.begin(headers);
        context.inject(headers);
        let mut trail = Trail {
            start: SystemTime::now(),
            began: Instant::now(),
            context,
            target: None,
            endpoint: None,
            attempts: 0,
        };
        let version = request.head.version;
        let ended = match self.find_target(&request.head).await {
            Ok(target) => {
                trail.target = Some(target);
                self.attempt(request, &mut trail).await
            }
            Err(fault) => Err(Failure::Unanswered(Unanswered::unprocessed(fault))),
        };
        request.head.version = version;
        let responder = request.responder.take();
        match ended {
            Ok(outcome) => self.record(request, trail, Ok(&outcome)),
            Err(Failure::Unanswered(failed)) => {
                if let Some(responder) = responder {
                    // A client that is gone can't be told.
                    let grpc = request.head.is_grpc();
                    let _ = Box::pin(respond(responder, failed.fault, grpc, false)).await;
                }
                self.record(request, trail, Err(failed.fault));
            }
            Err(Failure::ClientGone) => {
                if let Some(responder) = responder {
                    responder.reset(ErrorCode::CANCEL);
                }
                self.record(request, trail, Err(Fault::ClientGone));
            }
        }
    }

    fn refused(&self, fault: Fault) {
        self.outbound.telemetry.refused(Direction::Outbound, fault);
    }

    fn workers(&self) -> &Rc<Workers<Self>> {
        &self.outbound.workers
    }
}

/// One request to one upstream.
async fn send(request: &mut Request<'_>, opened: &mut Opened) -> Result<Outcome, Failure> {
    let Request {
        head,
        body,
        responder,
    } = request;
    if head.upgrade.is_some() {
        let upgraded = exchange_upgrade(head, body, responder, &mut opened.upstream, false);
        return Box::pin(upgraded).await.map(|(outcome, _)| outcome);
    }
    exchange(head, body, responder, &mut opened.upstream).await
}

/// Tells a client that its CONNECT leads nowhere.
pub(super) async fn refuse_connect(writer: &mut Writer, fault: Fault) {
    let mut keep_alive = false;
    let responder = Responder::Http1 {
        writer,
        method: Method::GET,
        version: Version::HTTP_11,
        keep_alive: &mut keep_alive,
        drain: None,
    };
    // A client that is gone can't be told.
    let _ = respond(responder, fault, false, false).await;
}
