//! Opaque bytes to their destination.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::{Destination, Known, Outbound};
use crate::balance::{Admitted, Picked, Wanted};
use crate::endpoint::TcpUpstream;
use crate::http::Unanswered;
use crate::model::{
    BackendTls, Cluster, Endpoint, Fault, Fields, Hop, Protocol, ServiceName, Text, WeightedCluster,
};
use crate::route;
use crate::tcp::{FirstBytes, Receiver, Relayed, Sender, relay};
use crate::telemetry::{ConnectionRecord, Direction, Party};

/// Endpoints that one connection may be offered to.
const ATTEMPTS_MAX: usize = 3;

/// A connected upstream, and whom it leads to.
pub(super) struct Upstream {
    connection: TcpUpstream,
    /// By TLS that we began.
    tls: bool,
    endpoint: Option<Arc<Endpoint>>,
    /// The TCPRoute or TLSRoute that led there.
    route: Option<Arc<str>>,
    /// Counts as outstanding at the endpoint until dropped.
    _picked: Option<Picked>,
    /// Counts as a connection of the cluster until dropped.
    _admitted: Option<Admitted>,
    address: SocketAddr,
}

impl Upstream {
    pub(super) fn halves(&mut self) -> (Receiver<'_>, Sender<'_>) {
        self.connection.halves()
    }
}

impl FirstBytes for Upstream {
    fn first_bytes(&mut self) -> impl Future<Output = bool> {
        self.connection.first_bytes()
    }
}

impl Outbound {
    /// Connects to where `destination` leads.
    pub(super) async fn open_tcp(
        &self,
        destination: &Destination,
        protocol: Protocol,
    ) -> Result<Upstream, Fault> {
        match destination {
            Destination::Outside(address) => {
                let connection = self
                    .endpoints
                    .open_plain_tcp(*address)
                    .await
                    .map_err(|failed| failed.fault)?;
                Ok(Upstream {
                    connection,
                    tls: false,
                    endpoint: None,
                    route: None,
                    _picked: None,
                    _admitted: None,
                    address: *address,
                })
            }
            Destination::Endpoint(endpoint) => {
                let opened = self.open_tcp_endpoint(endpoint, None, protocol).await;
                let connection = opened.map_err(|failed| failed.fault)?;
                let address = endpoint.address;
                Ok(Upstream {
                    connection,
                    tls: false,
                    endpoint: Some(endpoint.clone()),
                    route: None,
                    _picked: None,
                    _admitted: None,
                    address,
                })
            }
            Destination::Service(port) => {
                let route = self.route(port).await?;
                match &route.tcp {
                    Some(rule) => {
                        self.open_tcp_backend(&rule.route, &rule.backends, protocol)
                            .await
                    }
                    // Which of them takes a connection, only its first bytes could tell.
                    None if !route.tls_rules.is_empty() => Err(Fault::NoRoute),
                    None => {
                        let cluster = self.cluster(&route.default_cluster).await?;
                        self.open_tcp_cluster(&cluster, protocol).await
                    }
                }
            }
        }
    }

    /// Connects to one of a route's backends, drawn by weight.
    pub(super) async fn open_tcp_backend(
        &self,
        route: &Arc<str>,
        backends: &[WeightedCluster],
        protocol: Protocol,
    ) -> Result<Upstream, Fault> {
        let backend = route::pick_backend(backends, self.draws.draw())?;
        let cluster = self.cluster(&backends[backend].cluster).await?;
        let opened = self.open_tcp_cluster(&cluster, protocol).await?;
        Ok(Upstream {
            route: Some(route.clone()),
            ..opened
        })
    }

    /// One endpoint after the other, because no byte has been sent to any.
    async fn open_tcp_cluster(
        &self,
        cluster: &Arc<Cluster>,
        protocol: Protocol,
    ) -> Result<Upstream, Fault> {
        // TLS that the client speaks itself is passed on as it is.
        let tls = cluster.tls.as_ref();
        let tls = tls.filter(|_| protocol != Protocol::Tls);
        let admitted = self.balancer.admit_connection(cluster, Instant::now());
        let mut admitted = Some(admitted.ok_or(Fault::CircuitOpen)?);
        let mut tried = Vec::new();
        let mut fault = Fault::NoEndpoint;
        while tried.len() < ATTEMPTS_MAX {
            let wanted = Wanted {
                tried: &tried,
                ..Wanted::default()
            };
            let picked = self.balancer.pick(
                cluster,
                wanted,
                Instant::now(),
                &mut *self.random.borrow_mut(),
            );
            let Some(picked) = picked else { break };
            let endpoint = picked.endpoint.clone();
            match self.open_tcp_endpoint(&endpoint, tls, protocol).await {
                Ok(connection) => {
                    picked.reached();
                    let address = endpoint.address;
                    return Ok(Upstream {
                        connection,
                        tls: tls.is_some() && endpoint.sidecar.is_none(),
                        endpoint: Some(endpoint),
                        route: None,
                        _picked: Some(picked),
                        _admitted: admitted.take(),
                        address,
                    });
                }
                Err(failed) => {
                    if failed.fault.blames_endpoint() {
                        picked.refused(Instant::now());
                    }
                    fault = failed.fault;
                    tried.push(endpoint.id.clone());
                }
            }
        }
        Err(fault)
    }

    async fn open_tcp_endpoint(
        &self,
        endpoint: &Endpoint,
        tls: Option<&Arc<BackendTls>>,
        protocol: Protocol,
    ) -> Result<TcpUpstream, Unanswered> {
        let hop = self.hop(endpoint, protocol);
        self.endpoints.open_tcp(endpoint, tls, &hop).await
    }

    /// What the other sidecar is told of a stream to `endpoint`.
    pub(super) fn hop(&self, endpoint: &Endpoint, protocol: Protocol) -> Hop {
        Hop {
            port: endpoint.address.port(),
            protocol,
            version_10: false,
            no_host: false,
            instance: endpoint
                .sidecar
                .as_ref()
                .map(|sidecar| sidecar.instance.clone())
                .unwrap_or_default(),
            source: self.source.clone(),
            route: Text::default(),
            timeout: None,
        }
    }

    /// Relays the client's connection to its end.
    pub(super) async fn serve_tcp(self: &Rc<Self>, known: Box<Known>) {
        let Known {
            destination,
            mut client,
            protocol,
            upstream,
        } = *known;
        let (start, began) = (SystemTime::now(), Instant::now());
        // What was opened before the client's first bytes were known can be one TLS too many.
        let upstream = upstream.filter(|upstream| !upstream.tls || protocol != Protocol::Tls);
        let opened = match upstream {
            Some(upstream) => Ok(upstream),
            None => Box::pin(self.open_tcp(&destination, protocol)).await,
        };
        let mut ended = Ended {
            fault: None,
            tls: false,
            relayed: Relayed::default(),
            route: None,
            endpoint: None,
            upstream: None,
        };
        match opened {
            Ok(mut upstream) => {
                ended.upstream = Some(upstream.address);
                ended.tls = upstream.tls;
                ended.route = upstream.route.take();
                ended.endpoint = upstream.endpoint.take();
                let downstream = (
                    Receiver::Tcp(&mut client.reader),
                    Sender::Tcp(&mut client.writer),
                );
                ended.relayed = relay(downstream, upstream.halves()).await;
            }
            Err(fault) => {
                ended.fault = Some(fault);
                client.writer.reset();
            }
        }
        self.record_connection(
            &destination,
            &ended,
            protocol,
            client.address,
            (start, began),
        );
    }

    fn record_connection(
        &self,
        destination: &Destination,
        ended: &Ended,
        protocol: Protocol,
        client: SocketAddr,
        (start, began): (SystemTime, Instant),
    ) {
        let peer = ended
            .endpoint
            .as_ref()
            .and_then(|endpoint| endpoint.sidecar.as_ref());
        self.telemetry.finish_connection(ConnectionRecord {
            direction: Direction::Outbound,
            context: self.telemetry.begin(&Fields::new()),
            start,
            duration: began.elapsed(),
            protocol,
            fault: ended.fault,
            source: self.party.clone(),
            destination: party_of(destination, ended.endpoint.as_deref()).into_owned(),
            route: ended.route.clone(),
            peer: peer.map(|sidecar| sidecar.spiffe_id.clone()),
            tls: ended.tls || peer.is_some(),
            bytes_up: ended.relayed.up,
            bytes_down: ended.relayed.down,
            upstream: ended.upstream,
            downstream: Some(client),
            reset: ended.relayed.reset,
        });
    }
}

/// How a connection went.
struct Ended {
    fault: Option<Fault>,
    tls: bool,
    relayed: Relayed,
    route: Option<Arc<str>>,
    endpoint: Option<Arc<Endpoint>>,
    upstream: Option<SocketAddr>,
}

/// The called side, for telemetry.
pub(super) fn party_of<'d>(
    destination: &'d Destination,
    endpoint: Option<&'d Endpoint>,
) -> Party<'d> {
    let service = match destination {
        Destination::Service(port) => Some(port.service()),
        _ => None,
    };
    let of_endpoint = endpoint.map(|endpoint| &endpoint.namespace);
    let namespace = of_endpoint
        .filter(|namespace| !namespace.is_empty())
        .or(service.map(ServiceName::shared_namespace));
    let workload = endpoint.map(|endpoint| &endpoint.workload);
    Party {
        namespace: namespace.map(Cow::Borrowed).unwrap_or_default(),
        workload: workload.map(Cow::Borrowed).unwrap_or_default(),
        service: service.map(Cow::Borrowed),
    }
}
