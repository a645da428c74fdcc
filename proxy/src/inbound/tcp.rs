//! Opaque bytes for our workload.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use futures_util::future::LocalBoxFuture;
use http::{StatusCode, Version};

use super::http::{HopRequests, Said};
use super::{Client, Inbound};
use crate::authorization::decide;
use crate::endpoint::TcpUpstream;
use crate::http::{Responder, Told, respond};
use crate::model::{Fault, Fields, Protocol, ResponseHead};
use crate::multiplex::{StreamReceiver, StreamSender};
use crate::tcp::{Receiver, Relayed, Sender, relay};
use crate::telemetry::{ConnectionRecord, Direction, Party};

/// What telemetry is told of a connection.
struct Trail {
    start: SystemTime,
    began: Instant,
    application: Option<SocketAddr>,
    /// The connection from another sidecar that it came on.
    peer: Option<Rc<HopRequests>>,
    source: Party<'static>,
    protocol: Protocol,
    client: SocketAddr,
    port: u16,
}

impl HopRequests {
    /// A stream that stands for a TCP connection. What it is said to be for can be missing.
    pub(super) fn serve_tcp(
        self: Rc<Self>,
        said: Option<Rc<Said>>,
        mut receiver: StreamReceiver,
        mut sender: StreamSender,
    ) -> LocalBoxFuture<'static, ()> {
        let Some(said) = said else {
            let told = Told::of(Fault::MalformedRequest, false);
            return Box::pin(answer(sender, told));
        };
        let hop = &said.hop;
        let application = said
            .checked
            .and_then(|()| self.inbound.application(hop.port));
        let trail = Trail {
            start: SystemTime::now(),
            began: Instant::now(),
            application: application.ok(),
            peer: Some(self.clone()),
            source: said.caller.source.clone(),
            protocol: hop.protocol,
            client: self.client,
            port: hop.port,
        };
        // All that lasts is in here: there can be a thousand of them.
        Box::pin(async move {
            let opened = match application {
                Ok(address) => Box::pin(self.inbound.open_application(address)).await,
                Err(fault) => Err(fault),
            };
            match opened {
                Ok(mut upstream) => {
                    if sender.respond(&ok(), false).is_err() {
                        return;
                    }
                    let downstream = (
                        Receiver::Http2(&mut receiver, None),
                        Sender::Http2(&mut sender),
                    );
                    let relayed = relay(downstream, upstream.halves()).await;
                    self.inbound.record_connection(trail, None, relayed);
                }
                Err(fault) => {
                    let told = Told {
                        unprocessed: true,
                        ..Told::of(fault, false)
                    };
                    Box::pin(answer(sender, told)).await;
                    self.inbound
                        .record_connection(trail, Some(fault), Relayed::default());
                }
            }
        })
    }
}

/// The answer to a CONNECT that has reached the application.
fn ok() -> ResponseHead {
    ResponseHead {
        status: StatusCode::OK,
        version: Version::HTTP_2,
        upgrade: None,
        headers: Fields::new(),
    }
}

async fn answer(sender: StreamSender, told: Told) {
    let responder = Responder::Http2 {
        stream: sender,
        is_head: false,
    };
    // A client that is gone can't be told.
    let _ = respond(responder, told).await;
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

    fn record_connection(&self, trail: Trail, fault: Option<Fault>, relayed: Relayed) {
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
            tls: trail.peer.is_some(),
            peer: trail.peer.map(|on| on.peer.clone()),
            bytes_up: relayed.up,
            bytes_down: relayed.down,
            upstream: trail.application,
            downstream: Some(trail.client),
            reset: relayed.reset,
        });
    }
}
