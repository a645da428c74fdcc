//! Opaque bytes for our workload.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use http::{StatusCode, Version};
use weft_proto::spiffe::SpiffeId;

use super::http::HopRequests;
use super::{Client, Inbound};
use crate::authorization::decide;
use crate::endpoint::TcpUpstream;
use crate::http::{Request, Told};
use crate::model::{Fault, Fields, Hop, Protocol, ResponseHead};
use crate::tcp::{Receiver, Relayed, Sender, relay};
use crate::telemetry::{ConnectionRecord, Direction, Party};

/// What telemetry is told of a connection.
struct Trail<'t> {
    start: SystemTime,
    began: Instant,
    application: Option<SocketAddr>,
    peer: Option<&'t SpiffeId>,
    source: Party,
    protocol: Protocol,
    client: SocketAddr,
    port: u16,
}

impl HopRequests {
    /// A stream that stands for a TCP connection.
    pub(super) async fn serve_tcp(
        &self,
        request: &mut Request<'_>,
        hop: &Hop,
        checked: Result<(), Fault>,
    ) {
        let inbound = &self.inbound;
        let application = checked.and_then(|()| inbound.application(hop.port));
        let trail = Trail {
            start: SystemTime::now(),
            began: Instant::now(),
            application: application.ok(),
            peer: Some(&self.peer),
            source: self.caller(&hop.source),
            protocol: hop.protocol,
            client: self.client,
            port: hop.port,
        };
        let opened = match application {
            Ok(address) => inbound.open_application(address).await,
            Err(fault) => Err(fault),
        };
        match opened {
            Ok(mut upstream) => {
                let head = ResponseHead {
                    status: StatusCode::OK,
                    version: Version::HTTP_2,
                    upgrade: None,
                    headers: Fields::new(),
                };
                let responder = request.responder.take();
                let Some(Ok(mut sink)) = responder.map(|to| to.respond(head, false)) else {
                    return;
                };
                let relayed =
                    relay((request.body.tunnel(), sink.tunnel()), upstream.halves()).await;
                inbound.record_connection(trail, None, relayed);
            }
            Err(fault) => {
                let told = Told {
                    unprocessed: true,
                    ..Told::of(fault, false)
                };
                inbound.answer(request, told).await;
                inbound.record_connection(trail, Some(fault), Relayed::default());
            }
        }
    }
}

impl Inbound {
    pub(super) async fn open_application(&self, address: SocketAddr) -> Result<TcpUpstream, Fault> {
        self.endpoints.open_plain_tcp(address).await.map_err(|_| {
            self.ports.refused(address.port());
            Fault::ApplicationUnreachable
        })
    }

    /// An intercepted connection, to the application that it was going to.
    pub(super) async fn serve_plain_tcp(
        self: &Rc<Self>,
        mut client: Client,
        application: SocketAddr,
        protocol: Protocol,
        upstream: Option<TcpUpstream>,
    ) {
        let trail = Trail {
            start: SystemTime::now(),
            began: Instant::now(),
            application: Some(application),
            peer: None,
            source: Party::default(),
            protocol,
            client: client.address,
            port: application.port(),
        };
        let opened = match (decide(None, self.policy), upstream) {
            (Err(fault), _) => Err(fault),
            (Ok(_), Some(upstream)) => Ok(upstream),
            (Ok(_), None) => self.open_application(application).await,
        };
        match opened {
            Ok(mut upstream) => {
                let downstream = (
                    Receiver::Tcp(&mut client.reader),
                    Sender::Tcp(&mut client.writer),
                );
                let relayed = relay(downstream, upstream.halves()).await;
                self.record_connection(trail, None, relayed);
            }
            Err(fault) => {
                client.writer.reset();
                self.record_connection(trail, Some(fault), Relayed::default());
            }
        }
    }

    fn record_connection(&self, trail: Trail<'_>, fault: Option<Fault>, relayed: Relayed) {
        self.telemetry.finish_connection(ConnectionRecord {
            direction: Direction::Inbound,
            route: None,
            context: self.telemetry.begin(&Fields::new()),
            start: trail.start,
            duration: trail.began.elapsed(),
            protocol: trail.protocol,
            fault,
            source: trail.source,
            destination: self.known(trail.port).party.clone(),
            peer: trail.peer.cloned(),
            tls: trail.peer.is_some(),
            bytes_up: relayed.up,
            bytes_down: relayed.down,
            upstream: trail.application,
            downstream: Some(trail.client),
            reset: relayed.reset,
        });
    }
}
